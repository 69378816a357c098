"""The two releases: what the charts apply, and their processes as host processes with the tokens of their own service
accounts. Only what a kubelet would have to run is left out of the charts."""

import base64
import json
import os
import pathlib
import re
import subprocess
import time

from api import Failed, condition

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMESPACE = "scale"
RESEARCHER = f"system:serviceaccount:{NAMESPACE}:researcher"
SIDES = {"tenant": ("freehold-tenant", "team-a"), "provider": ("freehold-provider", "provider-a")}
# Accounts 1 and 2 of anvil's mnemonic, and 0, which deployed: known to everybody, worth nothing anywhere else.
KEYS = {"tenant": "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
        "provider": "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"}
ADDRESSES = {"tenant": "0x70997970c51812dc3a010c7d01b50e0d17dc79c8", "provider": "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc"}
DEPLOYER_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
IMAGE = "freehold.dev/operator@sha256:" + "0" * 64  # nobody pulls it
PUBLIC, COURIER = "http://127.0.0.1:16480", "http://127.0.0.1:16481"
PORTS = {"gateway": 16482, "tenant": 16490, "provider": 16492}  # of health; metrics are one above, the gateway's are there
RUN_BY_KUBELETS = re.compile(r"^kind: (Deployment|DaemonSet|Service|NetworkPolicy)$", re.M)


def sh(*command, stdin=None, check=True):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, input=stdin, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command[:6]))} …: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def until(what, look, seconds=60):
    end = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.3)
    return seen


def apply(text):
    sh("kubectl", "apply", "--server-side", "-f", "-", stdin=text)


