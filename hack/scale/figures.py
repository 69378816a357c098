"""What is measured while the tasks go through: processes, API server, etcd, chain."""

import collections
import json
import os
import pathlib
import re
import statistics
import threading
import time
import urllib.request
from datetime import datetime

TICKS = os.sysconf("SC_CLK_TCK")
FINAL = ("Confirmed", "Failed", "Obsolete")
STAGES = ["Funded", "Leased", "Running", "ResultSubmitted", "Complete", "Settled"]
SLOTS = 16  # transactions of an account that may wait for a block


def text(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def metric(page, name):
    found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", page, re.M)
    return float(found[1]) if found else None


def rpc(url, method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["result"]


def memory(pid):
    """MiB now, and at its highest."""
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return [int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")]


def processor(pid):
    """Seconds used so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine():
    """Seconds that the processors were busy, and all."""
    fields = [int(field) / TICKS for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


class Sampler(threading.Thread):
    """A row every five seconds."""

    def __init__(self, pids, etcd, look):
        super().__init__(daemon=True, name="sampler")
        self.pids, self.etcd, self.look, self.over = pids, etcd, look, threading.Event()
        self.rows, self.lock = [], threading.Lock()

    def run(self):
        while not self.over.wait(5):
            self.take()

    def take(self):
        row = {"at": time.time(), "machine": machine(), "processor": {}, "rss": {}, "highest": {}, **self.look()}
        for name, pid in self.pids.items():
            try:
                row["processor"][name] = processor(pid)
                row["rss"][name], row["highest"][name] = memory(pid)
            except (OSError, KeyError):
                pass  # told as fallen by whoever waits for it
        try:
            row["etcd"] = metric(text(f"{self.etcd}/metrics"), "etcd_mvcc_db_total_size_in_use_in_bytes") / 1e6
        except (OSError, TypeError):
            row["etcd"] = None
        with self.lock:
            self.rows.append(row)
        return row


def writes(log, since, until):
    """Writes by our service accounts in a span of time, by who, verb and what."""
    out = collections.Counter()
    for file in sorted(log.parent.glob("audit*.log")):
        with file.open() as lines:
            for line in lines:
                event = json.loads(line)
                at = datetime.fromisoformat(event["stageTimestamp"].replace("Z", "+00:00")).timestamp()
                if event["stage"] == "ResponseComplete" and since <= at < until:
                    what = event["objectRef"].get("resource", "") + ("/" + event["objectRef"]["subresource"] if "subresource" in event["objectRef"] else "")
                    if what in ("tokenreviews", "subjectaccessreviews"):
                        continue  # questions; nothing is stored
                    who = event["user"]["username"].removeprefix("system:serviceaccount:")
                    out[f"{who} {event['verb']} {what}"] += 1
    return out


def blocks(url, addresses, first, last):
    """For each account: transactions, the most in a block, and the share of blocks that held as many as may wait."""
    counts = {side: [] for side in addresses}
    for number in range(first, last + 1):
        block = rpc(url, "eth_getBlockByNumber", hex(number), True)
        senders = collections.Counter(entry["from"].lower() for entry in block["transactions"])
        for side, address in addresses.items():
            counts[side].append(senders[address])
    return {side: {"transactions": sum(each), "mostInABlock": max(each, default=0), "perBlock": round(statistics.mean(each or [0]), 2),
                   "fullBlocks": round(sum(n >= SLOTS for n in each) / max(len(each), 1), 3)} for side, each in counts.items()}


def passes(page):
    """Count and seconds of each controller's passes so far."""
    out = {}
    for name in set(re.findall(r'pass_seconds_count\{controller="([^"]+)"', page)):
        of = rf'freehold_operator_pass_seconds_%s\{{controller="{name}"\}} (\S+)'
        out[name] = (float(re.search(of % "count", page)[1]), float(re.search(of % "sum", page)[1]))
    return out


def stages(tasks):
    """Median seconds from one milestone to the next; of each task the time at which it reached it."""
    def second(stamp):
        return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()

    out, before = {}, "created"
    for name in STAGES:
        spans = [second(at[name]) - second(at[before]) for at in tasks if name in at and before in at]
        out[f"{before} → {name}"] = round(statistics.median(spans), 1) if spans else None
        before = name
    return out
