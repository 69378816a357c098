"""What the faults act on: two releases on the real cluster, three endpoints that can misbehave before the one chain,
a folder of failpoints for each operator, and the processes of the node. `World` sets it up and puts it back."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "hack" / "e2e"))
import lib  # noqa: E402

NAMESPACE = "chaos"
SIDES = {"tenant": (lib.TENANT_NS, "team-a"), "provider": (lib.PROVIDER_NS, "provider-a")}
HOST = "10.101.0.1"
ENDPOINTS = [f"{HOST}:{port}" for port in (18545, 18546, 18547)]
POINTS = pathlib.Path("/var/lib/freehold-dev/chaos")
DEEPEST = 6  # blocks that a reorganisation takes back at most
STORE = "/var/lib/freehold-dev/gateway-store"
TERMS = "(address,uint128,uint128,uint128,uint128,uint40,uint40,uint40,uint40,uint16,uint8,bytes32,bytes32,bytes32)"
STATES = ["None", "Open", "Awaiting", "Running", "Delivered", "Cancelled", "Declined", "NoShow", "Closed", "Accepted",
          "Rejected"]
DISPLACED = {"status": "displaced"}
BURN = "0x000000000000000000000000000000000000dEaD"


def http(url, body=None, method=None, timeout=10):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read() or b"{}")


def rpc(method, *params, timeout=30):
    """Straight to the node: what the faults do to the endpoints does not reach it."""
    answer = http(lib.RPC, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, timeout=timeout)
    if "error" in answer:
        raise lib.Failed(f"{method}: {answer['error']}")
    return answer["result"]


def head():
    return int(rpc("eth_blockNumber"), 16)


def call(contract, signature, *arguments):
    done = lib.sh("cast", "call", "--rpc-url", lib.RPC, lib.deployment(contract), signature, *arguments)
    return done.stdout.split()[0]


def outcome(transaction):
    """Its receipt; DISPLACED where the node no longer knows it, for another transaction has its nonce."""
    receipt = rpc("eth_getTransactionReceipt", transaction)
    return receipt or (DISPLACED if rpc("eth_getTransactionByHash", transaction) is None else None)


def balance(account):
    return int(call("token", "balanceOf(address)(uint256)", account))


def free(account):
    return int(call("market", "free(address,address)(uint128)", lib.deployment("token"), account))


def held():
    """Units in orders and bonds: neither burned nor free."""
    accounts = [lib.get("computeaccount", account)["status"]["address"] for _, account in SIDES.values()]
    return balance(lib.deployment("market")) - sum(map(free, [BURN, *accounts]))


def topic(event):
    """What marks an event's logs, from the Market's ABI."""
    def kind(item):
        inner = ",".join(map(kind, item.get("components", [])))
        return item["type"].replace("tuple", f"({inner})")

    abi = json.loads((ROOT / "contracts" / "abi" / "Market.json").read_text())
    found = next(item for item in abi if item["type"] == "event" and item["name"] == event)
    return lib.sh("cast", "keccak", f"{event}({','.join(map(kind, found['inputs']))})").stdout.strip()


def settings(namespace, chain_urls, store, image, orphans):
    """Points a release at these endpoints, and its gateway at a store that outlives its pod, as a provider's must."""
    values = {"account.chain.rpcUrls": chain_urls, "provider.gateway.store.hostPath": store, "image": image,
              "account.chain.windows.orphans": orphans}
    chosen = [part for name, value in values.items() for part in ("--set-json", f"{name}={json.dumps(value)}")]
    lib.sh("helm", "upgrade", "freehold", ROOT / "charts" / "freehold", "--namespace", namespace, "--reset-then-reuse-values",
           *chosen, "--wait", "--timeout", "3m")


def reads_first(account):
    """Not Ready: an account whose key somebody used beside the operator works, and goes on saying so."""
    healthy = lib.condition(lib.get("computeaccount", account), "ChainHealthy")
    return healthy and healthy["status"] == "True" and ENDPOINTS[0] in healthy["message"]