class World:
    def __init__(self, api, options, concurrent):
        self.api, self.state, self.rpc, self.program = api, pathlib.Path(options.state), options.rpc, options.program
        self.contracts = json.loads((self.state / "31337.json").read_text())
        self.concurrent = concurrent
        self.processes = {}

    # ---- what the charts and an administrator apply

    def install(self):
        apply(self.render("freehold-crds", "default", {}))
        sh("kubectl", "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        for side in SIDES:
            self.release(side)
            sh("cast", "send", "--rpc-url", self.rpc, "--private-key", DEPLOYER_KEY, self.contracts["token"],
               "mint(address,uint256)", ADDRESSES[side], 10**15)
        apply(self.tenancy())

    def release(self, side):
        namespace, account = SIDES[side]
        values = {"image": IMAGE, "account": {
            "name": account, "market": self.contracts["market"], "providerRegistry": self.contracts["providerRegistry"],
            "token": self.contracts["token"], "confirmations": {"blocks": 3, "finalized": False},
            "chain": {"chainId": 31337, "rpcUrls": [self.rpc], "blockTime": "1s",
                      "windows": {"bids": "1m", "start": "15m", "review": "30m"}}}}
        if side == "tenant":
            values["tenant"] = {"enabled": True, "trainerImage": IMAGE}
        else:
            values["provider"] = {
                "enabled": True, "name": account, "gatewayUrl": PUBLIC, "attributes": {"region": "eu-north"},
                "pricing": {"gpu": {"*": "1.00"}, "minimum": "0.10"},
                "bidding": {"maxLeases": 1000, "maxBidsPerTenant": 1000, "validity": "5m"}}
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        key = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "freehold-account", "namespace": namespace},
               "stringData": {"key": KEYS[side]}}
        chart = self.render("freehold", namespace, values)
        kept = [part for part in re.split(r"^---$", chart, flags=re.M) if part.strip() and not RUN_BY_KUBELETS.search(part)]
        apply("\n---\n".join([json.dumps(made), json.dumps(key), *kept]))

    def render(self, chart, namespace, values):
        version = self.api.request("GET", "/version")["gitVersion"]
        return sh("helm", "template", chart, ROOT / "charts" / chart, "-n", namespace, "--kube-version", version, "--no-hooks",
                  "-f", "-", stdin=json.dumps(values))

    def tenancy(self):
        """What an administrator grants a team, and its data."""
        text = (ROOT / "examples" / "tenant.yaml").read_text()
        text = re.sub(r"\bdemo\b", NAMESPACE, text)
        spec = f'spec:\n  accountRef: {{ name: team-a }}\n  limit: "1000000"\n  maxConcurrent: {self.concurrent}\n'
        text = re.sub(r"spec:\n  accountRef.*?(?=---)", spec, text, flags=re.S)
        data = (ROOT / "examples" / "data" / "digits-train.csv.gz").read_bytes()
        digits = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits", "namespace": NAMESPACE},
                  "binaryData": {"digits-train.csv.gz": base64.b64encode(data).decode()}}
        return f"{text}\n---\n{json.dumps(digits)}"

    # ---- processes

    def start(self):
        self.run("gateway", "provider", "freehold-gateway", {
            "FREEHOLD_STORE": self.folder("gateway-store"), "FREEHOLD_PUBLIC_URL": PUBLIC,
            "FREEHOLD_GATEWAY_LISTEN": PUBLIC.removeprefix("http://"), "FREEHOLD_GATEWAY_COURIER_LISTEN": COURIER.removeprefix("http://"),
            "FREEHOLD_GATEWAY_HEALTH_LISTEN": f"127.0.0.1:{PORTS['gateway']}", "FREEHOLD_ALLOWED_CIDRS": "127.0.0.0/8",
            "FREEHOLD_OPERATOR_ACCOUNT": "system:serviceaccount:freehold-provider:freehold-operator"})
        for side in SIDES:
            mine = {"FREEHOLD_IMAGE": IMAGE, "FREEHOLD_RELEASE": f"{SIDES[side][0]}.freehold",
                    "FREEHOLD_TENANT": str(side == "tenant").lower(), "FREEHOLD_PROVIDER": str(side == "provider").lower(),
                    "FREEHOLD_LISTEN": f"127.0.0.1:{PORTS[side]}", "FREEHOLD_METRICS_LISTEN": f"127.0.0.1:{PORTS[side] + 1}",
                    "FREEHOLD_ALLOWED_CIDRS": "127.0.0.0/8"}
            if side == "tenant":
                mine |= {"FREEHOLD_TRAINER_IMAGE": IMAGE, "FREEHOLD_STORE": self.folder("tenant-store")}
            else:
                mine |= {"FREEHOLD_GATEWAY_COURIER_URL": COURIER}
            self.run("operator", side, "freehold-operator", mine)

    def folder(self, name):
        made = self.state / "store" / name
        made.mkdir(parents=True, exist_ok=True)
        return str(made)

    def run(self, command, side, account, env):
        """As the chart's pod runs it, but for the pod: the token of its service account in a kubeconfig, and the one
        that the kubelet would project where the program looks for it, in a mount namespace of its own."""
        namespace, name = SIDES[side][0], side if command == "operator" else command
        tokens = self.state / "tokens" / name
        tokens.mkdir(parents=True, exist_ok=True)
        (tokens / "gateway-token").write_text(self.api.token(namespace, account, "freehold-gateway"))
        config = json.loads(sh("kubectl", "config", "view", "--raw", "--minify", "-o", "json"))
        config["users"][0]["user"] = {"token": self.api.token(namespace, account)}
        (tokens / "kubeconfig").write_text(json.dumps(config))
        env = {"PATH": os.environ["PATH"], "HOME": "/", "RUST_LOG": os.environ.get("RUST_LOG", "info"), "FREEHOLD_CLUSTER": "scale",
               "KUBECONFIG": str(tokens / "kubeconfig"), "FREEHOLD_NAMESPACE": namespace} | env
        place = 'mount -t tmpfs none /run && mkdir -p /run/secrets && ln -s "$0" /run/secrets/freehold && exec "$@"'
        log = open(self.state / "logs" / f"{name}.log", "w")
        self.processes[name] = subprocess.Popen(["unshare", "--mount", "bash", "-c", place, tokens, self.program, command],
                                                env=env, stdout=log, stderr=log, cwd="/")

    def ready(self):
        def holds(kind, namespace, name, *wanted):
            try:
                item = self.api.get(kind, namespace, name)
            except Failed:
                return False
            return all(condition(item, each).get("status") == "True" for each in wanted)

        for side, (namespace, account) in SIDES.items():
            until(f"account {account} is Ready (see {side}.log)", lambda: holds("computeaccounts", None, account, "Ready"), 120)
        until("the provider bids", lambda: holds("computeproviders", "freehold-provider", "provider-a", "Registered", "Bidding"), 120)

    def fallen(self):
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def task(number):
    recipe = {"model": {"mlp": {"layers": [64, 10]}}, "optimizer": {"adamw": {"learningRate": "0.003"}},
              "batchSize": 32, "steps": 2, "seed": 7}
    return {
        "apiVersion": "freehold.dev/v1alpha1", "kind": "TrainingTask",
        "metadata": {"name": f"t{number:04}", "namespace": NAMESPACE},
        "spec": {
            "trainer": {"recipe": recipe},
            "dataset": {"configMapRef": {"name": "digits", "key": "digits-train.csv.gz"}},
            "resources": {"gpu": {"count": 1, "models": ["*"]}, "cpu": "1", "memory": "1Gi", "disk": "2Gi"},
            "market": {"account": "team-a", "maxRatePerHour": "1.50", "budget": "1.00"},
            "isolation": {"acceptSharedKernel": True}, "activeDeadline": "4h",
        },
    }
