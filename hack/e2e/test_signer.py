"""The signer: a task is paid for by a release whose operator holds no key, and cannot be made to pay anybody else."""

import base64
import json
import os
import pathlib
import re
import tempfile
import unittest
import urllib.error
import urllib.request

from lib import (
    PROVIDER_NS, ROOT, RPC, api, apply, audit, condition, deployment, get, image, in_namespace, items, kubectl, long_task, sh, task,
    until, wait_condition,
)

RELEASE, KEYS, WORK, ACCOUNT = "freehold-signed", "freehold-signed-signer", "signed", "team-s"
# Accounts 4 (this tenant's), 2 (the demo's provider's) and 0 (the deployer's) of anvil's mnemonic: known to everybody,
# worth nothing anywhere else.
ADDRESS = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"
KEY = "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a"
PROVIDER_KEY = "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"
DEPLOYER_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
PASSWORD = "a password of this journey"
SOCKET = "/var/lib/freehold-dev/containerd.sock"


def forms(key):
    """How a key may lie in memory or in a file: as text, and as a number either way round."""
    raw = bytes.fromhex(key)
    return [raw, raw[::-1], key.encode(), key.upper().encode(), base64.b64encode(raw), base64.b64encode(key.encode())]


def memory(pid):
    """The readable parts of a process's memory, in pieces that overlap by more than a key."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            span, rights, *_, name = line.split(maxsplit=5) if len(line.split()) > 5 else (*line.split(), "")
            if "r" not in rights or name.strip() in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                continue
            begin, end = (int(part, 16) for part in span.split("-"))
            while begin < end:
                try:
                    mem.seek(begin)
                    yield mem.read(min(end - begin, 1 << 24))
                except OSError:  # a page that the kernel does not show
                    pass
                begin += (1 << 24) - 128


def files(pid, folders):
    for folder in folders:
        top = pathlib.Path(f"/proc/{pid}/root{folder}")
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file():
                yield path.read_bytes()


def places(pid, folders, key):
    """Where the key is: environment, files of the mounts, memory."""
    found = {
        "environ": [pathlib.Path(f"/proc/{pid}/environ").read_bytes()],
        "files": files(pid, folders),
        "memory": memory(pid),
    }
    wanted = forms(key)
    return [place for place, pieces in found.items() if any(form in piece for piece in pieces for form in wanted)]


def process(namespace, component):
    """The main process of a component, and where its volumes are mounted."""
    pods = [p for p in items("pods", namespace, f"app.kubernetes.io/component={component}") if "deletionTimestamp" not in p["metadata"]]
    pod = pods[0]
    container = pod["status"]["containerStatuses"][0]["containerID"].split("//")[1]
    tasks = sh("ctr", "--address", SOCKET, "--namespace", "k8s.io", "tasks", "ls").stdout
    pid = re.search(rf"^{container}\s+(\d+)", tasks, re.M)[1]
    return pid, [mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]]


def signer_pod():
    return items("pods", KEYS, "app.kubernetes.io/component=signer")[0]


def ask(path, token, body):
    """(status, document) of a request to the signer, from the node."""
    url = f"http://{signer_pod()['status']['podIP']}:8080{path}"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def transaction(goal, to, data, value="0x0"):
    return {"goal": goal, "transaction": {
        "chainId": "0x7a69", "nonce": "0x0", "gas": "0x30d40", "maxFeePerGas": "0x3b9aca00", "maxPriorityFeePerGas": "0x0",
        "to": to, "value": value, "accessList": [], "input": data,
    }}


def calldata(signature, *arguments):
    return sh("cast", "calldata", signature, *arguments).stdout.strip()


class Signer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(cls.clean)
        kubectl("create", "namespace", RELEASE)
        token = deployment("token")
        sh("cast", "send", "--rpc-url", RPC, "--private-key", DEPLOYER_KEY, token, "mint(address,uint256)", ADDRESS, 1_000_000_000)
        # As if it were new here: an approval that another run left would need no other.
        sh("cast", "send", "--rpc-url", RPC, "--private-key", KEY, token, "approve(address,uint256)", deployment("market"), 0)
        values = {
            "image": image("freehold"), "account.name": ACCOUNT, "account.chain.rpcUrls[0]": RPC,
            "tenant.trainerImage": image("trainer"), "tenant.allowedCidrs[0]": "10.101.0.0/16",
            # More than the signer allows, so that it is the signer who refuses.
            "account.caps.period": "24h", "account.caps.tokens": "100",
            "signer.policy.tokens": "4", "signer.policy.fees": "0.5",
        } | {f"account.{key}": deployment(key) for key in ("market", "providerRegistry", "token")}
        flags = [flag for key, value in values.items() for flag in ("--set-string", f"{key}={value}")]
        flags += ["--set", "tenant.enabled=true", "--set", "signer.enabled=true"]
        # Not --wait: the signer waits for its Secrets, and its namespace comes with the release.
        sh("helm", "-n", RELEASE, "install", "freehold", ROOT / "charts" / "freehold", "-f", ROOT / "hack" / "e2e" / "values.yaml", *flags)
        wait_condition("computeaccount", ACCOUNT, "SignerReachable", "False", "Unreachable", None, 90)
        with tempfile.TemporaryDirectory() as folder:
            sh("cast", "wallet", "import", "--keystore-dir", folder, "--private-key", KEY, "--unsafe-password", PASSWORD, "key")
            pathlib.Path(folder, "password").write_text(PASSWORD + "\n")
            for name, file, key in (("keystore", "key", "keystore.json"), ("password", "password", "password")):
                kubectl("-n", KEYS, "create", "secret", "generic", f"freehold-signer-{name}", f"--from-file={key}={folder}/{file}")
        kubectl("wait", "--for=condition=Ready", f"computeaccount/{ACCOUNT}", "--timeout=180s")
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WORK}})
        apply({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "freehold-data", "namespace": WORK},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{RELEASE}-freehold-data"},
            "subjects": [{"kind": "ServiceAccount", "name": "freehold-operator", "namespace": RELEASE}],
        }, {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits", "namespace": WORK},
            "binaryData": get("configmap", "digits", "demo")["binaryData"],
        }, {
            "apiVersion": "freehold.dev/v1alpha1", "kind": "ComputeBudget", "metadata": {"name": ACCOUNT, "namespace": WORK},
            "spec": {"accountRef": {"name": ACCOUNT}, "limit": "20", "period": "720h"},
        })

    @classmethod
    def clean(cls):
        kubectl("delete", "namespace", WORK, "--ignore-not-found", "--wait=false")
        until("the tasks' namespace is gone", lambda: get("namespace", WORK) is None, 240)
        sh("helm", "-n", RELEASE, "uninstall", "freehold", "--ignore-not-found", "--wait", "--timeout", "2m")
        for namespace in (RELEASE, KEYS):
            kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
            until(f"{namespace} is gone", lambda: get("namespace", namespace) is None, 90)

    def test_a_task_is_paid_by_the_signer_and_the_policy_has_the_last_word(self):
        apply(in_namespace(task("paid", market__account=ACCOUNT), WORK))
        wait_condition("trainingtask", "paid", "Complete", "True", None, WORK, 240)
        wait_condition("trainingtask", "paid", "Settled", "True", None, WORK, 120)
        order = get("trainingtask", "paid", WORK)["status"]["orderId"]
        report = json.loads(audit(order).stdout)
        self.assertEqual(report["findings"], [])
        lines = [json.loads(line) for line in kubectl("-n", KEYS, "logs", "deployment/freehold-signer").stdout.splitlines() if line.startswith("{")]
        signed = {line["goal"] for line in lines if line["decision"] == "signed" and line.get("order") in (None, order)}
        self.assertLessEqual({"approve", "placeOrder", "acceptBid", "acceptResult", "access"}, signed)
        # What was committed counts for the whole period, whatever came back of it: of two more orders of 1.5 tokens
        # one fits into the policy's four. It is not done before it is deleted: a delivered result would wait for the end
        # of its review, and the uninstall for that.
        more = [in_namespace(long_task(f"more-{n}", market__account=ACCOUNT), WORK) for n in range(2)]
        apply(*more)

        def refused():
            claims = [condition(get("trainingtask", f"more-{n}", WORK), "Funded") for n in range(2)]
            return next((claim for claim in claims if claim and claim["reason"] == "SignerRefused"), None)

        self.assertIn("`spend`", until("one of them says what the signer refused", refused, 120)["message"])

    @unittest.skipUnless(os.path.exists(SOCKET), "looks into the development cluster's containers from its host")
    def test_no_other_process_has_the_key(self):
        kubectl("-n", KEYS, "wait", "--for=condition=Available", "deployment/freehold-signer", "--timeout=60s")
        # First that the search finds a key where there is one.
        self.assertIn("memory", places(*process(KEYS, "signer"), KEY))
        self.assertEqual(places(*process(RELEASE, "operator"), KEY), [])
        self.assertEqual(places(*process(PROVIDER_NS, "gateway"), PROVIDER_KEY), [])
        self.assertEqual(places(*process(PROVIDER_NS, "gateway"), KEY), [])

    def test_a_stolen_token_reads_no_key_and_pays_nobody(self):
        own = kubectl("-n", RELEASE, "create", "token", "freehold-operator").stdout.strip()
        self.assertEqual(api(f"/apis/freehold.dev/v1alpha1/namespaces/{RELEASE}/chaintransactions", own), 200)
        for namespace in (KEYS, RELEASE):
            self.assertEqual(api(f"/api/v1/namespaces/{namespace}/secrets", own), 403)
        for name in ("keystore", "password"):
            self.assertEqual(api(f"/api/v1/namespaces/{KEYS}/secrets/freehold-signer-{name}", own), 403)
        operator = f"system:serviceaccount:{RELEASE}:freehold-operator"
        for verb, what in (("create", "pods"), ("create", "pods/exec"), ("create", "jobs.batch"), ("get", "secrets")):
            asked = kubectl("auth", "can-i", verb, what, "-n", KEYS, user=operator, check=False)
            self.assertEqual(asked.stdout.strip(), "no", f"{verb} {what}")

        thief, market = "0x" + "ee" * 20, deployment("market")
        token = kubectl("-n", RELEASE, "create", "token", "freehold-operator", "--audience", "freehold-signer").stdout.strip()
        everything = str((1 << 128) - 1)
        withdrawal = calldata("withdraw(address,uint128,address)", deployment("token"), everything, thief)
        transfer = calldata("transfer(address,uint256)", thief, "1000000")
        withdraw, approve = {"withdraw": {"amount": "1", "block": 1}}, {"approve": {"amount": "1", "block": 1}}
        for rule, asked in (
            ("recipient", transaction(withdraw, market, withdrawal)),
            ("contract", transaction(withdraw, thief, withdrawal)),
            ("calldata", transaction(approve, deployment("token"), transfer)),
            ("value", transaction({"void": {"nonce": 0}}, thief, "0x", "0x1")),
        ):
            with self.subTest(rule=rule):
                status, document = ask("/v1/transactions", token, asked)
                self.assertEqual((status, document.get("rule")), (403, rule), document)
        # A token for somebody else, or of somebody else, is none.
        self.assertEqual(ask("/v1/transactions", own, transaction(withdraw, market, withdrawal))[0], 401)
        kubectl("-n", RELEASE, "create", "serviceaccount", "stranger")
        other = kubectl("-n", RELEASE, "create", "token", "stranger", "--audience", "freehold-signer").stdout.strip()
        self.assertEqual(ask("/v1/transactions", other, transaction(withdraw, market, withdrawal))[0], 403)

    def test_only_the_operator_reaches_it(self):
        target = f"tcp={signer_pod()['status']['podIP']}:8080"
        apply({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "prober", "namespace": RELEASE},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "probe", "image": image("probe"), "args": ["try", target]}]},
        })
        try:
            until("the pod has tried", lambda: get("pod", "prober", RELEASE)["status"]["phase"] == "Succeeded", 60)
            log = kubectl("-n", RELEASE, "logs", "prober").stdout
            self.assertIn(f"{target} ", log)
            self.assertNotIn(f"{target} open", log)
        finally:
            kubectl("-n", RELEASE, "delete", "pod", "prober", "--wait=false")


if __name__ == "__main__":
    unittest.main()
