"""What a lease's pod would do, for each pod that KWOK says runs: the courier's protocol against the real gateway, with
a token of the pod's own service account. Only the trainer is made up: a model of one number."""

import concurrent.futures
import hashlib
import http.client
import json
import struct
import threading
import urllib.parse

STEP = "scale.freehold.dev/step"
THREADS = 8


def model():
    """A safetensors file with one tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", 0.5)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Refused(Exception):
    pass


class Gateway:
    """One lease at the gateway's courier listener."""

    def __init__(self, url, order, token):
        self.host, self.base = urllib.parse.urlsplit(url).netloc, f"/v1/work/{order}"
        self.headers = {"Authorization": f"Bearer {token}"}

    def send(self, method, where, body=None):
        line = http.client.HTTPConnection(self.host, timeout=30)
        try:
            line.request(method, self.base + where, body, self.headers)
            answer = line.getresponse()
            data = answer.read()
        finally:
            line.close()
        if answer.status >= 300:
            raise Refused(f"{method} {where}: {answer.status} {data[:300].decode(errors='replace')}")
        return answer, data

    def report(self):
        return json.loads(self.send("GET", "")[1])


class Courier:
    def __init__(self, admin, gateway):
        self.admin, self.gateway = admin, gateway
        self.pool = concurrent.futures.ThreadPoolExecutor(THREADS)
        self.pods, self.started, self.tokens, self.lock = {}, set(), {}, threading.Lock()
        self.done, self.troubles = {}, []

    # ---- what wakes it: a pod changed, a lease changed; the real one asks the gateway once a second instead

    def pod_changed(self, key, _, new):
        if new is None or new["going"]:
            self.pods.pop(key, None)
            return
        self.pods[key] = new
        self.look(key)

    def lease_changed(self, _, old, new):
        if new and new["started"] and not (old and old["started"]):
            self.started.add(new["order"])
            for key, pod in list(self.pods.items()):
                if new["order"].removeprefix("0x").startswith(pod["order"]):
                    self.look(key)

    def look(self, key):
        pod = self.pods[key]
        order = next((order for order in list(self.started) if order.removeprefix("0x").startswith(pod["order"])), None)
        if not order:
            return
        if pod["states"].get("fetch") == "running":
            self.once(key, pod, order, "fetched", self.fetch)
        elif pod["states"].get("publish") == "running":
            self.once(key, pod, order, "published", self.publish)

    def once(self, key, pod, order, step, act):
        with self.lock:
            if self.done.get(pod["uid"]) == step:
                return
            self.done[pod["uid"]] = step
        self.pool.submit(self.do, key, pod, order, step, act)

    def do(self, key, pod, order, step, act):
        try:
            act(pod, Gateway(self.gateway, order, self.token(pod)))
            self.admin.merge({"metadata": {"annotations": {STEP: step}}}, "pods", *key)
        except Exception as failed:  # noqa: BLE001 - told at the end; the next change of the pod tries again
            self.troubles.append(f"{key[0]} {step}: {failed}")
            with self.lock:
                self.done.pop(pod["uid"], None)
            threading.Timer(2, lambda: key in self.pods and self.look(key)).start()

    def token(self, pod):
        with self.lock:
            known = self.tokens.get(pod["uid"])
        if not known:
            known = self.admin.token(pod["namespace"], "courier", "freehold-gateway", ("Pod", pod["name"], pod["uid"]), 3600)
            self.tokens[pod["uid"]] = known
        return known

    # ---- what the containers do

    def fetch(self, pod, gateway):
        """init `fetch`: the task and its inputs, each checked by its digest."""
        report = gateway.report()
        if not report["started"] or report["missingInputs"]:
            raise Refused(f"not to begin yet: {report}")
        answer, manifest = gateway.send("GET", "/manifest")
        if sha256(manifest) != answer.headers["etag"].strip('"'):
            raise Refused("the manifest is not what its digest says")
        for part in json.loads(manifest)["inputs"]:
            if sha256(gateway.send("GET", f"/artifacts/{part['sha256']}")[1]) != part["sha256"]:
                raise Refused(f"input {part['name']} is not what its digest says")
        gateway.send("POST", "/progress", json.dumps({"step": 1, "steps": 2, "loss": 0.7}))

    def publish(self, pod, gateway):
        """`publish`: the outputs, then the result that names them."""
        gateway.send("POST", "/progress", json.dumps({"step": 2, "steps": 2, "loss": 0.5}))
        files = {"metrics.json": b'{"metrics":{"loss":0.5}}', "model.safetensors": model()}
        outputs = []
        for name, data in sorted(files.items()):
            gateway.send("PUT", f"/artifacts/{sha256(data)}", data)
            outputs.append({"name": name, "sha256": sha256(data), "size": len(data)})
        result = {"metrics": {"loss": "0.5"}, "outputs": outputs}
        gateway.send("POST", "/result", json.dumps(result, separators=(",", ":"), sort_keys=True))
        if not gateway.report().get("result"):
            raise Refused("the gateway gives no receipt for the result")
        self.tokens.pop(pod["uid"], None)
