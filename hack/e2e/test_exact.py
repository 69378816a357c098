"""Exact training: what a stranger computed is computed again from the artifacts, to the same roots."""

import json
import os
import pathlib
import shutil
import tempfile
import unittest

from lib import CACHE, ENV, ROOT, TARGET, TENANT_NS, apply, delete, get, sh, task, wait_condition

STORE = pathlib.Path("/var/lib/freehold-dev/tenant-store/demo/sha256")
TRAINER = TARGET / "debug" / "freehold-trainer"
LIBRARIES = ENV | {"LD_LIBRARY_PATH": f"{CACHE}/libtorch/lib:{os.environ.get('LD_LIBRARY_PATH', '')}"}
STEPS, SEGMENT = 400, 100


def exact_task(name):
    out = task(name, steps=STEPS)
    out["spec"]["trainer"]["recipe"] |= {
        "precision": "exact-i8", "segmentSteps": SEGMENT, "checkpoint": {"every": "1m", "keepLast": 2},
        "evaluate": {"every": SEGMENT, "metrics": ["loss", "accuracy"]},
    }
    return out


class Exact(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(delete, "trainingtask", "exact")
        apply(exact_task("exact"))
        wait_condition("trainingtask", "exact", "Complete", "True", None, seconds=240)
        cls.status = get("trainingtask", "exact", "demo")["status"]
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        order = get("configmap", f"order-{cls.status['orderId'][2:22]}", TENANT_NS)
        (cls.folder / "task.json").write_text(order["data"]["manifest.json"])
        for name in ("in", "out", "checkpoints"):
            (cls.folder / name).mkdir()
        shutil.copy(ROOT / "examples" / "data" / "digits-train.csv.gz", cls.folder / "in" / "dataset.csv.gz")
        cls.trace = json.loads(cls.artifact("trace.json").read_text())

    @classmethod
    def artifact(cls, name):
        return STORE / next(item["sha256"] for item in cls.status["artifacts"] if item["name"] == name)

    def replay(self, trace, *arguments):
        file = self.folder / "out" / "trace.json"
        file.write_text(json.dumps(trace))
        return sh(TRAINER, "replay", *arguments, "--task", self.folder / "task.json", "--in", self.folder / "in", "--out",
                  self.folder / "out", "--checkpoints", self.folder / "checkpoints", env=LIBRARIES, check=False)

    def test_the_status_says_what_the_run_commits_to(self):
        said = self.status["exact"]
        self.assertEqual(said["segments"], STEPS // SEGMENT)
        self.assertEqual([said["initRoot"], said["stateRoot"]], [self.trace["states"][0], self.trace["states"][-1]])
        for key in ("programId", "dataRoot", "seed"):
            self.assertEqual(said[key], self.trace[key])
        self.assertGreater(float(self.status["metrics"]["accuracy"]), 0.9)

    def test_any_segment_is_computed_again(self):
        for arguments in (("--segment", 1, "--interpreter"), ("--segment", STEPS // SEGMENT)):
            done = self.replay(self.trace, *map(str, arguments))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(self.trace["states"][arguments[1]], done.stderr)

    def test_a_trace_of_another_run_is_refused(self):
        forged = self.trace | {"states": self.trace["states"][:2] + self.trace["states"][1:2] + self.trace["states"][3:]}
        self.assertEqual(self.replay(forged, "--segment", "2").returncode, 65)
        self.assertIn("programId", self.replay(self.trace | {"programId": "0x" + "0" * 64}, "--segment", "2").stderr)


if __name__ == "__main__":
    unittest.main()
