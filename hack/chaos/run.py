#!/usr/bin/env python3
"""Tasks run on the real cluster and the real chain while faults strike, a few at a time, from a seed. When the faults
stop, every task must end, and the sums must be zero: money lost, orphans, orders funded twice, refunds stranded.

usage: run.py [--minutes N] [--seed N] [--lanes chain,cluster,deaths]"""

import argparse
import collections
import json
import os
import random
import sys
import threading
import time
import traceback

import faults
import sums
from world import NAMESPACE, ROOT, SIDES, World, lib, patient

sys.path.insert(0, str(ROOT / "hack" / "bench"))
from common import say, table  # noqa: E402

OUT = ROOT / "out" / "chaos.json"
LANES = {"chain": (faults.CHAIN, (0.5, 1.5)), "cluster": (faults.CLUSTER, (0.5, 1.5)), "deaths": (faults.DEATHS, (1, 4))}
IN_FLIGHT = 4  # tasks at once: what two cores bear
LEAST_COMPLETE = 0.6
SUMS = ["lost", "orphans", "doubleFunded", "stranded", "unrecorded", "tornDown", "foreignEnded"]


class Log:
    """Injections as they happened."""

    def __init__(self):
        self.rows = []
        self.lock = threading.Lock()

    def add(self, kind, met, affected, error=None):
        say(f"  {time.strftime('%H:%M:%S')} {'' if met else 'not met: '}{kind}{f' ({error})' if error else ''}")
        with self.lock:
            self.rows.append({"kind": kind, "met": met, "affected": sorted(affected), "error": error})


def deck(kinds, rng):
    """Every kind once in random order, then by weight; never the same twice in a row."""
    order = list(kinds)
    rng.shuffle(order)
    yield from order
    last = order[-1]
    while True:
        pick = rng.choices(kinds, [weight for _, weight, _ in kinds])[0]
        if pick is not last:
            last = pick
            yield pick


def lane(world, kinds, gap, rng, stop, log):
    """One fault after another, with a gap of so many seconds between two."""
    for kind, _, inject in deck(kinds, rng):
        if stop.is_set():
            return
        affected = world.try_open_work()
        met, error, begun = False, None, False
        steps = inject(world, rng)
        try:
            while True:
                pause = next(steps)
                begun = True
                stop.wait(pause)  # when the time is over the harm is mended at once
        except StopIteration as done:
            met = bool(done.value)
        except Exception as failed:  # noqa: BLE001 - a fault that cannot be mended is told in the table
            if begun:
                error = f"{type(failed).__name__}: {failed}"
                traceback.print_exc(file=sys.stderr)
        log.add(kind, met and bool(affected), affected, error)
        stop.wait(rng.uniform(*gap))


def workload(world, rng, stop, names):
    """Keeps a few tasks going: most short, some that last for a while, with and without a GPU."""
    while not stop.is_set():
        try:
            if len(world.open_work()) < IN_FLIGHT:
                name = f"t{len(names):03d}"
                long = rng.random() < 0.35
                task = lib.long_task(name, steps=40_000) if long else lib.task(name)
                task["spec"]["resources"]["cpu"] = "250m"
                if rng.random() < 0.5:
                    del task["spec"]["resources"]["gpu"]
                task["spec"]["activeDeadline"] = "3h"
                lib.apply(lib.in_namespace(task, NAMESPACE))
                names.append(name)
        except Exception as failed:  # noqa: BLE001 - the API server may be the one that was hit
            say(f"  (a task could not be made: {str(failed)[:100]})")
        stop.wait(1)


class Recorded(set):
    """Hashes that goals stored; how often they were all looked at."""

    looks = 0


def recorder(stop, recorded):
    """Hashes that goals store, before retention takes the goals away."""
    while not stop.is_set():
        if patient(lambda: record(recorded)):
            recorded.looks += 1
        stop.wait(1)


def record(recorded):
    for namespace, account in SIDES.values():
        for item in lib.items("chaintransactions", namespace):
            recorded.update((item.get("status") or {}).get("hashes") or [])
        status = lib.get("computeaccount", account).get("status") or {}
        recorded.update(h for slot in status.get("inFlight") or [] for h in slot.get("hashes") or [])
    return True


