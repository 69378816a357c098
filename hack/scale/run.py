#!/usr/bin/env python3
"""Tasks by the hundred through their whole lives on a control plane of their own, and what that costs. Prints a table,
writes out/scale.json, and ends with 1 if a limit is broken.

usage: run.py --state FOLDER --etcd URL --rpc URL --program FREEHOLD [--tasks N] [--nodes N] [--idle SECONDS]"""

import argparse
import collections
import json
import os
import pathlib
import re
import statistics
import sys
import threading
import time

import figures
from api import Api, Cache, condition
from courier import Courier
from edge import Nodes, pod
from world import ADDRESSES, NAMESPACE, PORTS, COURIER, RESEARCHER, ROOT, SIDES, World, sh, task, until

OUT = ROOT / "out" / "scale.json"
GPUS = 8  # a node
MEMORY = 512  # MiB: the limit that the charts set on operator and gateway
FINISHED = 200
WRITES = 1.0
ETCD = 100
STALL = 300  # seconds without a task that gets anywhere


def say(text):
    print(text, flush=True)


def number(name, default, least=1):
    text = os.environ.get(name, str(default))
    if not text.isdigit() or int(text) < least:
        sys.exit(f'error: {name} is "{text}"; set a whole number of at least {least}')
    return int(text)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("state", "etcd", "rpc", "program"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tasks", type=int, default=number("SCALE_TASKS", 1000))
    parser.add_argument("--nodes", type=int, default=number("SCALE_NODES", 6))
    parser.add_argument("--idle", type=int, default=number("SCALE_IDLE", 60, 30))
    return parser.parse_args()


class Tasks:
    """When each task first reached each milestone, as its conditions say it."""

    def __init__(self):
        self.at, self.states, self.why, self.moved = {}, {}, {}, time.monotonic()

    @staticmethod
    def keep(item):
        held = {c["type"]: c["lastTransitionTime"] for c in (item.get("status") or {}).get("conditions", []) if c["status"] == "True"}
        failed = condition(item, "Failed")
        return {"created": item["metadata"]["creationTimestamp"], "held": held, "state": (item.get("status") or {}).get("state"),
                "why": f"{failed.get('reason')}: {failed.get('message', '')[:120]}" if failed.get("status") == "True" else None}

    def told(self, key, _, new):
        if new is None:
            return
        at = self.at.setdefault(key, {"created": new["created"]})
        ended = new["held"].keys() & {"Complete", "Failed"}
        for name, stamp in new["held"].items():
            # Settled is true of each attempt; the task's is that of its last.
            if name not in at and (ended or name != "Settled"):
                at[name], self.moved = stamp, time.monotonic()
        self.states[key] = new["state"]
        if new["why"]:
            self.why[key] = new["why"]

    def reached(self, name):
        return sum(name in at for at in list(self.at.values()))

    def over(self):
        """Nothing of these is to come: settled, or failed with nothing on the chain."""
        return sum("Settled" in at or (key in self.why and "Funded" not in at) for key, at in list(self.at.items()))


def goal(item):
    return {"account": item["spec"]["account"], "final": (item.get("status") or {}).get("state") in figures.FINAL,
            "kind": next(iter(item["spec"]["goal"]), "?")}


def lease(item):
    status = item.get("status") or {}
    return {"order": item["spec"]["orderId"], "started": status.get("phase") in ("Running", "Finished", "Delivered"),
            "cleaned": condition(item, "CleanedUp").get("status") == "True"}


class Run:
    def __init__(self, options):
        self.options, self.state = options, pathlib.Path(options.state)
        kubeconfig = os.environ["KUBECONFIG"]
        self.admin = Api(kubeconfig)
        self.researcher = Api(kubeconfig, user=RESEARCHER)
        # As many tasks at a time as there are devices.
        self.world = World(self.admin, options, options.nodes * GPUS)
        self.tasks = Tasks()

    def caches(self):
        api = self.admin
        self.courier = Courier(api, COURIER)
        self.nodes = Nodes(api, lambda token: Api(os.environ["KUBECONFIG"], token=token), self.options.nodes, GPUS)

        def pod_told(key, old, new):
            self.nodes.pod_changed(key, old, new)
            self.courier.pod_changed(key, old, new)

        self.goals = Cache(api, "chaintransactions", goal)
        self.leases = Cache(api, "computeleases", lease, self.courier.lease_changed)
        caches = [self.goals, self.leases, Cache(api, "trainingtasks", Tasks.keep, self.tasks.told),
                  Cache(api, "pods", pod, pod_told, selector="freehold.dev/order")]
        self.spaces = Cache(api, "namespaces", lambda item: item["metadata"]["name"].startswith("fh-lease-"))
        for cache in [*caches, self.spaces]:
            cache.start()
            if not cache.ready.wait(60):
                raise RuntimeError(f"not within 60 s: the {cache.name}")
        self.nodes.start()

    def finished(self):
        """Finished ChainTransactions of each account."""
        counts = collections.Counter(entry["account"] for entry in self.goals.values() if entry["final"])
        return {account: counts[account] for _, account in SIDES.values()}

    def look(self):
        return {"settled": self.tasks.reached("Settled"), "complete": self.tasks.reached("Complete"),
                "funded": self.tasks.reached("Funded"), "finished": self.finished(),
                "openGoals": sum(not entry["final"] for entry in self.goals.values()),
                "namespaces": sum(self.spaces.values())}

    def pids(self):
        out = {name: process.pid for name, process in self.world.processes.items()}
        for file in (self.state / "run").glob("*.pid"):
            out[file.stem] = int(file.read_text())
        return out | {"couriers": os.getpid()}

    def submit(self):
        for at in range(self.options.tasks):
            self.researcher.create(task(at), "trainingtasks", NAMESPACE)

    def work(self):
        """Until every task is over, or nothing has moved for a while; what went wrong, in sentences."""
        said = 0
        while self.tasks.over() < self.options.tasks:
            if fallen := self.world.fallen():
                raise RuntimeError(f"{', '.join(fallen)} ended by itself: see {self.state}/logs/{fallen[0]}.log")
            if time.monotonic() - self.tasks.moved > STALL:
                return [f"nothing has moved for {STALL} s with {self.options.tasks - self.tasks.over()} tasks to go"]
            if time.monotonic() - said > 30:
                said = time.monotonic()
                now = self.look()
                say(f"  {time.strftime('%H:%M:%S')} {now['funded']} funded, {now['complete']} complete, {now['settled']} settled; "
                    f"goals: {now['openGoals']} open, finished {now['finished']}; {now['namespaces']} lease namespaces")
            time.sleep(0.5)
        return []

    def rest(self):
        """Until nothing is under way any more."""
        def quiet():
            now = self.look()
            return not now["openGoals"] and not now["namespaces"] and all(lease["cleaned"] for lease in self.leases.values())
        until("no open goal is left, and every lease is cleaned up", quiet, 300)


def books(options, world):
    """What the chain alone says of the tenant's orders: how each ended, and whether its sums are right."""
    shown = sh(options.program, "audit", "tenant", ADDRESSES["tenant"], "--rpc", options.rpc,
               "--market", world.contracts["market"], "-o", "json", check=False)
    reports = json.loads(shown or "[]")
    return collections.Counter(report["state"] for report in reports), [f for report in reports for f in report["findings"]]


def requests(admin):
    """Answers of the API server so far, by verb and kind."""
    out = collections.Counter()
    for line in admin.text("/metrics").splitlines():
        if line.startswith("apiserver_request_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            out[f"{labels['verb']} {'/'.join(filter(None, (labels['resource'], labels['subresource'])))}"] += float(line.rpartition(" ")[2])
    return out


def rate(rows):
    """Settled tasks a minute between the first tenth and the last: without what the start and the end cost."""
    total = rows[-1]["settled"]
    inner = [row for row in rows if total * 0.1 <= row["settled"] <= total * 0.9]
    if len(inner) < 2 or inner[-1]["settled"] == inner[0]["settled"]:
        return None
    return (inner[-1]["settled"] - inner[0]["settled"]) / (inner[-1]["at"] - inner[0]["at"]) * 60


def shares(rows):
    """Processors that each process kept busy, and all together, from the first row to the last."""
    first, last = rows[0], rows[-1]
    span = last["at"] - first["at"]
    out = {name: (last["processor"][name] - first["processor"][name]) / span for name in first["processor"] if name in last["processor"]}
    busy, whole = (last["machine"][at] - first["machine"][at] for at in (0, 1))
    return {name: round(share, 2) for name, share in sorted(out.items(), key=lambda item: -item[1])}, busy / whole


def limits_of(result):
    """What holds the throughput back, in words, from what was measured."""
    out = []
    busy, names = result["machineBusy"], list(result["processors"].items())[:3]
    parts = ", ".join(f"{name} {share:g}" for name, share in names)
    if busy > 0.85:
        out.append(f"the processors: {os.cpu_count()} were {busy:.0%} busy; most of it: {parts}")
    for side, block in result["blocks"].items():
        if block["fullBlocks"] > 0.3:
            out.append(f"the {side}'s nonces: {block['fullBlocks']:.0%} of blocks held all {figures.SLOTS} that may wait")
    for name, (count, seconds) in result["passes"].items():
        if count and seconds / result["seconds"] > 0.7:
            out.append(f"passes of {name}: {count:.0f} of {seconds / count * 1000:.0f} ms, {seconds / result['seconds']:.1f} at a time")
    longest = max(((span or 0, name) for name, span in result["stages"].items()), default=(0, ""))
    out.append(f"the longest stage of a task is {longest[1]}: {longest[0]} s at the median")
    if len(out) == 1:
        out.insert(0, f"waiting, not work: processors {busy:.0%} busy ({parts}), no account's nonces full")
    return out


def judge(run, rows, began, ended, idle, troubles, asked):
    options, world = run.options, run.world
    peak = {name: max(row["highest"].get(name, 0) for row in rows) for name in ("tenant", "provider", "gateway")}
    working = [row for row in rows if began <= row["at"] <= ended] or rows
    processors, busy = shares(working)
    states, findings = books(options, world)
    audit = run.state / "logs" / "audit.log"
    quiet, active = figures.writes(audit, *idle), figures.writes(audit, began, ended)
    finished = {name: max(row["finished"][name] for row in rows) for name in rows[-1]["finished"]}
    passes = {}
    for side in SIDES:
        page = figures.text(f"http://127.0.0.1:{PORTS[side] + 1}/metrics")
        passes |= {f"{side} {name}": figure for name, figure in figures.passes(page).items()}
    settled = run.tasks.reached("Settled")
    seconds = ended - began
    writes = sum(quiet.values()) / (idle[1] - idle[0])
    etcd = max((row["etcd"] or 0 for row in rows), default=0)
    good = states.get("Accepted", 0)
    checks = [
        ("tasks settled", f"{settled}", f"{options.tasks}", settled == options.tasks),
        ("of these accepted on the chain, books right", f"{good}", f"{options.tasks}", good == options.tasks and not findings),
        *((f"memory of {name}, highest (MiB)", f"{peak[name]:.0f}", f"≤ {MEMORY}", 0 < peak[name] <= MEMORY) for name in peak),
        *((f"finished ChainTransactions of {name}, most", f"{count}", f"≤ {FINISHED}", count <= FINISHED) for name, count in finished.items()),
        ("writes to the API server when idle (1/s)", f"{writes:.2f}", f"< {WRITES:g}", writes < WRITES),
        ("etcd in use, highest (MB)", f"{etcd:.1f}", f"< {ETCD}", 0 < etcd < ETCD),
    ]
    first, last = working[0]["rss"], working[-1]["rss"]
    result = {
        "tasks": options.tasks, "nodes": options.nodes, "seconds": round(seconds), "settled": settled,
        "perMinute": round(settled / seconds * 60, 1), "steadyPerMinute": round(rate(working) or settled / seconds * 60, 1),
        "checks": [{"what": what, "found": found, "limit": limit, "holds": holds} for what, found, limit, holds in checks],
        "chain": dict(states), "auditFindings": findings[:10],
        "memory": {name: {"first": round(first.get(name, 0)), "last": round(last.get(name, 0)), "highest": round(peak[name])} for name in peak},
        "processors": processors, "machineBusy": round(busy, 3), "load1m": os.getloadavg()[0], "cpus": os.cpu_count(),
        "stages": figures.stages(list(run.tasks.at.values())), "passes": passes,
        "blocks": figures.blocks(options.rpc, ADDRESSES, run.blocks[0], run.blocks[1]),
        "requestsPerTask": {what: round(count / max(settled, 1), 1) for what, count in asked.most_common(40)},
        "writesPerTask": {what: round(count / max(settled, 1), 2) for what, count in active.most_common(20)},
        "idleWrites": dict(quiet.most_common()), "idleSeconds": round(idle[1] - idle[0]),
        "failedTasks": dict(collections.Counter(run.tasks.why.values())),
        "troubles": troubles, "courierRetries": len(run.courier.troubles), "courierTroubles": run.courier.troubles[:5],
        "openGoalsMedian": statistics.median(row["openGoals"] for row in working),
        "rows": [{"at": round(row["at"] - began), **{name: row[name] for name in ("settled", "finished", "openGoals", "etcd")},
                  "rss": {name: round(row["rss"].get(name, 0)) for name in peak}} for row in rows],
    }
    result["limitedBy"] = limits_of(result)
    result["passed"] = all(check["holds"] for check in result["checks"]) and not troubles
    return result


def columns(title, header, rows):
    cells = [list(map(str, row)) for row in [header, *rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    say(f"\n{title}")
    for row in cells if any(cells[0]) else cells[1:]:
        say("  " + "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip())


def show(result):
    columns(f"scale: {result['tasks']} tasks on {result['nodes']} nodes of {GPUS} devices", ("", "found", "limit", ""),
            [(check["what"], check["found"], check["limit"], "" if check["holds"] else "BROKEN") for check in result["checks"]])
    columns("throughput", ("", ""), [
        ("settled tasks a minute, from first to last", result["perMinute"]),
        ("settled tasks a minute, without the first and last tenth", result["steadyPerMinute"]),
        ("seconds in all", result["seconds"]),
        ("goals open at a time, median", result["openGoalsMedian"]),
        *((f"{side}: transactions, a block, most in one", f"{b['transactions']}, {b['perBlock']}, {b['mostInABlock']}") for side, b in result["blocks"].items()),
        ("writes of ours a task", round(sum(result["writesPerTask"].values()), 1)),
        ("requests to the API server a task, all clients", round(sum(result["requestsPerTask"].values()), 1)),
        *((f"  {what}", count) for what, count in list(result["requestsPerTask"].items())[:6]),
        *((f"median seconds {name}", span) for name, span in result["stages"].items()),
    ])
    for line in result["limitedBy"]:
        say(f"  limited by {line}")
    for reason, count in result["failedTasks"].items():
        say(f"  failed ({count}): {reason}")
    for trouble in [*result["troubles"], *result["auditFindings"]]:
        say(f"  FINDING {trouble}")
    say("PASSED" if result["passed"] else "FAILED")


def main():
    options = parse()
    run = Run(options)
    world = run.world
    try:
        say("  the releases as the charts render them, nodes")
        world.install()
        run.caches()
        world.start()
        world.ready()
        sampler = figures.Sampler(run.pids(), options.etcd, run.look)
        sampler.start()
        before = requests(run.admin)
        first = int(figures.rpc(options.rpc, "eth_blockNumber"), 16)
        sampler.take()
        began = time.time()
        say(f"  {options.tasks} tasks")
        threading.Thread(target=run.submit, daemon=True).start()
        troubles = run.work()
        ended = time.time()
        sampler.take()
        run.blocks = first, int(figures.rpc(options.rpc, "eth_blockNumber"), 16)
        asked = requests(run.admin) - before
        try:
            run.rest()
        except RuntimeError as failed:
            troubles.append(str(failed))
        say(f"  {options.idle} s in which nothing is to do")
        idle = time.time(), time.time() + options.idle
        time.sleep(options.idle)
        sampler.over.set()
        sampler.take()
        result = judge(run, sampler.rows, began, ended, idle, troubles, asked)
    finally:
        world.stop()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    say(f"details: {OUT.relative_to(ROOT)}, logs: {run.state}/logs")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
