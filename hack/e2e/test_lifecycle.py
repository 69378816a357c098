"""What an administrator does to a cluster with leases on it: drains a node, upgrades the charts, deletes what he should not,
takes a lease back, restores a task from a backup, uninstalls."""

import json
import pathlib
import re
import unittest

from lib import (
    PROVIDER_NS, ROOT, STATE, TARGET, TENANT_NS, apply, audit, condition, delete, get, items, kubectl,
    lease_of, lease_pod, long_task, sh, until, wait_condition,
)

NODE = "freehold-node"
STORE = pathlib.Path("/var/lib/freehold-dev/tenant-store/demo/sha256")
BREAK_GLASS = ("--as=admin", "--as-group=system:masters", "--as-group=freehold:break-glass")
CHART = ROOT / "charts" / "freehold"


def status(name):
    return (get("trainingtask", name, "demo") or {}).get("status") or {}


def saved(name, least=1):
    """The task's status, once a checkpoint of at least so many steps is in the tenant's store."""
    found = status(name)
    return found if (found.get("checkpoint") or {}).get("step", 0) >= least else None


def start(name, steps, least=1):
    apply(long_task(name, steps))
    return until(f"{name} has saved step {least}", lambda: saved(name, least), 240)


def complete(name, seconds=420):
    found = until(f"{name} has ended", lambda: status(name) if status(name).get("state") in ("Complete", "Failed") else None, seconds)
    if found["state"] != "Complete":
        raise AssertionError(f"{name}: {found['message']}")
    return found


def digest(found, artifact):
    return next(item["sha256"] for item in found["artifacts"] if item["name"] == artifact)


def resumed_from(found):
    """What the trainer itself says, in the metrics that it delivered."""
    return json.loads((STORE / digest(found, "metrics.json")).read_text()).get("resumedFrom") or 0


def restarts(pod):
    seen = pod["status"].get("containerStatuses", []) + pod["status"].get("initContainerStatuses", [])
    return {one["name"]: one["restartCount"] for one in seen}


def freehold(*arguments, check=True):
    return sh(TARGET / "debug" / "freehold", *arguments, check=check)


def settled(order):
    return json.loads(audit(order).stdout)