def finish(world, seconds):
    """Once the faults have stopped: every task ends, every account is at rest."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tasks = lib.items("trainingtasks", NAMESPACE)
        goals = [item for namespace, _ in SIDES.values() for item in lib.items("chaintransactions", namespace)
                 if (item.get("status") or {}).get("state") not in ("Confirmed", "Failed", "Obsolete")]
        unsettled = [t for t in tasks if (lib.condition(t, "Settled") or {}).get("status") == "False"]
        if not sums.unfinished(tasks) and not goals and not unsettled:
            return tasks
        time.sleep(2)
    return lib.items("trainingtasks", NAMESPACE)


def reasons(tasks):
    out = collections.Counter()
    for task in tasks:
        failed = lib.condition(task, "Failed")
        if (task.get("status") or {}).get("state") == "Failed":
            out[f"{failed['reason']}: {failed['message'][:90]}"] += 1
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("CHAOS_MINUTES", "20")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", "1")))
    parser.add_argument("--settle", type=float, default=480, help="seconds for the tasks to end after the faults")
    parser.add_argument("--lanes", default="chain,cluster,deaths")
    parser.add_argument("--image", default=lib.image("freehold"), help="what the releases run (default: the demo's)")
    parser.add_argument("--expect", choices=SUMS, help="the run is good if this sum is not zero: a defect has to show")
    options = parser.parse_args()
    say(f"chaos: seed {options.seed}, {options.minutes:g} minutes of faults (again with SEED={options.seed})")
    with World(options.image) as world:
        world.prepare("900")
        began = time.monotonic()
        before = sums.Books(world)
        world.place_stranger()
        stop, log, names, recorded = threading.Event(), Log(), [], Recorded()
        halt = threading.Event()
        threads = [threading.Thread(target=workload, args=(world, random.Random(options.seed), stop, names))]
        for at, name in enumerate(options.lanes.split(",")):
            rng = random.Random(options.seed * 1000 + at)
            threads.append(threading.Thread(target=lane, args=(world, *LANES[name], rng, stop, log)))
        watchers = [threading.Thread(target=recorder, args=(halt, recorded)),
                    threading.Thread(target=world.watch_namespaces, args=(halt,))]
        for thread in [*threads, *watchers]:
            thread.start()
        while time.monotonic() - began < options.minutes * 60 and any(t.is_alive() for t in threads):
            stop.wait(30)
            say(f"  {int(time.monotonic() - began)} s: {sum(r['met'] for r in log.rows)} faults met, {len(names)} tasks")
        stop.set()
        for thread in threads:
            thread.join()
        world.calm()
        tasks = finish(world, options.settle)
        result = judge(world, before, log, tasks, recorded)
        halt.set()
        for watcher in watchers:
            watcher.join()
    result |= {"seed": options.seed, "seconds": int(time.monotonic() - began)}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    show(result, log, tasks)
    if options.expect:
        caught = result[options.expect] > 0
        say(f"{options.expect} is {result[options.expect]}: the defect {'was caught' if caught else 'WAS NOT CAUGHT'}")
        return 0 if caught else 1
    return 0 if result["passed"] else 1


def judge(world, before, log, tasks, recorded):
    foreign, why_foreign = sums.foreign_ended(world)
    world.end_stranger()
    sums.rest(world)
    torn, why_torn = sums.torn_down(world)
    orphans, left = sums.orphans(before)
    after = sums.Books(world)
    orders = sums.orders_since(before.block)
    audits = sums.reports(orders)
    lost, why_lost = sums.lost(world, before, after, audits)
    stranded, why_stranded = sums.stranded(after, audits)
    own = [order for order in orders if order[0] != world.stranger]
    doubled, why_doubled = sums.double_funded(own, audits, tasks)
    unrecorded, why_unrecorded = sums.unrecorded(world, before, recorded)
    unfinished = sums.unfinished(tasks)
    complete = sum((task.get("status") or {}).get("state") == "Complete" for task in tasks)
    met = [row for row in log.rows if row["met"]]
    findings = why_lost + why_stranded + why_doubled + why_unrecorded + why_torn + why_foreign + left + unfinished
    findings += [f"{row['kind']}: {row['error']}" for row in log.rows if row["error"]]
    if tasks and complete / len(tasks) < LEAST_COMPLETE:
        findings.append(f"only {complete} of {len(tasks)} tasks are Complete")
    if not tasks or len(orders) < complete:
        findings.append(f"{len(tasks)} tasks and {len(orders)} orders were found: the sums saw nothing")
    return {
        "faultKinds": len({row["kind"] for row in met}), "injections": len(met),
        "lost": lost, "orphans": orphans, "doubleFunded": doubled, "stranded": stranded, "unrecorded": unrecorded,
        "tornDown": torn, "foreignEnded": foreign,
        "tasks": len(tasks), "complete": complete, "orders": len(orders), "pointsDiedAt": len(set(world.deaths)),
        "failed": dict(reasons(tasks)), "findings": findings, "passed": not findings,
        "kinds": dict(collections.Counter(row["kind"] for row in met)),
    }


def show(result, log, tasks):
    ended = {task["metadata"]["name"]: (task.get("status") or {}).get("state") for task in tasks}
    rows = []
    for kind in sorted({row["kind"] for row in log.rows}):
        mine = [row for row in log.rows if row["kind"] == kind]
        affected = {name for row in mine if row["met"] for name in row["affected"]}
        complete = sum(ended.get(name) == "Complete" for name in affected)
        rows.append((kind, len(mine), sum(row["met"] for row in mine), len(affected), complete, len(affected) - complete))
    table(f"chaos, seed {result['seed']}", ("fault", "injected", "met", "tasks", "complete", "failed"), rows)
    table("sums", ("", "found", "must be"), [
        ("money lost (units)", result["lost"], 0), ("orphans", result["orphans"], 0),
        ("orders funded twice", result["doubleFunded"], 0), ("refunds stranded (units)", result["stranded"], 0),
        ("transactions of no goal", result["unrecorded"], 0), ("live leases torn down", result["tornDown"], 0),
        ("orders of another origin ended", result["foreignEnded"], 0),
        ("faults met", result["injections"], ""), ("kinds of faults", result["faultKinds"], ""),
        ("points an operator died at", result["pointsDiedAt"], ""),
        ("tasks complete", f"{result['complete']} of {result['tasks']}", f"{LEAST_COMPLETE:.0%}"),
    ])
    for reason, count in result["failed"].items():
        say(f"  failed ({count}): {reason}")
    for finding in result["findings"]:
        say(f"  FINDING {finding}")
    say("PASSED" if result["passed"] else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
