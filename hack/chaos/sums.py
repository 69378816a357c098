"""What is left when the faults have stopped, summed from the chain and the cluster, never from what an operator says of
itself. Every sum must be zero; each finding is a sentence."""

import json
import time

from world import BURN, NAMESPACE, SIDES, balance, free, lib, rpc, topic

SETTLED = {"Cancelled", "Declined", "NoShow", "Closed", "Accepted", "Rejected"}


def leases():
    """What there is of leases on the cluster, as a sentence each."""
    for item in lib.items("namespaces"):
        if item["metadata"]["name"].startswith("fh-lease-"):
            yield item["metadata"]["name"], f"namespace {item['metadata']['name']} is left"
    for item in lib.items("computeleases", SIDES["provider"][0]):
        phase = (item.get("status") or {}).get("phase")
        if phase not in ("CleanedUp", "Closed", None):
            yield item["metadata"]["name"], f"ComputeLease {item['metadata']['name']} has not ended"


class Books:
    """The accounts' tokens at one moment."""

    def __init__(self, world):
        self.block = int(rpc("eth_blockNumber"), 16)
        self.wallets = {side: balance(address) for side, address in world.addresses.items()}
        self.free = {side: free(address) for side, address in world.addresses.items()}
        self.market = balance(lib.deployment("market"))
        self.burned = free(BURN)
        self.leases = set(leases())
        self.held = self.market - self.burned - sum(self.free.values())  # in orders and bonds


def rest(world, seconds=90):
    """Waits until the tenant's refunds are withdrawn; what is not by then is told by the sum."""
    end = time.monotonic() + seconds
    while free(world.addresses["tenant"]) and time.monotonic() < end:
        time.sleep(1)


def orders_since(block):
    """Id, block and salt of the orders placed after this block."""
    logs = rpc("eth_getLogs", {"address": lib.deployment("market"), "fromBlock": hex(block + 1), "topics": [topic("Ordered")]})
    return [(log["topics"][1], int(log["blockNumber"], 16), log["data"][:66]) for log in logs]


def reports(orders):
    return {order: json.loads(lib.audit(order, check=False).stdout or "{}") for order, _, _ in orders}


def lost(world, before, after, audits):
    """Tokens that an account does not have although the settled orders give them to it, and what the audit finds."""
    findings = []
    owed = {side: 0 for side in SIDES}
    for order, report in audits.items():
        if not report:
            findings.append(f"order {order} cannot be audited")
            continue
        findings += [f"order {order}: {finding}" for finding in report["findings"]]
        totals = {name: int(value) for name, value in report["totals"].items()}
        owed["tenant"] += totals["refunded"] - totals["funded"]
        owed["provider"] += totals["paid"] - totals["bondLost"]
    missing = 0
    for side in SIDES:
        have = after.wallets[side] + after.free[side]
        due = before.wallets[side] + before.free[side] + owed[side]
        if have != due:
            findings.append(f"the {side} has {have} units, its settled orders make it {due}")
            missing += abs(due - have)
    whole = sum(after.wallets.values()) + after.market - (sum(before.wallets.values()) + before.market)
    if whole:
        findings.append(f"{whole} units came from nowhere or went nowhere")
        missing += abs(whole)
    return missing, findings


def stranded(after, audits):
    """Money that waits in the Market although nothing holds it there any more."""
    findings = [f"order {order} is still {report.get('state')}" for order, report in audits.items()
                if report.get("state") not in SETTLED]
    units = after.held
    if units:
        findings.append(f"the Market holds {units} units in orders and bonds")
    units += after.free["tenant"]
    if after.free["tenant"]:
        findings.append(f"{after.free['tenant']} units of the tenant's refunds are not withdrawn")
    return units, findings


def double_funded(orders, audits, tasks):
    """Orders of one task that were alive at the same time."""
    salts = {}
    for task in tasks:
        for attempt in range(12):
            encoded = lib.sh("cast", "abi-encode", "f(string,uint256)", task["metadata"]["uid"], str(attempt)).stdout.strip()
            salts[lib.sh("cast", "keccak", encoded).stdout.strip()] = task["metadata"]["name"]
    lives, findings = {}, []
    for order, placed, salt in orders:
        steps = audits[order].get("transitions", [])
        ended = [step["block"] for step in steps if step["event"] in SETTLED]
        name = salts.get(salt)
        if name is None:
            findings.append(f"order {order} belongs to no task")
            continue
        lives.setdefault(name, []).append((placed, ended[-1] if ended else float("inf"), order))
    for name, spans in lives.items():
        spans.sort()
        for (_, end, one), (begin, _, two) in zip(spans, spans[1:]):
            if begin < end:
                findings.append(f"task {name} had orders {one} and {two} at once")
    return len(findings), findings


def orphans(before, seconds=240):
    """Namespaces, ComputeLeases and work that outlive their lease; waits for what is being cleaned up. A lease that was
    there before the faults may still wait for its tenant's answer."""
    end = time.monotonic() + seconds
    known = {name for name, _ in before.leases}
    while True:
        left = [sentence for name, sentence in leases() if name not in known]
        left += [f"{kind} {item['metadata']['name']} never ended" for kind in ("jobs", "pods")
                 for item in lib.items(kind, NAMESPACE)]
        if not left or time.monotonic() > end:
            return len(left), left
        time.sleep(2)


def unrecorded(world, before, recorded):
    """Transactions of the accounts that no goal knows: a nonce was used before it was written down."""
    ours = {address.lower(): side for side, address in world.addresses.items()}
    findings, last, looks = [], int(rpc("eth_blockNumber"), 16), recorded.looks
    lib.until("all goals were looked at after that block", lambda: recorded.looks > looks + 1, 60)
    for number in range(before.block + 1, last + 1):
        for tx in rpc("eth_getBlockByNumber", hex(number), True)["transactions"]:
            side = ours.get(tx["from"].lower())
            if side and tx["hash"] not in recorded and tx["hash"] not in world.foreign:
                findings.append(f"the {side}'s transaction {tx['hash']} (nonce {int(tx['nonce'], 16)}) belongs to no goal")
    return len(findings), findings


def torn_down(world):
    """Lease namespaces that an operator deleted while the chain said that the lease lives."""
    findings = [f"namespace {name} was deleted while order {order} was {state}" for name, order, state in world.torn]
    return len(findings), findings


def foreign_ended(world):
    """The account's order of another origin, which no operator here may touch."""
    state = world.state_of(world.stranger)
    if state == "Open":
        return 0, []
    return 1, [f"order {world.stranger} of another origin is {state}; no operator here may end it"]


def unfinished(tasks):
    return [f"task {task['metadata']['name']} is {(task.get('status') or {}).get('state')}" for task in tasks
            if (task.get("status") or {}).get("state") not in ("Complete", "Failed")]

