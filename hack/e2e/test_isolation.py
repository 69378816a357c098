"""GPUs stay with those who pay for them: an image that asks the runtime for every device gets none, a node whose runtime
would give them is not sold, and a device plugin of our own keeps away from one of NVIDIA's."""

import json
import pathlib
import socket
import unittest

from lib import (
    PROVIDER_NS, ROOT, apply, condition, delete, get, image, items, kubectl, lease_of, lease_pod, sh, state, task, until,
    wait_condition,
)

NODE, AGENTS, DAEMONSET, CLASS = "freehold-node", f"{PROVIDER_NS}-agent", "freehold-agent", "visible-devices"


def asking(name, runtime_class=None):
    """A pod without a GPU whose image sets NVIDIA_VISIBLE_DEVICES=all."""
    spec = {"restartPolicy": "Never", "containers": [{
        "name": "asking", "image": image("waiting"), "imagePullPolicy": "IfNotPresent", "command": ["sleep", "600"],
    }]}
    if runtime_class:
        spec["runtimeClassName"] = runtime_class
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def without_gpu(name, **changes):
    """A task of the same image, which only waits."""
    out = task(name, isolation__acceptSharedKernel=True, **changes)
    out["spec"]["trainer"] = {"image": image("waiting")}
    out["spec"]["resources"] = {"cpu": "20m", "memory": "32Mi", "disk": "128Mi"}
    return out


def seen(namespace, pod, container):
    """Files of GPUs in the container, once it runs, and what its variable says."""
    def inside(*command):
        done = kubectl("-n", namespace, "exec", pod, "-c", container, "--", *command, check=False)
        return done.stdout if done.returncode == 0 else None

    listed = until(f"{pod} runs", lambda: inside("ls", "/dev"), 60)
    return [f for f in listed.split() if f.startswith("nvidia")], inside("printenv", "NVIDIA_VISIBLE_DEVICES").strip()


def isolation():
    found = condition(get("gpunode", NODE), "IsolationVerified")
    return found["status"], found["reason"]


def allocatable():
    return get("node", NODE)["status"]["allocatable"]["nvidia.com/gpu"]


def bids():
    return {item["metadata"]["name"] for item in items("chaintransactions", PROVIDER_NS) if "bid" in item["spec"]["goal"]}


def agents_run_under(runtime_class):
    patch = {"spec": {"template": {"spec": {"runtimeClassName": runtime_class}}}}
    kubectl("-n", AGENTS, "patch", "daemonset", DAEMONSET, "--type=merge", "-p", json.dumps(patch))
    kubectl("-n", AGENTS, "rollout", "status", f"daemonset/{DAEMONSET}", "--timeout=90s")


class Isolation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sh(ROOT / "hack" / "images.sh", "waiting")
        apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": CLASS}, "handler": CLASS})
        until("the node is sold", lambda: isolation() == ("True", "Verified"), 60)

    @classmethod
    def tearDownClass(cls):
        kubectl("delete", "runtimeclass", CLASS, "--ignore-not-found")

    def never_bid(self, name):
        before = bids()
        apply(without_gpu(name, market__bidWindow="20s"))
        wait_condition("trainingtask", name, "Leased", status="False", reason="NoBids", seconds=120)
        self.assertEqual(bids() - before, set())

    def test_an_image_that_asks_for_every_gpu_gets_none(self):
        apply(asking("asking"))
        try:
            self.assertEqual(seen("default", "asking", "asking"), ([], "all"))
        finally:
            delete("pod", "asking", "default")

    def test_a_lease_gets_none_even_where_the_runtime_obeys(self):
        apply(without_gpu("asks", isolation__runtimeClassName=CLASS))
        try:
            order = until("the task is leased", lambda: (get("trainingtask", "asks", "demo").get("status") or {}).get("orderId"), 60)
            until("the lease runs", lambda: (condition(lease_of(order), "Running") or {}).get("status") == "True", 120)
            pod = lease_pod(order)
            self.assertEqual(pod["spec"]["runtimeClassName"], CLASS)
            self.assertEqual(seen(pod["metadata"]["namespace"], pod["metadata"]["name"], "trainer"), ([], "void"))
        finally:
            delete("trainingtask", "asks")

    def test_a_node_whose_runtime_obeys_the_image_is_not_sold(self):
        apply(asking("obeyed", CLASS))
        try:
            files, _ = seen("default", "obeyed", "asking")
            self.assertIn("nvidia0", files, "this runtime does not do what the test is about")
            agents_run_under(CLASS)
            until("the probe has seen the devices", lambda: isolation() == ("False", "VariableHonoured"), 60)
            self.assertIn("nvidia0", condition(get("gpunode", NODE), "IsolationVerified")["message"])
            self.never_bid("unsold")
            agents_run_under(None)
            until("the node is sold again", lambda: isolation() == ("True", "Verified"), 60)
            until("the task runs after all", lambda: state("trainingtask", "unsold") == "Running", 180)
        finally:
            agents_run_under(None)
            delete("pod", "obeyed", "default")
            delete("trainingtask", "unsold")

    def test_our_plugin_keeps_away_from_nvidias(self):
        folder = next(v["hostPath"]["path"] for v in get("daemonset", DAEMONSET, AGENTS)["spec"]["template"]["spec"]["volumes"]
                      if v["name"] == "device-plugins")
        theirs = pathlib.Path(folder) / "nvidia-gpu.sock"
        before = allocatable()
        with socket.socket(socket.AF_UNIX) as plugin:
            plugin.bind(str(theirs))
            try:
                wait_condition("gpunode", NODE, "PluginReady", status="False", reason="Conflict", namespace=None, seconds=30)
                self.assertEqual(allocatable(), before)
                self.never_bid("contested")
                self.assertEqual(allocatable(), before)
            finally:
                theirs.unlink()
        wait_condition("gpunode", NODE, "PluginReady", reason="Registered", namespace=None, seconds=60)
        try:
            until("the task runs after all", lambda: state("trainingtask", "contested") == "Running", 180)
            self.assertEqual(allocatable(), before)
        finally:
            delete("trainingtask", "contested")


if __name__ == "__main__":
    unittest.main()
