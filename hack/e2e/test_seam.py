"""The seam between chain and cluster: no double order, no stranded refund, no workload orphaned."""

import json
import pathlib
import time
import unittest

from lib import (
    PROVIDER_NS, TENANT_NS, apply, audit, condition, delete, get, in_namespace, items, kubectl, lease_of, long_task,
    namespace_for, scale, state, task, until, wait_condition,
)

STORE = pathlib.Path("/var/lib/freehold-dev/tenant-store")  # the demo's values mount it as the operator's /store


def status(name, namespace="demo"):
    return (get("trainingtask", name, namespace) or {}).get("status") or {}


def stepping(name, namespace="demo"):
    seen = status(name, namespace)
    return seen.get("orderId") if (seen.get("progress") or {}).get("step", 0) > 0 else None


class Budgets(unittest.TestCase):
    def test_two_that_fit_singly_one_is_funded(self):
        """Scenario 3: exactly one of two is funded; raising the budget releases the other."""
        namespace_for("budget", "team-a")
        try:
            names = ["twin-a", "twin-b"]
            apply(*[in_namespace(long_task(name, market__budget="2.00"), "budget") for name in names])

            def funded():
                return [n for n in names if (condition(get("trainingtask", n, "budget"), "Funded") or {}).get("status") == "True"]

            until("one is funded", funded, 60)
            refused = next(n for n in names if n not in funded())
            wait_condition("trainingtask", refused, "Funded", "False", "BudgetExceeded", "budget", 30)
            self.assertEqual(len(funded()), 1)
            kubectl("-n", "budget", "patch", "computebudget", "team-a", "--type=merge", "-p", '{"spec":{"limit":"10"}}')
            wait_condition("trainingtask", refused, "Funded", "True", None, "budget", 60)
        finally:
            kubectl("delete", "namespace", "budget", "--wait=false")
            until("the namespace is gone", lambda: get("namespace", "budget") is None, 240)


class Deletion(unittest.TestCase):
    def test_namespace_deleted_while_the_operator_is_down(self):
        """Scenario 4: on its return the operator closes the order, the refund is on the chain, the namespace goes."""
        namespace_for("leaving", "team-a")
        apply(in_namespace(long_task("leaving"), "leaving"))
        order = until("it runs", lambda: stepping("leaving", "leaving"), 150)
        scale(TENANT_NS, "freehold-operator", 0)
        try:
            kubectl("delete", "namespace", "leaving", "--wait=false")
        finally:
            scale(TENANT_NS, "freehold-operator", 1)
        until("the namespace is gone", lambda: get("namespace", "leaving") is None, 240)
        report = json.loads(audit(order).stdout)
        self.assertEqual((report["state"], report["findings"]), ("Closed", []))
        self.assertGreater(int(report["totals"]["refunded"]), 0)
        lease = lease_of(order)
        if lease:
            work = lease["spec"]["namespace"]
            until("the lease's namespace is gone", lambda: get("namespace", work) is None, 180)


class Broadcast(unittest.TestCase):
    def restarts(self):
        pods = items("pods", TENANT_NS, "app.kubernetes.io/component=operator")
        return sum(c["restartCount"] for p in pods for c in p["status"].get("containerStatuses", []))

    def test_killed_around_a_broadcast_places_one_order(self):
        """Killed after the hash is stored and before it is sent, and again right after: one order, contiguous nonces."""
        folder = f"failpoints-{time.time_ns()}"
        armed = STORE / folder
        armed.mkdir(mode=0o777)
        armed.chmod(0o777)  # the operator's user writes there what struck
        (armed / "armed").write_text("outbox.persisted\noutbox.broadcast\n")
        kubectl("-n", TENANT_NS, "set", "env", "deployment/freehold-operator", f"FREEHOLD_FAILPOINTS=/store/{folder}")
        try:
            apply(task("killed"))
            order = until("it is funded", lambda: (condition(get("trainingtask", "killed", "demo"), "Funded") or {}).get("status")
                          == "True" and status("killed").get("orderId"), 180)
            # The kubelet may say it later than the operator says Funded.
            until("the operator was killed at both points", lambda: self.restarts() >= 2, 30)
            placed = [
                item for item in items("chaintransactions", TENANT_NS)
                if "placeOrder" in item["spec"]["goal"] and item["metadata"]["labels"].get("freehold.dev/task-name") == "killed"
            ]
            self.assertEqual(len(placed), 1)
            self.assertIn(placed[0]["status"]["state"], ("Mined", "Confirmed"))
            nonces = sorted(item["status"]["nonce"] for item in items("chaintransactions", TENANT_NS)
                            if (item.get("status") or {}).get("nonce") is not None)
            self.assertEqual(nonces, list(range(nonces[0], nonces[0] + len(nonces))))
            self.assertEqual(status("killed")["orderId"], order)
        finally:
            kubectl("-n", TENANT_NS, "set", "env", "deployment/freehold-operator", "FREEHOLD_FAILPOINTS-")
            kubectl("-n", TENANT_NS, "rollout", "status", "deployment/freehold-operator", "--timeout=90s")
            delete("trainingtask", "killed")


class Output(unittest.TestCase):
    def test_gateway_down_at_the_end_loses_nothing(self):
        """Scenario 6: the trainer ends while the gateway is away; the output arrives when it is back."""
        apply(long_task("patient", steps=30_000))
        try:
            order = until("it runs", lambda: stepping("patient"), 150)
            scale(PROVIDER_NS, "freehold-gateway", 0)
            try:
                work = lease_of(order)["spec"]["namespace"]

                def trainer_ended():
                    statuses = [s for p in items("pods", work) for s in p["status"].get("initContainerStatuses", [])]
                    return [s for s in statuses if s["name"] == "trainer" and "terminated" in s["state"]]

                until("the trainer has ended", trainer_ended, 120)
                self.assertNotIn(state("trainingtask", "patient"), ("ResultSubmitted", "Verified", "Complete"))
            finally:
                scale(PROVIDER_NS, "freehold-gateway", 1)
            until("Complete", lambda: state("trainingtask", "patient") == "Complete", 180)
            self.assertEqual(status("patient")["attempt"], 0)
        finally:
            delete("trainingtask", "patient")


if __name__ == "__main__":
    unittest.main()
