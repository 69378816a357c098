"""The edge that is not real: nodes without a kubelet. KWOK plays their pods; here are the Node objects, and what each
node's agent would publish of its GPUs, with the agent's own identity."""

import threading
import time

from api import Failed

RESOURCE = "nvidia.com/gpu"
MODEL = "NVIDIA H100 80GB HBM3"
MEMORY = 85_520_809_984
RELEASE = "freehold-provider.freehold"
AGENT_NAMESPACE = "freehold-provider-agent"


def node(name, gpus):
    room = {"cpu": "128", "memory": "1Ti", "ephemeral-storage": "8Ti", "pods": "250", RESOURCE: str(gpus)}
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"type": "kwok"}},
        "spec": {"taints": [{"key": "freehold.dev/gpu", "effect": "NoSchedule"}]},
        "status": {"allocatable": room, "capacity": room},
    }


def pod(item):
    """What courier and agents look at of a lease's pod."""
    spec, status = item["spec"], item.get("status") or {}
    states = {c["name"]: next(iter(c.get("state") or {"": 0})) for part in ("initContainerStatuses", "containerStatuses")
              for c in status.get(part) or []}
    wanted = [int(c.get("resources", {}).get("limits", {}).get(RESOURCE, 0)) for c in spec["containers"]]
    return {
        "uid": item["metadata"]["uid"], "order": item["metadata"]["labels"]["freehold.dev/order"],
        "namespace": item["metadata"]["namespace"], "name": item["metadata"]["name"],
        "node": spec.get("nodeName"), "gpus": sum(wanted), "over": status.get("phase") in ("Succeeded", "Failed"),
        "going": "deletionTimestamp" in item["metadata"], "states": states,
    }


class Nodes(threading.Thread):
    """Makes the nodes, and keeps their GpuNodes: a device is held by the pod that the kubelet gave it to."""

    def __init__(self, admin, api_of, nodes, gpus):
        super().__init__(daemon=True, name="agents")
        self.admin, self.gpus = admin, gpus
        self.names = [f"gpu-{number:03}" for number in range(nodes)]
        self.held = {name: [None] * gpus for name in self.names}
        self.agents, self.lock, self.over = {}, threading.Lock(), threading.Event()
        self.changed = set(self.names)
        for name in self.names:
            made = admin.create(node(name, gpus), "nodes")
            token = admin.token(AGENT_NAMESPACE, "freehold-agent", bound=("Node", name, made["metadata"]["uid"]))
            self.agents[name] = api_of(token)
            spec = {"nodeName": name, "release": RELEASE}
            self.agents[name].apply({"apiVersion": "freehold.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": name},
                                     "spec": spec}, "freehold-agent", "gpunodes", None, name)

    def pod_changed(self, key, _, new):
        """The kubelet gives devices when a pod comes to its node, and takes them back when it has ended."""
        with self.lock:
            node = next((name for name, held in self.held.items() if key in held), None)
            if node and (new is None or new["over"]):
                self.held[node] = [None if holder == key else holder for holder in self.held[node]]
                self.changed.add(node)
            elif not node and new and new["node"] and new["gpus"] and not new["over"]:
                free = [at for at, holder in enumerate(self.held[new["node"]]) if holder is None]
                for at in free[:new["gpus"]]:
                    self.held[new["node"]][at] = key
                self.changed.add(new["node"])

    def run(self):
        while not self.over.wait(0.5):
            with self.lock:
                changed, self.changed = self.changed, set()
            for name in sorted(changed):
                try:
                    self.publish(name)
                except (Failed, OSError):
                    self.changed.add(name)

    def publish(self, name):
        with self.lock:
            held = list(self.held[name])
        devices = [self.device(name, at, holder) for at, holder in enumerate(held)]
        status = {"model": MODEL, "total": self.gpus, "free": held.count(None), "mig": "off", "health": "ok",
                  "driverVersion": "580.65.06", "cudaVersion": "13.0", "devices": devices, "conditions": CONDITIONS}
        self.agents[name].apply({"apiVersion": "freehold.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": name},
                                 "status": status}, "freehold-agent", "gpunodes", None, name, "status")

    def device(self, node, at, holder):
        out = {"uuid": f"GPU-{node}-{at}", "index": at, "model": MODEL, "memoryBytes": MEMORY, "memoryUsedBytes": 0,
               "computeCapability": "9.0", "pciBusId": f"00000000:{at + 1:02X}:00.0", "pcie": "gen5 x16", "nvLinks": 18,
               "ecc": True, "uncorrectedEccErrors": 0, "state": "Healthy", "processes": 0, "utilization": 0}
        if holder:
            out["pod"] = {"namespace": holder[0], "name": holder[1], "container": "publish"}
        return out


def claim(kind, status, reason, message):
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": made}


CONDITIONS = [
    claim("Healthy", "True", "AllHealthy", "8 devices are well"),
    claim("PluginReady", "True", "Registered", "the kubelet has the devices"),
    claim("IsolationVerified", "True", "Verified", "a container that was given no GPU saw none"),
    claim("Sellable", "True", "Sellable", "devices that are free can be sold"),
]
