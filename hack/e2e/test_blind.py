"""Operators that cannot see the chain do no harm: an hour of the chain passes while every endpoint hangs, with twenty
leases under way. Nothing is deleted, nobody bids, nothing is restarted; when the endpoints answer all goes on."""

import json
import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))
from world import NAMESPACE, SIDES, World, balance, lib, rpc, topic  # noqa: E402

LEASES = 20
PASS = 15  # seconds between two looks that nothing asks for: the outbox's and the leases' resync


def waiting(number):
    out = lib.task(f"wait-{number:02}", isolation__acceptSharedKernel=True, activeDeadline="4h")
    out["metadata"]["namespace"] = NAMESPACE
    spec = out["spec"]
    spec["trainer"] = {"image": lib.image("waiting")}
    spec["resources"] = {"cpu": "20m", "memory": "32Mi", "disk": "128Mi"}
    spec["market"] |= {"budget": "0.50", "maxRatePerHour": "0.12"}
    return out


def running():
    return [item for item in lib.items("computeleases", SIDES["provider"][0])
            if (lib.condition(item, "Running") or {}).get("status") == "True"]


def identities():
    """Lease namespaces and pods by UID: another one in its place is a new identity."""
    names = [item for item in lib.items("namespaces") if item["metadata"]["name"].startswith("fh-lease-")]
    pods = [item for item in lib.items("pods") if item["metadata"]["namespace"].startswith("fh-lease-")]
    going = [item["metadata"]["name"] for item in names + pods if item["metadata"].get("deletionTimestamp")]
    return {item["metadata"]["uid"] for item in names + pods}, going


def restarts():
    return {
        (pod["metadata"]["uid"], status["restartCount"])
        for namespace, _ in SIDES.values() for pod in lib.items("pods", namespace)
        for status in pod["status"].get("containerStatuses", [])
    }


def sight():
    """What ChainHealthy says, by account. (The tenant is not Ready: this test uses its key beside the operator.)"""
    conditions = {account: lib.condition(lib.get("computeaccount", account), "ChainHealthy") for _, account in SIDES.values()}
    return {account: (found["status"], found["reason"]) for account, found in conditions.items()}


def bids(world):
    topics = [topic("BidPlaced"), world.stranger]
    return rpc("eth_getLogs", {"address": lib.deployment("market"), "fromBlock": "0x0", "topics": topics})


class Blind(unittest.TestCase):
    def test_an_hour_without_endpoints_costs_no_lease(self):
        lib.sh(lib.ROOT / "hack" / "images.sh", "waiting")
        with World(lib.image("freehold")) as world:
            world.prepare("50")
            wallet = balance(world.addresses["tenant"])
            lib.apply(*[waiting(number) for number in range(LEASES)])
            lib.until(f"{LEASES} leases run", lambda: len(running()) == LEASES, 420)
            self.blind(world)
            lib.kubectl("-n", NAMESPACE, "delete", "trainingtasks", "--all", "--wait=true", "--timeout=300s")
            lib.until("no lease is left", lambda: not identities()[0], 300)
            lib.until("refunds are in the wallet", lambda: balance(world.addresses["tenant"]) > wallet - LEASES * 300_000, 120)
        lib.kubectl("delete", "namespace", NAMESPACE, "--wait=false")

    def blind(self, world):
        before, restarted = identities()[0], restarts()
        for at in range(3):
            world.fault(at, "stalled")
        lib.until("both accounts are blind", lambda: all(status == "False" for status, _ in sight().values()), 60)
        self.assertEqual({reason for _, reason in sight().values()}, {"Unreachable"})
        world.place_like(running()[0]["spec"]["orderId"])
        rpc("evm_increaseTime", 3600)
        head = int(rpc("eth_blockNumber"), 16)

        def quiet():
            """So many blocks of the hour, and nothing has moved meanwhile."""
            now, going = identities()
            self.assertEqual(now, before)
            self.assertEqual(going, [])
            return int(rpc("eth_blockNumber"), 16) >= head + 20

        lib.until("the chain goes on", quiet, 90)
        self.assertEqual(bids(world), [], "nobody bids on what nobody can see")
        for at in range(3):
            world.fault(at, "none")
        answered = time.monotonic()
        lib.until("both accounts see again", lambda: all(status == "True" for status, _ in sight().values()), 3 * PASS)
        lib.until("the provider bids again", lambda: bids(world), 3 * PASS)
        self.assertEqual(len(running()), LEASES)
        took = time.monotonic() - answered
        print(f"{LEASES} leases, blind for an hour of the chain; all reconciled {took:.0f} s after the endpoints answered", flush=True)
        self.assertLessEqual(took, 3 * PASS)
        self.assertEqual(identities(), (before, []))
        self.assertEqual(restarts(), restarted)
        world.end_stranger()


if __name__ == "__main__":
    unittest.main()
