"""From `kubectl create` to Leased=True and to the first training step, over a few fresh tasks, one after another."""

import datetime
import json
import queue
import statistics
import subprocess
import threading
import time

import common
from common import Heads, NAMESPACE, Workplace, lib, record, run_part, say, setting, table, task

# Enough to be still at it when its first line of progress is read.
STEPS = 400_000
WAIT = 300
CONDITIONS = ["Funded", "Leased", "Running"]
FIRST_STEP = "first step"


class Watch:
    """Every state of a task's conditions, with the moment it was seen."""

    # A template: with a watch, kubectl's jsonpath prints a range only once.
    SHOWN = '{{with .status}}{{range .conditions}}{{.type}}={{.status}} {{end}}{{end}}{{"\\n"}}'

    def __init__(self, name):
        command = ["kubectl", "-n", NAMESPACE, "get", "trainingtask", name, "--watch", "-o", f"go-template={self.SHOWN}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=lib.ENV)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put((time.time(), line.split()))
        self.lines.put((time.time(), None))

    def moments(self, wanted, seconds):
        """When each of the wanted conditions was first True."""
        seen, last, end = {}, [], time.monotonic() + seconds
        while len(seen) < len(wanted):
            try:
                moment, shown = self.lines.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                raise lib.Failed(f"not within {seconds} s: {', '.join(set(wanted) - set(seen))}; the task has {' '.join(last)}") from None
            if shown is None:
                raise lib.Failed(f"the watch of the task ended; it had {' '.join(last)}")
            last = shown
            if "Failed=True" in last:
                raise lib.Failed(f"the task failed; it has {' '.join(last)}")
            for name in wanted:
                if f"{name}=True" in last:
                    seen.setdefault(name, moment)
        return seen

    def close(self):
        self.process.terminate()
        self.process.wait()


def first_step(order):
    """When the trainer had made its first step: the first line of progress, which it writes then."""
    read = ("-c", "courier", "--", "head", "-n", "1", "/freehold/progress.jsonl")

    def look():
        pod = lib.lease_pod(order)
        if pod is None:
            return None
        where = pod["metadata"]
        done = lib.kubectl("-n", where["namespace"], "exec", where["name"], *read, check=False)
        return done.stdout if done.returncode == 0 and done.stdout.endswith("\n") else None

    line = json.loads(lib.until("a line of progress", look, WAIT))
    at = datetime.datetime.fromisoformat(line["at"].replace("Z", "+00:00")).timestamp()
    return line["step"], at


def one(number, heads):
    """Seconds and blocks from apply to each milestone of one fresh task."""
    name = f"lease-{number}"
    wanted = task(name, steps=STEPS, trainer__recipe__evaluate={"every": STEPS, "metrics": ["loss"]})
    began = time.time()
    lib.kubectl("create", "-f", "-", stdin=json.dumps(wanted))
    watch = Watch(name)
    try:
        moments = watch.moments(CONDITIONS, WAIT)
    finally:
        watch.close()
    order = lib.get("trainingtask", name, NAMESPACE)["status"]["orderId"]
    step, moments[FIRST_STEP] = first_step(order)
    lib.delete("trainingtask", name, NAMESPACE, seconds=WAIT)
    block = heads.at(began)
    out = {key: {"seconds": round(at - began, 2), "blocks": heads.at(at) - block} for key, at in moments.items()}
    say(f"  task {number}: " + ", ".join(f"{key} {value['seconds']:.1f} s" for key, value in out.items()))
    return {"step": step, "milestones": out}


def spread(values):
    return statistics.median(values), min(values), max(values)


def main():
    count = setting("BENCH_LEASES", 3)
    say(f"lease: {count} fresh tasks, one after another, some 2 min each …")
    with Workplace(limit="100", most_orders=8):
        heads = Heads()
        heads.start()
        runs = [one(number, heads) for number in range(1, count + 1)]
        heads.over.set()
    rows, summary = [], {}
    for name in [*CONDITIONS, FIRST_STEP]:
        seconds = spread([run["milestones"][name]["seconds"] for run in runs])
        blocks = spread([run["milestones"][name]["blocks"] for run in runs])
        label = name if name == FIRST_STEP else f"{name}=True"
        rows.append((label, f"{seconds[0]:.1f}", f"{seconds[1]:.1f}–{seconds[2]:.1f}", f"{blocks[0]:g}", f"{blocks[1]}–{blocks[2]}"))
        summary[name] = {"seconds": seconds[0], "blocks": blocks[0]}
    notes = [
        "from kubectl create to the condition as a watch shows it; first step: by the trainer's clock",
        "with a block every 2 s, and confirmed three blocks deep",
    ]
    table(f"From apply, {count} tasks", ("until", "s, median", "range", "blocks, median", "range"), rows, notes)
    record("lease", {"median": summary, "tasks": runs})


run_part(main)