class Drain(unittest.TestCase):
    """Scenario 7."""

    STEPS = 80_000

    def test_a_drained_node_costs_some_steps_and_no_bit(self):
        names = ("drained", "calm")
        try:
            before = start("drained", self.STEPS, self.STEPS // 5)
            pod = lease_pod(before["orderId"])
            try:
                # All of a drain, but for the pods that are the rest of this one-node cluster.
                kubectl("drain", NODE, "--pod-selector=freehold.dev/order", "--delete-emptydir-data", "--force", "--timeout=150s")
                second = until("another pod waits", lambda: self.waits(before["orderId"], pod), 60)
                self.assertNotEqual(second["metadata"]["uid"], pod["metadata"]["uid"])
            finally:
                kubectl("uncordon", NODE)
            drained = complete("drained")
            self.assertEqual((drained["attempt"], drained["orderId"]), (0, before["orderId"]))
            self.assertGreaterEqual(resumed_from(drained), self.STEPS // 5)
            apply(long_task("calm", self.STEPS))
            calm = complete("calm")
            self.assertEqual(resumed_from(calm), 0)
            self.assertEqual(digest(drained, "model.safetensors"), digest(calm, "model.safetensors"))
        finally:
            for name in names:
                delete("trainingtask", name)

    def waits(self, order, before):
        pod = lease_pod(order)
        unplaced = pod and not pod["spec"].get("nodeName")
        return pod if unplaced and pod["metadata"]["uid"] != before["metadata"]["uid"] else None


class Upgrade(unittest.TestCase):
    """Scenario 9."""

    def test_an_upgrade_touches_no_lease(self):
        before = start("upgraded", 150_000)
        order = before["orderId"]
        pod = lease_pod(order)
        audit_log = STATE / "logs" / "audit.log"
        seen = audit_log.stat().st_size
        try:
            sh("helm", "upgrade", "--install", "freehold-crds", ROOT / "charts" / "freehold-crds", "--namespace", "default")
            for namespace in (PROVIDER_NS, TENANT_NS):
                self.roll(namespace, "debug")
            after = lease_pod(order)
            self.assertEqual(after["metadata"]["uid"], pod["metadata"]["uid"])
            self.assertEqual(restarts(after)["trainer"], 0)
            self.assertEqual(complete("upgraded")["attempt"], 0)
        finally:
            for namespace in (PROVIDER_NS, TENANT_NS):
                self.roll(namespace, "info")
            delete("trainingtask", "upgraded")
        with audit_log.open() as log:
            log.seek(seen)
            events = [json.loads(line) for line in log if line.endswith("}\n")]
        ours = [event for event in events if "freehold-" in event["user"]["username"]]
        self.assertGreater(len(ours), 100, "the audit log tells of our service accounts")
        refused = [(event["user"]["username"], event["verb"], event["requestURI"]) for event in ours if event["responseStatus"]["code"] == 422]
        self.assertEqual(refused, [])

    def roll(self, namespace, log):
        """The chart again with something that changes every pod of the release."""
        before = {item["metadata"]["uid"] for item in items("pods", namespace)}
        sh("helm", "-n", namespace, "upgrade", "freehold", CHART, "--reuse-values", "--set", f"log={log}", "--wait", "--timeout", "3m")
        if log == "debug":
            until("all pods are others", lambda: not before & {
                item["metadata"]["uid"] for item in items("pods", namespace) if not item["metadata"].get("deletionTimestamp")
            }, 120)


class Guards(unittest.TestCase):
    """What must not be deleted while a lease lives, and what follows where it is forced."""

    def refused(self, *what):
        done = kubectl("delete", *what, "--dry-run=server", check=False)
        self.assertNotEqual(done.returncode, 0, f"{what} could be deleted")
        return done.stderr

    def test_a_live_lease_keeps_what_it_needs(self):
        before = start("guarded", 250_000)
        order = before["orderId"]
        lease = lease_of(order)
        name, work = lease["metadata"]["name"], lease["spec"]["namespace"]
        try:
            self.assertIn(f"kubectl freehold evict {name} -n {PROVIDER_NS}", self.refused("namespace", work))
            for namespace in (PROVIDER_NS, TENANT_NS):
                self.assertIn("live orders or leases", self.refused("namespace", namespace))
            self.assertIn("live orders or leases", self.refused("crd", "trainingtasks.freehold.dev"))
            self.deleted_lease(name, work)
            self.forced_namespace(order, name, work)
            self.evicted(order, name)
        finally:
            delete("trainingtask", "guarded")

    def deleted_lease(self, name, work):
        """A ComputeLease that is deleted is made again, and its work does not notice."""
        known, space = get("computelease", name, PROVIDER_NS), get("namespace", work)
        kubectl("-n", PROVIDER_NS, "delete", "computelease", name, "--wait=true", "--timeout=60s")
        other = until("the lease is there again", lambda: get("computelease", name, PROVIDER_NS), 60)
        self.assertNotEqual(other["metadata"]["uid"], known["metadata"]["uid"])
        wait_condition("computelease", name, "Running", "True", None, PROVIDER_NS, 90)
        self.assertEqual(get("namespace", work)["metadata"]["uid"], space["metadata"]["uid"])

    def forced_namespace(self, order, name, work):
        """Rebuilt, counted, and gone on from the newest checkpoint."""
        space = get("namespace", work)
        kubectl(*BREAK_GLASS, "delete", "namespace", work, "--wait=false")

        def rebuilt():
            other = get("namespace", work)
            return other and other["metadata"]["uid"] != space["metadata"]["uid"] and lease_pod(order)

        until("the lease's namespace is made again", rebuilt, 240)
        lease = until("the rebuild is counted", lambda: (get("computelease", name, PROVIDER_NS)["status"].get("rebuilds") or 0) >= 1, 60)
        self.assertTrue(lease)
        wait_condition("computelease", name, "Running", "True", None, PROVIDER_NS, 150)
        self.assertEqual(status("guarded")["orderId"], order, "the same lease")

    def evicted(self, order, name):
        """The provider gives it up: a checkpoint, the close, and the tenant's task goes on with another order."""
        said = freehold("evict", name, "-n", PROVIDER_NS).stdout
        self.assertIn("saves a checkpoint", said)
        wait_condition("computelease", name, "Closed", "True", None, PROVIDER_NS, 240)
        report = until("the books are closed", lambda: settled(order) if settled(order)["state"] == "Closed" else None, 60)
        self.assertEqual(report["findings"], [])
        self.assertGreater(int(report["totals"]["refunded"]), 0)
        until("another attempt", lambda: status("guarded").get("attempt", 0) >= 1, 120)


class Restore(unittest.TestCase):
    """A task that comes back from a backup with another UID never gets a second order beside its first."""

    def test_adopted(self):
        before = start("restored", 150_000)
        order = before["orderId"]
        copy = get("trainingtask", "restored", "demo")
        kept = {key: copy["metadata"][key] for key in ("name", "namespace", "annotations", "labels") if key in copy["metadata"]}
        try:
            kubectl("-n", TENANT_NS, "scale", "deployment/freehold-operator", "--replicas=0")
            until("the operator is gone", lambda: not items("pods", TENANT_NS, "app.kubernetes.io/component=operator"), 60)
            kubectl("-n", "demo", "patch", "trainingtask", "restored", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            kubectl("-n", "demo", "delete", "trainingtask", "restored", "--ignore-not-found", "--wait=true", "--timeout=30s")
            apply({"apiVersion": copy["apiVersion"], "kind": copy["kind"], "metadata": kept, "spec": copy["spec"]})
            kubectl("-n", TENANT_NS, "scale", "deployment/freehold-operator", "--replicas=1")
            told = wait_condition("trainingtask", "restored", "Funded", "False", "ForeignOrder", seconds=120)
            self.assertIn(order, told["message"])
            said = re.search(r"kubectl freehold (adopt \S+ --task \S+ -n \S+?)\.", told["message"]).group(1)
            freehold(*said.split())
            until("the task has the order", lambda: status("restored").get("orderId") == order, 90)
            done = complete("restored")
            self.assertEqual((done["orderId"], done["attempt"]), (order, 0))
            self.assertEqual(settled(order)["state"], "Accepted")
        finally:
            kubectl("-n", TENANT_NS, "scale", "deployment/freehold-operator", "--replicas=1")
            delete("trainingtask", "restored", seconds=240)


class Uninstall(unittest.TestCase):
    """Scenario 8. What runs after it installs the releases anew."""

    KINDS = (
        "deployments,daemonsets,replicasets,pods,services,serviceaccounts,roles,rolebindings,networkpolicies,jobs,"
        "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,"
        "computeaccounts.freehold.dev,computeproviders.freehold.dev,gpunodes.freehold.dev"
    )

    def left(self):
        found = []
        for namespace in (PROVIDER_NS, TENANT_NS):
            label = ("-l", f"freehold.dev/release={namespace}.freehold", "-o", "name", "--ignore-not-found")
            found += kubectl("get", self.KINDS, "-A", *label).stdout.split()
        found += kubectl("get", "gpunodes", "-o", "name", "--ignore-not-found").stdout.split()
        return found

    def uninstall(self, namespace, check=True):
        return sh("helm", "-n", namespace, "uninstall", "freehold", "--wait", "--timeout", "4m", check=check)

    def test_refused_while_a_lease_lives_then_nothing_is_left(self):
        before = start("last", 250_000)
        order = before["orderId"]
        pod = lease_pod(order)
        name = lease_of(order)["metadata"]["name"]
        ends = {
            PROVIDER_NS: f"kubectl freehold evict {name} -n {PROVIDER_NS}",
            TENANT_NS: "kubectl -n demo delete trainingtask last",
        }
        for namespace, way_out in ends.items():
            done = self.uninstall(namespace, check=False)
            self.assertNotEqual(done.returncode, 0)
            said = done.stdout + done.stderr
            self.assertIn(order, said)
            self.assertIn(way_out, said)
            back = re.search(rf"helm (-n {namespace} rollback freehold \d+)", said).group(1)
            sh("helm", *back.split(), "--wait", "--timeout", "2m")
            self.assertIn("STATUS: deployed", sh("helm", "-n", namespace, "status", "freehold").stdout)
        self.assertEqual(lease_pod(order)["metadata"]["uid"], pod["metadata"]["uid"])
        delete("trainingtask", "last", seconds=240)
        until("the lease is cleaned up", lambda: (condition(lease_of(order), "CleanedUp") or {}).get("status") == "True", 180)
        for namespace in (PROVIDER_NS, TENANT_NS):
            until(f"{namespace} has nothing live", lambda ns=namespace: get("configmap", "freehold-live", ns)["data"]["live"] == "false", 120)
            self.uninstall(namespace)
        until("nothing of the releases is left", lambda: not self.left(), 90)
        self.assertEqual(len([crd for crd in items("crds") if crd["metadata"]["name"].endswith(".freehold.dev")]), 8)
        for namespace in (PROVIDER_NS, f"{PROVIDER_NS}-agent", TENANT_NS):
            kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
            until(f"{namespace} is gone", lambda ns=namespace: get("namespace", ns) is None, 120)


if __name__ == "__main__":
    unittest.main()
