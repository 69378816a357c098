"""Memory of the tenant's operator while tasks wait for a bid that nobody can make."""

import json
import os
import statistics
import sys
import time

import common
from common import NAMESPACE, Workplace, lib, record, run_part, say, setting, table, task

PIECE = 100
SAMPLES = 5
# At most 16 transactions of an account wait for a block.
OUTLOOK = "16 a block at most, some ten a second"


def waiting_task(number):
    """An order that stays open: no provider has such a GPU, and bids are open for two hours."""
    out = task(
        f"wait-{number:04}",
        resources__gpu__models=["No such GPU"],
        market__budget="0.01",
        market__maxRatePerHour="0.01",
        market__bidWindow="2h",
        activeDeadline="4h",
    )
    return out


def create(first, last):
    for start in range(first, last, PIECE):
        part = [waiting_task(number) for number in range(start, min(start + PIECE, last))]
        lib.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": part}))


def states():
    """How many tasks are in each state."""
    shown = lib.kubectl("-n", NAMESPACE, "get", "trainingtasks", "-o", 'jsonpath={range .items[*]}{.status.state}{"\\n"}{end}').stdout
    found = [line or "New" for line in shown.split("\n")[:-1]]
    return {state: found.count(state) for state in sorted(set(found))}


def wait_on_chain(tasks, wanted, seconds):
    """Until the operator has seen all tasks and the wanted orders stand on the chain, or the time is over."""
    began = said = time.monotonic()
    while True:
        now, found = time.monotonic(), states()
        placed = found.get("Funded", 0)
        seen = sum(count for state, count in found.items() if state != "New")
        if (placed >= wanted and seen == tasks) or now - began > seconds:
            return placed, found, now - began
        if now - said > 30:
            said = now
            say(f"  {placed} of {wanted} orders are on the chain after {now - began:.0f} s")
        time.sleep(min(5, 1 + wanted / 100))


class Operator:
    """The tenant operator's process, read from /proc of its container."""

    def read(self, path):
        return lib.kubectl("-n", lib.TENANT_NS, "exec", "deployment/freehold-operator", "-c", "operator", "--", "cat", path).stdout

    def memory(self):
        """KiB now, at its highest, and without mapped files."""
        fields = dict(line.split(":", 1) for line in self.read("/proc/1/status").splitlines())
        return {name: int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM", "RssAnon")}

    def processor(self):
        """Seconds used so far."""
        fields = self.read("/proc/1/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def restarts(self):
        pods = lib.items("pods", lib.TENANT_NS, "app.kubernetes.io/component=operator")
        return [(pod["metadata"]["name"], status["restartCount"]) for pod in pods for status in pod["status"]["containerStatuses"]]

    def sample(self):
        began, used, samples = time.monotonic(), self.processor(), []
        for _ in range(SAMPLES):
            samples.append(self.memory())
            time.sleep(2)
        share = (self.processor() - used) / (time.monotonic() - began)
        return {name: round(statistics.median(s[name] for s in samples)) for name in samples[0]} | {"processor": round(share, 3)}


def level(operator, before, tasks, orders, seconds):
    create(before, tasks)
    wanted = min(tasks, orders)
    placed, found, took = wait_on_chain(tasks, wanted, seconds)
    if tasks:
        say(f"  {tasks} tasks: {placed} of {wanted} orders are on the chain after {took:.0f} s; states: {found}")
    return {"tasks": tasks, "onChain": placed, "states": found, "secondsToPlace": round(took), **operator.sample()}


def main():
    levels = sorted(int(text) for text in os.environ.get("BENCH_WAITING", "0 100 1000").split())
    orders, seconds, operator = setting("BENCH_ORDERS", levels[-1] or 1), setting("BENCH_FUND_SECONDS", 900), Operator()
    say(f"memory: {', '.join(map(str, levels))} tasks that wait for a bid; orders are placed {OUTLOOK} …")
    at_start = operator.restarts()
    with Workplace(limit="100", most_orders=orders, cleanup_seconds=seconds + 300):
        before, found = 0, []
        for tasks in levels:
            found.append(level(operator, before, tasks, orders, seconds))
            before = tasks
        at_end = operator.restarts()
        report(found, at_start != at_end, orders, seconds)
        say("  cleaning up: each order is cancelled and refunded …")
    if at_start != at_end:
        sys.exit(f"error: the operator was restarted meanwhile (before {at_start}, after {at_end}): the figures are of two processes")


def report(found, restarted, orders, seconds):
    base = found[0]
    rows = []
    for each in found:
        more, tasks = each["VmRSS"] - base["VmRSS"], each["tasks"] - base["tasks"]
        a_task = f"{more / tasks:.1f}" if tasks else ""
        ratio = f"{each['VmRSS'] / base['VmRSS']:.2f}"
        mib = [f"{each[name] / 1024:.1f}" for name in ("VmRSS", "RssAnon", "VmHWM")]
        rows.append((each["tasks"], each["onChain"], *mib, ratio, a_task, f"{each['processor'] * 100:.0f} %"))
    header = ("tasks", "on chain", "RSS MiB", "anonymous", "highest", f"to {base['tasks']}", "KiB a task", "of a CPU")
    notes = [
        f"on chain: orders in escrow that wait for a bid, at most {orders}; the other tasks wait for the budget or for their turn",
        f"each level had {seconds} s to place its orders; RSS is the median of {SAMPLES} samples, highest since the operator's start",
    ]
    table("The tenant operator's process (VmRSS of /proc/1/status; profile: dev)", header, rows, notes)
    record("memory", {"levels": found, "mostOrders": orders, "restarted": restarted})


run_part(main)
