"""Steps a second of freehold-trainer beside the same network in Python PyTorch: trainer-image/bench, kept."""

import re
import subprocess
import sys

import common
from common import ROOT, record, run_part, say, setting, table

# A row of trainer-image/bench/compare.py: name, steps/s, ratio to PyTorch.
ROW = re.compile(r"^(\S.*?)\s{2,}(\d+)\s+(\d+\.\d+)$")


def main():
    rounds = setting("BENCH_ROUNDS", 3)
    say(f"trainer: {rounds} rounds of freehold-trainer and PyTorch in turn (the first time ever, PyTorch is fetched) …")
    done = subprocess.run([ROOT / "trainer-image" / "bench" / "run.sh", str(rounds)], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: trainer-image/bench/run.sh failed with status {done.returncode}")
    title, *lines = done.stdout.strip().splitlines()
    found = [match.groups() for line in lines if (match := ROW.match(line))]
    if len(found) < 2:
        raise common.lib.Failed(f"trainer-image/bench/run.sh printed no table: {done.stdout!r}")
    notes = [line for line in lines if line.startswith("(")] + ["ratio: steps/s to those of PyTorch as its documentation writes the loop; above 1 is faster"]
    what = re.sub(r"\s{2,}.*", "", title)
    table(f"Trainer: {what}, same libtorch, same threads", ("", "steps/s", "ratio"), found, notes)
    runs = [{"name": name, "stepsPerSecond": int(speed), "ratio": float(ratio)} for name, speed, ratio in found]
    record("trainer", {"what": what, "rounds": rounds, "runs": runs})


run_part(main)
