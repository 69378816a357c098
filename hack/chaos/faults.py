"""The faults, by kind. Each is a generator: it does its harm, yields while the harm lasts, and mends what it has to
mend when it goes on. What it yields says whether the harm was met: an injection counts only if it was.

    def kind(world, rng):
        ... harm ...
        yield seconds        # how long it lasts
        ... mend ...
        return met           # whether an answer to us, or a process of ours, was really hit
"""

import signal
import time

from world import DEEPEST, NAMESPACE, SIDES, end, head, lib, patient, pid_of, processes, release_process, restart, rpc


# ------------------------------------------------------------------------------------------------- one endpoint


def endpoint(fault, seconds=(3, 7), index=None):
    """One of the three endpoints misbehaves, most often the one that is preferred."""

    def inject(world, rng):
        at = rng.choice([0, 0, 1, 2]) if index is None else index
        before = world.counts(at)["changed"]
        told = fault(rng) if callable(fault) else fault
        world.fault(at, told)
        try:
            yield rng.uniform(*seconds)
        finally:
            world.fault(at, "none")
        return world.counts(at)["changed"] > before

    return inject


def endpoints(fault, seconds):
    """All of them at once: the operators are blind, or their transactions are lost."""

    def inject(world, rng):
        before = [world.counts(at)["changed"] for at in range(3)]
        told = fault(rng) if callable(fault) else fault
        for at in range(3):
            world.fault(at, told)
        try:
            yield rng.uniform(*seconds)
        finally:
            for at in range(3):
                world.fault(at, "none")
        return any(world.counts(at)["changed"] > old for at, old in enumerate(before))

    return inject


# ------------------------------------------------------------------------------------------------- the chain


def reorganise(low, high):
    def inject(world, rng):
        world.reorganised = time.monotonic()
        rpc("anvil_reorg", rng.randint(low, high), [])
        yield 0
        return True

    return inject


def drop_transactions(world, rng):
    """The node forgets what waits for a block."""
    dropped = []
    ours = {address.lower() for address in world.addresses.values()}
    for _ in range(20):
        pending = rpc("txpool_content")["pending"]
        hashes = [tx["hash"] for sender, txs in pending.items() if sender.lower() in ours for tx in txs.values()]
        for each in hashes:
            dropped.append(rpc("anvil_dropTransaction", each))
        if dropped:
            break
        yield 0.2
    return bool(dropped)


def foreign_transaction(world, rng):
    """Somebody uses the account's key beside the operator."""
    address = world.addresses[rng.choice(list(SIDES))]
    sent = rpc("eth_sendTransaction", {"from": address, "to": address, "value": "0x0"})
    world.foreign.add(sent)
    yield 0
    return True


