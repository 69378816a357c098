"""GPU truth: what was sold, what the kubelet gave, what the container sees and what ComputeLease says are one device."""

import json
import unittest

from lib import (
    apply, audit, condition, delete, get, gpuctl, items, kubectl, lease_of, lease_pod, long_task, state, task, until,
    wait_condition,
)

NODE = "freehold-node"


def running(name, seconds=150):
    """The task's order, once its trainer writes progress."""
    def look():
        status = (get("trainingtask", name, "demo") or {}).get("status") or {}
        step = (status.get("progress") or {}).get("step", 0)
        return status["orderId"] if step > 0 and status.get("state") == "Running" else None

    return until(f"{name} makes progress", look, seconds)


def trainer(pod):
    return next(c for c in pod["spec"]["initContainers"] if c["name"] == "trainer")


def inside(pod, *command):
    return kubectl(
        "-n", pod["metadata"]["namespace"], "exec", pod["metadata"]["name"], "-c", "trainer", "--", *command
    ).stdout


def devices():
    return get("gpunode", NODE)["status"]["devices"]


class Gpus(unittest.TestCase):
    def other_lease(self, name, first):
        """An order of the task that is not the first, once its devices are known."""
        order = get("trainingtask", name, "demo")["status"].get("orderId")
        lease = lease_of(order) if order and order != first else None
        return order if lease and (lease.get("status") or {}).get("gpus") else None

    def trainer_log(self, order):
        pod = lease_pod(order)
        if pod is None:
            return ""
        where = ("-n", pod["metadata"]["namespace"], "logs", pod["metadata"]["name"], "-c", "trainer")
        return kubectl(*where, check=False).stdout

    def test_one_device_from_sale_to_container(self):
        apply(long_task("gpu-truth"))
        try:
            order = running("gpu-truth")
            pod = lease_pod(order)
            self.assertEqual(trainer(pod)["resources"]["limits"]["nvidia.com/gpu"], "1")
            uuid = inside(pod, "printenv", "NVIDIA_VISIBLE_DEVICES").strip()
            files = [f for f in inside(pod, "ls", "/dev").split() if f.startswith("nvidia") and f[6:].isdigit()]
            self.assertEqual(len(files), 1, files)
            held = [d for d in devices() if (d.get("pod") or {}).get("name") == pod["metadata"]["name"]]
            self.assertEqual([d["uuid"] for d in held], [uuid], "kubelet's pod-resources name another device")
            self.assertEqual(files, [f"nvidia{held[0]['index']}"])
            self.assertEqual(lease_of(order)["status"]["gpus"], [uuid])
            # pod-resources lists main containers alone: publish is given the trainer's device, and shown none of it.
            other = [c for c in pod["spec"]["initContainers"] + pod["spec"]["containers"] if c["name"] not in ("trainer", "publish")]
            self.assertFalse(any("nvidia.com/gpu" in (c.get("resources", {}).get("limits") or {}) for c in other))
        finally:
            delete("trainingtask", "gpu-truth")

    def test_a_third_task_waits_without_a_bid(self):
        for name in ("pair-a", "pair-b"):
            apply(long_task(name))
        try:
            running("pair-a"), running("pair-b")
            apply(task("third", market__bidWindow="20s"))
            wait_condition("trainingtask", "third", "Leased", status="False", reason="NoBids", seconds=90)
            delete("trainingtask", "pair-a")
            until("the third runs once a device is free", lambda: state("trainingtask", "third") in
                  ("Running", "ResultSubmitted", "Verified", "Complete"), 180)
        finally:
            for name in ("pair-a", "pair-b", "third"):
                delete("trainingtask", name)

    def test_a_lost_device_drains_and_the_task_resumes_elsewhere(self):
        apply(long_task("lost-device"))
        try:
            first = running("lost-device")
            checkpoint = until(
                "a checkpoint is in the tenant's store",
                lambda: (get("trainingtask", "lost-device", "demo")["status"].get("checkpoint") or {}).get("step"), 60,
            )
            uuid = lease_of(first)["status"]["gpus"][0]
            index = next(d["index"] for d in devices() if d["uuid"] == uuid)
            gpuctl("lose", str(index))
            until("GpuNode says Lost", lambda: any(d["uuid"] == uuid and d["state"] == "Lost" for d in devices()), 30)
            second = until("another order is leased", lambda: self.other_lease("lost-device", first), 240)
            self.assertNotEqual(lease_of(second)["status"]["gpus"], [uuid])
            # Nothing before the checkpoint is trained again: the second trainer says where it goes on, and the
            # first step that its lease reports is past it.
            self.assertIn("resum", until("the second trainer has begun", lambda: self.trainer_log(second), 60).lower())
            step = until("the second lease makes progress", lambda: (lease_of(second)["status"].get("progress") or {}).get("step"), 60)
            self.assertGreater(step, checkpoint)
            self.assertEqual(json.loads(audit(first).stdout)["findings"], [])
        finally:
            gpuctl("clear")
            delete("trainingtask", "lost-device")
            until("the device is back", lambda: all(d["state"] == "Healthy" for d in devices()), 60)


if __name__ == "__main__":
    unittest.main()