class World:
    def __init__(self, image):
        self.image = image  # what the releases run while the faults strike
        self.proxy = None
        self.addresses = {}
        self.foreign = set()  # transactions that the faults sent with the accounts' keys
        self.operators = threading.Lock()
        self.deaths = []  # points at which an operator died
        self.forced = set()  # lease namespaces that a fault deleted
        self.torn = []  # lease namespaces that an operator deleted under a live lease
        self.reorganised = 0.0  # when the chain last changed its mind
        self.stranger = None  # an order of the tenant's account that another cluster is said to have placed

    # ------------------------------------------------------------------------------------------ set up, put back

    def __enter__(self):
        self.start_endpoints()
        POINTS.mkdir(exist_ok=True)
        for side, (namespace, account) in SIDES.items():
            folder = POINTS / side
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)  # the operator's user writes there what it passed
            for name in ("armed", "struck", "seen"):
                (folder / name).unlink(missing_ok=True)
            # Orders without a task are ended soon: what is ended by mistake shows within the run.
            settings(namespace, [f"http://{address}" for address in ENDPOINTS], STORE, self.image, "30s")
            self.mount_points(namespace, side)
            self.addresses[side] = lib.get("computeaccount", account)["status"]["address"]
        for _, account in SIDES.values():
            lib.until(f"{account} reads the first endpoint", lambda account=account: reads_first(account), 90)
        return self

    def __exit__(self, *_):
        for namespace, _ in SIDES.values():
            self.unmount_points(namespace)
            settings(namespace, [lib.RPC], "", lib.image("freehold"), "10m")
        self.proxy.terminate()
        self.proxy.wait()

    def start_endpoints(self):
        lib.sh("cargo", "build", "--locked", "--quiet", "--manifest-path", ROOT / "Cargo.toml", "--bin", "chain-proxy")
        log = open(lib.CACHE / "logs" / "chain-proxy.log", "w")
        self.proxy = subprocess.Popen([lib.TARGET / "debug" / "chain-proxy", lib.RPC, *ENDPOINTS], stdout=log, stderr=log)
        lib.until("the endpoints answer", lambda: all(self.counts(i) for i in range(len(ENDPOINTS))), 20)

    def mount_points(self, namespace, side):
        """The operator finds its failpoints in a folder of the node."""
        patch = {"spec": {"template": {"spec": {
            "containers": [{
                "name": "operator",
                "env": [{"name": "FREEHOLD_FAILPOINTS", "value": "/chaos"}],
                "volumeMounts": [{"name": "chaos", "mountPath": "/chaos"}],
            }],
            "volumes": [{"name": "chaos", "hostPath": {"path": str(POINTS / side), "type": "Directory"}}],
        }}}}
        lib.kubectl("-n", namespace, "patch", "deployment", "freehold-operator", "--type=strategic", "-p", json.dumps(patch))
        lib.kubectl("-n", namespace, "rollout", "status", "deployment/freehold-operator", "--timeout=120s")

    def unmount_points(self, namespace):
        gone = {"$patch": "delete"}
        patch = {"spec": {"template": {"spec": {
            "containers": [{
                "name": "operator",
                "env": [{"name": "FREEHOLD_FAILPOINTS", **gone}],
                "volumeMounts": [{"mountPath": "/chaos", **gone}],
            }],
            "volumes": [{"name": "chaos", **gone}],
        }}}}
        lib.kubectl("-n", namespace, "patch", "deployment", "freehold-operator", "--type=strategic", "-p", json.dumps(patch),
                    check=False)  # the release may not have come so far

    def prepare(self, limit):
        """An empty namespace whose tasks may spend so much, and nothing left of an earlier run."""
        lib.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", "--timeout=300s")
        lib.namespace_for(NAMESPACE, "team-a")
        lib.kubectl("-n", NAMESPACE, "patch", "computebudget", "team-a", "--type=merge", "-p",
                    json.dumps({"spec": {"limit": limit}}))
        self.settle_old()

    def settle_old(self):
        """Orders of before, such as a result that waits for its tenant, come to their end: what they move while the
        faults strike would look like the faults' doing."""
        if held():
            rpc("evm_increaseTime", 3600)
            lib.until("the Market holds nothing in orders of before (make down forgets them)", lambda: held() == 0, 180)

    # ------------------------------------------------------------------------------------------ endpoints

    def fault(self, index, fault):
        http(f"http://{ENDPOINTS[index]}/fault", fault, "PUT")

    def counts(self, index):
        try:
            return http(f"http://{ENDPOINTS[index]}/counts", timeout=5)
        except OSError:
            return None

    # ------------------------------------------------------------------------------------------ operators

    def points(self, side, name):
        file = POINTS / side / name
        return set(file.read_text().split()) if file.exists() else set()

    def arm(self, side, names):
        (POINTS / side / "armed").write_text("\n".join(names) + "\n")

    def operator(self, side, component="operator"):
        """The pod of a release's process that is not on its way out."""
        pods = pods_of(side, component)
        return next((pod for pod in pods if not pod["metadata"].get("deletionTimestamp")), None)

    def replace(self, side, component="operator", seconds=120):
        """A fresh pod at once: a container that ends again and again would wait longer each time. The API server may
        be away, for faults of two lanes meet."""
        def deleted():
            pod = self.operator(side, component)
            return pod is None or lib.kubectl(
                "-n", pod["metadata"]["namespace"], "delete", "pod", pod["metadata"]["name"],
                "--wait=false", "--force", "--grace-period=0", check=False).returncode == 0

        def ready():
            return (lib.condition(self.operator(side, component), "Ready") or {}).get("status") == "True"

        lib.until(f"the {side}'s {component} is deleted", lambda: patient(deleted), seconds)
        lib.until(f"the {side}'s {component} is back", lambda: patient(ready), seconds)

    # ------------------------------------------------------------------------------------------ what the sums watch

    def place_stranger(self):
        """An order with the tenant's key and another origin, as after a backup was restored elsewhere."""
        self.place(b'{"of":"another cluster"}', "0x" + "ee" * 32)
        placed = head()
        lib.until("no reorganisation reaches it", lambda: head() > placed + DEEPEST, 60)

    def place_like(self, order):
        """The same order again with the tenant's key, for whoever bids on such orders."""
        report = json.loads(lib.audit(order).stdout)
        self.place(json.dumps(report["spec"], separators=(",", ":"), sort_keys=True).encode(), report["terms"]["origin"],
                   report["terms"]["maxPrice"])

    def place(self, spec, origin, price="1000"):
        now = int(rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
        spec_hash = lib.sh("cast", "keccak", "0x" + spec.hex()).stdout.strip()
        bond = int(price) // 10
        terms = (f"({lib.deployment('token')},{price},0,{bond},{bond // 10},{now + 30 * 86_400},300,14400,600,2000,0,"
                 f"{spec_hash},0x{'00' * 32},{origin})")
        sent = self.send(f"order(bytes32,{TERMS},bytes)", "0x" + os.urandom(32).hex(), terms, "0x" + spec.hex())
        self.stranger = next(log["topics"][1] for log in sent["logs"] if log["topics"][0] == topic("Ordered"))
        self.terms = terms

    def end_stranger(self):
        if self.state_of(self.stranger) == "Open":
            self.send(f"cancel(bytes32,{TERMS})", self.stranger, self.terms)

    def send(self, signature, *arguments):
        """A call of the Market with the tenant's key. The operator uses the key as well and may have its transaction
        mined at the nonce that this one got: then it is sent again."""
        data = lib.sh("cast", "calldata", signature, *arguments).stdout.strip()
        # More gas than any call needs: what the operator moves in between makes a call dearer than it was estimated.
        call = {"from": self.addresses["tenant"], "to": lib.deployment("market"), "data": data, "gas": hex(500_000)}
        for _ in range(5):
            sent = rpc("eth_sendTransaction", call)
            self.foreign.add(sent)
            receipt = lib.until(f"{signature.split('(')[0]} is mined or displaced", lambda: outcome(sent), 60)
            if receipt is DISPLACED:
                continue
            if receipt["status"] != "0x1":
                raise lib.Failed(f"{signature} reverted in {sent}")
            return receipt
        raise lib.Failed(f"{signature}: displaced five times by transactions of the operator")

    def state_of(self, order):
        data = lib.sh("cast", "calldata", "orderOf(bytes32)", order).stdout.strip()
        answer = rpc("eth_call", {"to": lib.deployment("market"), "data": data}, "latest")
        return STATES[int(answer[2 + 64:2 + 128], 16)]

    def watch_namespaces(self, stop):
        """Whoever deletes a lease's namespace must have the chain's word for it. Soon after a reorganisation nobody is
        blamed: the chain may have said otherwise when it was decided."""
        known = set()
        while not stop.is_set():
            try:
                for item in lib.items("namespaces"):
                    name, going = item["metadata"]["name"], item["metadata"].get("deletionTimestamp")
                    order = (item["metadata"].get("annotations") or {}).get("freehold.dev/order-id")
                    if not name.startswith("fh-lease-") or not going or name in known:
                        continue
                    state = self.state_of(order)
                    known.add(name)
                    quiet = time.monotonic() - self.reorganised > 30
                    if state in ("Awaiting", "Running") and name not in self.forced and quiet:
                        self.torn.append((name, order, state))
            except Exception:  # noqa: BLE001 - looked at again in a moment
                pass
            stop.wait(0.5)

    def calm(self):
        """Nothing harms any more."""
        for at in range(len(ENDPOINTS)):
            self.fault(at, "none")
        for side in SIDES:
            self.arm(side, [])
        lib.sh(ROOT / "hack" / "cluster.sh", "mend")
        for device in "01":
            lib.gpuctl("restore", device)
        lib.kubectl("annotate", "gpunodes", "--all", "--overwrite", "freehold.dev/reset-health=all")
        rpc("evm_setIntervalMining", 2)

    def try_open_work(self):
        return patient(self.open_work) or set()

    def twin(self, side, pid):
        """A second operator of a release, as the release's own service account, outside of any pod."""
        namespace = SIDES[side][0]
        program = POINTS / "freehold"
        shutil.copy2(f"/proc/{pid}/exe", program)  # the very program that it stands beside
        token = lib.kubectl("-n", namespace, "create", "token", "freehold-operator", "--duration=1h").stdout.strip()
        config = json.loads(lib.kubectl("config", "view", "--raw", "-o", "json").stdout)
        config["users"] = [{"name": "twin", "user": {"token": token}}]
        config["contexts"] = [{"name": "twin", "context": {"cluster": config["clusters"][0]["name"], "user": "twin"}}]
        config["current-context"] = "twin"
        kubeconfig = POINTS / f"{side}.kubeconfig"
        kubeconfig.write_text(json.dumps(config))
        kubeconfig.chmod(0o644)
        known = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        env = dict(pair.split("=", 1) for pair in known if pair.startswith(("FREEHOLD_", "RUST_LOG")))
        env.pop("FREEHOLD_FAILPOINTS", None)
        if "FREEHOLD_GATEWAY_COURIER_URL" in env:  # the host does not know the cluster's names
            service = lib.get("service", "freehold-gateway-courier", namespace)["spec"]["clusterIP"]
            env["FREEHOLD_GATEWAY_COURIER_URL"] = f"http://{service}:8081"
        env |= {"KUBECONFIG": str(kubeconfig), "FREEHOLD_LISTEN": "127.0.0.1:18080",
                "FREEHOLD_METRICS_LISTEN": "127.0.0.1:18082", "HOME": "/",
                "FREEHOLD_STORE": "/var/lib/freehold-dev/tenant-store"}
        log = open(lib.CACHE / "logs" / f"chaos-twin-{side}.log", "a")
        return subprocess.Popen([program, "operator"], env=env, stdout=log, stderr=log, user=65532, group=65532, cwd="/")

    def open_work(self):
        """Leases and goals that a fault could harm now: the names of unfinished tasks."""
        return {
            item["metadata"]["name"] for item in lib.items("trainingtasks", NAMESPACE)
            if ((item.get("status") or {}).get("state")) not in ("Complete", "Failed")
        }


def patient(look):
    """What `look` says, or nothing where the API server is away."""
    try:
        return look()
    except (lib.Failed, OSError):
        return None


# ---------------------------------------------------------------------------------------------- processes of the node


def pods_of(side, component):
    """The agent has a namespace of its own, and only providers have one."""
    namespace = None if component == "agent" else SIDES[side][0]
    return lib.items("pods", namespace, f"app.kubernetes.io/component={component}")


def pid_of(name):
    """A process of the development cluster, by its own record."""
    file = lib.STATE / "run" / f"{name}.pid"
    try:
        pid = int(file.read_text())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None


def processes(*words):
    """Processes in containers whose command line has all these words."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cgroup = (folder / "cgroup").read_text()
        except OSError:
            continue
        if "freehold-dev" in cgroup and all(word in line for word in words):
            found.append(int(folder.name))
    return found


def release_process(side, component):
    """The process of a release's container on this node, found through its pod's identity."""
    command = {"agent": "node-agent"}.get(component, component)
    for pod in pods_of(side, component):
        uid = pod["metadata"]["uid"]
        for pid in processes("freehold", command):
            try:
                if uid in pathlib.Path(f"/proc/{pid}/cgroup").read_text():
                    return pid
            except OSError:
                continue
    return None


def end(pid, how=signal.SIGKILL):
    try:
        os.kill(pid, how)
        return True
    except ProcessLookupError:
        return False


def restart(name):
    """Kills a process of the node and lets the cluster's own script start it again."""
    pid = pid_of(name)
    if pid is None or not end(pid):
        return False
    lib.until(f"{name} has ended", lambda: pid_of(name) is None, 20)
    (lib.STATE / "run" / f"{name}.pid").unlink(missing_ok=True)
    lib.sh(ROOT / "hack" / "cluster.sh", "mend")
    return True


def wait(seconds):
    """Lets a fault last: the only wait here that is not for a condition."""
    time.sleep(seconds)