def base_fee(world, rng):
    latest = int(rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
    rpc("anvil_setNextBlockBaseFeePerGas", hex(max(latest, 10**9) * rng.choice([5, 20])))
    yield 4
    return True


def no_blocks(world, rng):
    """The chain stands still for longer than the operators are patient."""
    rpc("evm_setIntervalMining", 0)
    try:
        yield rng.uniform(12, 18)
    finally:
        rpc("evm_setIntervalMining", 2)
    return True


def clock_skew(world, rng):
    """The chain's clock is minutes ahead of the machine's."""
    rpc("evm_increaseTime", rng.randint(60, 150))
    yield 0
    return True


# ------------------------------------------------------------------------------------------------- operators


def alone(inject):
    """One fault of the operators at a time: each has to see its own harm mended."""

    def inject_alone(world, rng):
        with world.operators:
            return (yield from inject(world, rng))

    return inject_alone


def killed_at_a_point(side):
    """The operator dies where it awaits an answer: at a point that it has passed before and never died at."""

    def inject(world, rng):
        left = sorted(p for p in world.points(side, "seen") - world.points(side, "struck") if ".watch." not in p)
        if not left:
            return False
        # The outbox's own points always: there a death could cost money. Of the others a few, or the most frequent
        # would always be the one.
        own = [point for point in left if point.startswith("outbox.")]
        before = world.points(side, "struck")
        world.arm(side, own + rng.sample(left, min(8, len(left))))
        for _ in range(60):
            yield 0.25
            if world.points(side, "struck") - before:
                break
        world.arm(side, [])
        struck = world.points(side, "struck") - before
        if struck:
            world.deaths.extend(sorted(f"{side}: {name}" for name in struck))
            world.replace(side)
        return bool(struck)

    return inject


def killed(side, component):
    def inject(world, rng):
        pid = release_process(side, component)
        hit = pid is not None and end(pid)
        yield 1
        if hit:
            world.replace(side, component)
        return hit

    return inject


def frozen(find, seconds):
    """The process that `find` finds stands still, and goes on as if nothing had been."""

    def inject(world, rng):
        pid = find()
        hit = pid is not None and end(pid, signal.SIGSTOP)
        try:
            yield rng.uniform(*seconds)
        finally:
            if hit:
                end(pid, signal.SIGCONT)
        return hit

    return inject


def two_leaders(side):
    """An operator that was frozen wakes when another one, with the same rights, has taken its place."""

    def inject(world, rng):
        pid = release_process(side, "operator")
        if pid is None:
            return False
        twin = world.twin(side, pid)
        end(pid, signal.SIGSTOP)
        try:
            yield rng.uniform(6, 10)
        finally:
            end(pid, signal.SIGCONT)
        yield rng.uniform(6, 10)
        acted = twin.poll() is None
        twin.kill()
        twin.wait()
        return acted

    return inject


def down_for_an_hour(side):
    """The operator is away while an hour passes on the chain."""

    def inject(world, rng):
        def scale(replicas):
            done = lambda: lib.scale(SIDES[side][0], "freehold-operator", replicas) or True
            lib.until(f"scaled to {replicas}", lambda: patient(done), 300)

        scale(0)
        try:
            rpc("evm_increaseTime", 3600)
            yield 6
        finally:
            scale(1)
        return True

    return inject


# ------------------------------------------------------------------------------------------------- the cluster


def process(name):
    def inject(world, rng):
        hit = restart(name)
        yield 2
        lib.until("the API server answers", lambda: lib.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, 60)
        return hit

    return inject


def conflict_storm(world, rng):
    """Somebody writes to every object that the operators write to, again and again."""
    hit = 0
    for turn in range(8):
        for kind, namespace in (("trainingtasks", NAMESPACE), ("computeleases", SIDES["provider"][0])):
            for item in patient(lambda: lib.items(kind, namespace)) or []:
                done = lib.kubectl("-n", namespace, "annotate", "--overwrite", kind, item["metadata"]["name"],
                                   f"chaos.example/turn={turn}", check=False)
                hit += done.returncode == 0
        yield 0.3
    return hit > 0


# ------------------------------------------------------------------------------------------------- work and devices


def work_killed(*words):
    def inject(world, rng):
        pids = [pid for pid in processes(*words)]
        hit = bool(pids) and end(rng.choice(pids))
        yield 1
        return hit

    return inject


def lease_namespaces():
    return [item["metadata"]["name"] for item in lib.items("namespaces") if item["metadata"]["name"].startswith("fh-lease-")]


def pod_deleted(world, rng):
    names = lease_namespaces()
    rng.shuffle(names)
    for name in names:
        pods = lib.items("pods", name)
        if pods:
            lib.kubectl("-n", name, "delete", "pod", pods[0]["metadata"]["name"], "--wait=false", check=False)
            yield 2
            return True
    return False


def namespace_deleted(world, rng):
    """A lease's namespace is forced away under a live lease."""
    names = lease_namespaces()
    if not names:
        return False
    name = rng.choice(names)
    world.forced.add(name)
    forced = ("--as=chaos", "--as-group=system:masters", "--as-group=freehold:break-glass")
    done = lib.kubectl(*forced, "delete", "namespace", name, "--wait=false", check=False)
    yield 2
    return done.returncode == 0


def restore(device):
    """As somebody on duty would: reset the device, then say so."""
    lib.gpuctl("restore", device)
    lib.until("the node's health is reset", lambda: lib.kubectl(
        "annotate", "gpunodes", "--all", "--overwrite", "freehold.dev/reset-health=all", check=False).returncode == 0, 120)


def device(*words):
    """A device is ill; met once its node says so."""

    def inject(world, rng):
        which, met = rng.choice("01"), False
        lib.gpuctl(words[0], which, *words[1:])
        try:
            yield rng.uniform(8, 14)
            nodes = patient(lambda: lib.items("gpunodes")) or []
            met = any((lib.condition(node, "Healthy") or {}).get("status") == "False" for node in nodes)
        finally:
            restore(which)
        return met

    return inject


# Kind, weight, the fault. Names are what the table shows. The lanes run side by side: what stands before the chain and
# the chain itself; what runs on the cluster; operators that die where they wait. What has no weight strikes once.
CHAIN = [
    ("endpoint dead", 5, endpoint("dead")),
    ("endpoint stalled", 4, endpoint("stalled")),
    ("endpoint flapping", 5, endpoint("flapping")),
    ("endpoint slow", 4, endpoint({"slow": {"millis": 1500}})),
    ("endpoint limited (429)", 4, endpoint({"limited": {"seconds": 3}})),
    ("endpoint garbled", 4, endpoint("garbage")),
    ("endpoint lagging", 5, endpoint({"lagging": {"blocks": 12}})),
    ("endpoint's head frozen", 4, endpoint(lambda rng: {"frozen": {"at": head()}}, (12, 16))),
    ("endpoint lies: head", 5, endpoint("wrongHead")),
    ("endpoint lies: hashes", 5, endpoint("otherHashes")),
    ("endpoint lies: receipts", 5, endpoint("wrongReceipt", (8, 12))),
    ("endpoint of another chain", 4, endpoint({"otherChain": {"id": 5}})),
    ("endpoint loses transactions", 4, endpoint("losesTransactions", (10, 14), index=0)),
    ("all endpoints dead", 3, endpoints("dead", (8, 16))),
    ("all endpoints stalled", 3, endpoints("stalled", (8, 16))),
    ("all endpoints lose transactions", 4, endpoints("losesTransactions", (6, 10))),
    ("fee spike", 3, endpoints({"feeSpike": {"times": 30}}, (6, 10))),
    ("base fee rises", 3, base_fee),
    ("reorganisation, shallow", 6, reorganise(1, 2)),
    ("reorganisation, beyond the confirmed depth", 4, reorganise(4, DEEPEST)),
    ("mempool drops", 6, drop_transactions),
    ("foreign transaction", 3, foreign_transaction),
    ("chain stands still", 2, no_blocks),
    ("clock skew", 2, clock_skew),
]
CLUSTER = [
    ("tenant's operator frozen", 2, alone(frozen(lambda: release_process("tenant", "operator"), (6, 12)))),
    ("provider's operator frozen", 2, alone(frozen(lambda: release_process("provider", "operator"), (6, 12)))),
    ("two tenant operators", 2, alone(two_leaders("tenant"))),
    ("two provider operators", 2, alone(two_leaders("provider"))),
    ("tenant's operator away for an hour", 0, alone(down_for_an_hour("tenant"))),
    ("provider's operator away for an hour", 0, alone(down_for_an_hour("provider"))),
    ("gateway killed", 4, killed("provider", "gateway")),
    ("gateway frozen", 3, frozen(lambda: release_process("provider", "gateway"), (5, 10))),
    ("node agent killed", 2, killed("provider", "agent")),
    ("API server restarted", 2, process("kube-apiserver")),
    ("etcd restarted", 2, process("etcd")),
    ("kubelet restarted", 2, process("kubelet")),
    ("containerd restarted", 2, process("containerd")),
    ("API server hangs", 2, frozen(lambda: pid_of("kube-apiserver"), (4, 8))),
    ("conflict storm", 3, conflict_storm),
    ("trainer killed", 4, work_killed("freehold-trainer")),
    ("courier killed", 3, work_killed("courier", "watch")),
    ("pod deleted", 4, pod_deleted),
    ("lease's namespace deleted", 2, namespace_deleted),
    ("Xid 79", 2, device("xid", "79")),
    ("device lost", 2, device("lose")),
]
DEATHS = [
    ("tenant's operator killed at an await", 1, alone(killed_at_a_point("tenant"))),
    ("provider's operator killed at an await", 1, alone(killed_at_a_point("provider"))),
]
