"""Network truth: from its first instruction on, a lease's container reaches the gateway and nothing else."""

import unittest

from lib import PROVIDER_NS, apply, delete, get, image, items, kubectl, lease_of, sh, task, until

NODE = "10.101.0.1"
PATIENCE = 240


def link_local(pod):
    """The IPv6 neighbour address of a pod of the host's bridge."""
    log = kubectl("-n", "demo", "logs", pod).stdout
    found = [line.split()[1].split("/")[0] for line in log.splitlines() if line.startswith("address fe80:")]
    return found[0] if found else None


def outside():
    """An address of this machine that is not the cluster's."""
    lines = sh("ip", "-4", "-o", "address", "show", "scope", "global").stdout.splitlines()
    return next((line.split()[3].split("/")[0] for line in lines if "fh0" not in line), None)


class Network(unittest.TestCase):
    def test_only_the_gateway(self):
        probe = image("probe")
        apply({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "neighbour", "namespace": "demo"},
            "spec": {"containers": [{"name": "probe", "image": probe, "args": ["serve", "8080"]}]},
        })
        kubectl("-n", "demo", "wait", "--for=condition=Ready", "pod/neighbour", "--timeout=60s")
        neighbour = get("pod", "neighbour", "demo")["status"]["podIP"]
        gateway = get("service", "freehold-gateway-courier", PROVIDER_NS)["spec"]["clusterIP"]
        api = get("service", "kubernetes", "default")["spec"]["clusterIP"]
        shut = [
            f"tcp={NODE}:6443", f"tcp={api}:443", f"tcp={NODE}:8545", f"tcp={NODE}:10250", "tcp=10.102.0.10:53",
            "dns=kubernetes.default.svc.cluster.local", f"tcp={neighbour}:8080",
        ]
        if address := link_local("neighbour"):
            shut.append(f"tcp=[{address}%eth0]:8080")
        if address := outside():
            shut.append(f"tcp={address}:1")
        targets = ["try", f"tcp={gateway}:8081", *shut]

        apply({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "control", "namespace": "demo"},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "probe", "image": probe, "args": targets}]},
        })
        until("the control pod has tried all", lambda: get("pod", "control", "demo")["status"]["phase"] == "Succeeded", 90)
        free = kubectl("-n", "demo", "logs", "control").stdout

        sealed = task("sealed", trainer={"image": probe, "args": targets}, backoffLimit=0)
        apply(sealed)
        try:
            log = self.trainer_log("sealed")
        finally:
            delete("trainingtask", "sealed")
            kubectl("-n", "demo", "delete", "pod", "neighbour", "control", "--wait=false")
        self.assertIn(f"tcp={gateway}:8081 open", log)
        for target in shut:
            with self.subTest(target=target):
                self.assertIn(f"{target} shut", log)
                self.assertIn(f"{target} open", free, "the control pod does not reach it either: nothing is shown")

    def trainer_log(self, name):
        """The trainer's whole log, read while its pod is still there."""
        def look():
            order = ((get("trainingtask", name, "demo") or {}).get("status") or {}).get("orderId")
            lease = lease_of(order) if order else None
            pods = items("pods", lease["spec"]["namespace"]) if lease else []
            for pod in pods:
                done = kubectl(
                    "-n", pod["metadata"]["namespace"], "logs", pod["metadata"]["name"], "-c", "trainer", check=False
                )
                ended = [
                    c for c in pod["status"].get("initContainerStatuses", [])
                    if c["name"] == "trainer" and "terminated" in c["state"]
                ]
                if ended and done.returncode == 0 and done.stdout:
                    return done.stdout
            return None

        return until("the sealed trainer has tried all", look, PATIENCE)


if __name__ == "__main__":
    unittest.main()
