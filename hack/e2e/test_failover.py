"""Two providers in two clusters. The one that won loses its power, gateway and all, at half of the training: the task goes
on at the other from its newest checkpoint and ends with the bytes of a run that nothing disturbed."""

import json
import pathlib
import tempfile
import unittest

from lib import (
    CACHE, ENV, PROVIDER_NS, ROOT, RPC, TARGET, TENANT_NS, apply, delete, deployment, get, long_task, sh, until,
)

FAR = ENV | {"CLUSTER": "far", "KUBECONFIG": str(CACHE / "clusters" / "far" / "kubeconfig")}
NEAR_PROVIDER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
# Accounts 5 (the far provider's) and 0 (the deployer's) of anvil's mnemonic: known to everybody, worth nothing anywhere else.
FAR_PROVIDER = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"
FAR_KEY = "8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba"
DEPLOYER_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
STORE = pathlib.Path("/var/lib/freehold-dev/tenant-store/demo/sha256")
STEPS = 100_000
TASKS = ("undisturbed", "disturbed")


def hack(script, *arguments):
    sh(ROOT / "hack" / script, *arguments, env=FAR)


def values(namespace):
    return json.loads(sh("helm", "-n", namespace, "get", "values", "freehold", "-o", "json").stdout)


def install(namespace, wanted, env=ENV):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(wanted, file)
        file.flush()
        sh("helm", "-n", namespace, "upgrade", "--install", "freehold", ROOT / "charts" / "freehold", "-f", file.name,
           "--reset-values", "--wait", "--timeout", "3m", env=env)


def market(signature, *arguments):
    return sh("cast", "call", "--rpc-url", RPC, deployment("market"), signature, *arguments).stdout.split()[0]


def pay(key, contract, signature, *arguments):
    sh("cast", "send", "--rpc-url", RPC, "--private-key", key, deployment(contract), signature, *arguments)


def owed():
    return int(market("free(address,address)(uint128)", deployment("token"), FAR_PROVIDER))


def status(name):
    return (get("trainingtask", name, "demo") or {}).get("status") or {}


def complete(name, seconds):
    found = until(f"{name} is Complete", lambda: status(name) if status(name).get("state") in ("Complete", "Failed") else None, seconds)
    if found["state"] != "Complete":
        raise AssertionError(f"{name}: {found['message']}")
    return found


def digest(found, artifact):
    return next(item["sha256"] for item in found["artifacts"] if item["name"] == artifact)


def resumed_from(found):
    """What the trainer itself says, in the metrics that it delivered."""
    return json.loads((STORE / digest(found, "metrics.json")).read_text())["resumedFrom"]


class Failover(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(cls.clean)
        hack("cluster.sh", "up")
        hack("gpu.sh", "up")
        for name in ("operator", "trainer"):
            hack("images.sh", name)
        cls.tenant = values(TENANT_NS)
        wanted = json.loads(json.dumps(cls.tenant))
        wanted["tenant"]["allowedCidrs"].append("10.111.0.0/16")
        wanted["account"]["chain"]["windows"]["silence"] = "1m"
        install(TENANT_NS, wanted)
        cls.provider()

    @classmethod
    def provider(cls):
        """The near provider's release once more, over there, with another key and for less."""
        text = json.dumps(values(PROVIDER_NS))
        for near, far in (("provider-a", "provider-b"), ("freehold-dev", "freehold-far"), ("10.101.0.1:30080", "10.111.0.1:30080"),
                          ("10.101.0.0/16", "10.111.0.0/16")):
            text = text.replace(near, far)
        wanted = json.loads(text)
        wanted["provider"]["pricing"] |= {"gpu": {"*": "0.10"}, "minimum": "0.05"}
        pay(DEPLOYER_KEY, "token", "mint(address,uint256)", FAR_PROVIDER, "1000000000")
        sh("helm", "upgrade", "--install", "freehold-crds", ROOT / "charts" / "freehold-crds", "--namespace", "default", env=FAR)
        sh("kubectl", "create", "namespace", PROVIDER_NS, env=FAR)
        sh("kubectl", "-n", PROVIDER_NS, "create", "secret", "generic", "freehold-account", f"--from-literal=key={FAR_KEY}", env=FAR)
        install(PROVIDER_NS, wanted, FAR)
        for kind, name, condition in (("computeaccount", "provider-b", "Ready"), ("computeprovider", "provider-b", "Bidding")):
            sh("kubectl", "-n", PROVIDER_NS, "wait", f"{kind}/{name}", f"--for=condition={condition}", "--timeout=90s", env=FAR)

    @classmethod
    def clean(cls):
        for name in TASKS:
            delete("trainingtask", name)
        hack("cluster.sh", "down")
        if owed():
            pay(FAR_KEY, "market", "withdraw(address,uint128,address)", deployment("token"), str(2**128 - 1), FAR_PROVIDER)
        if hasattr(cls, "tenant"):
            install(TENANT_NS, cls.tenant)

    def half(self, name):
        """Half of the steps are done, and a checkpoint of not much less is in the tenant's store."""
        found = status(name)
        done, saved = ((found.get(key) or {}).get("step", 0) for key in ("progress", "checkpoint"))
        return found if done >= STEPS / 2 and saved >= STEPS * 0.4 else None

    def books(self, uid):
        done = sh(TARGET / "debug" / "freehold", "audit", "task", uid, "--tenant", self.address(), "--rpc", RPC,
                  "--market", deployment("market"), "-o", "json")
        return json.loads(done.stdout)

    def address(self):
        return get("computeaccount", "team-a")["status"]["address"]

    def test_the_work_goes_on_where_a_cluster_died(self):
        apply(long_task("disturbed", STEPS))
        before = until("half of the training is done", lambda: self.half("disturbed"), 600)
        self.assertEqual(before["provider"], FAR_PROVIDER, "the cheaper provider is the far one")
        hack("cluster.sh", "kill")
        disturbed = complete("disturbed", 480)
        self.assertEqual(disturbed["provider"], NEAR_PROVIDER)
        step = resumed_from(disturbed)
        print(f"\nresumed from step {step}: the second lease ran {STEPS - step} of {STEPS} steps")
        self.assertLessEqual(STEPS - step, 0.6 * STEPS)

        apply(long_task("undisturbed", STEPS))
        undisturbed = complete("undisturbed", 420)
        self.assertEqual(undisturbed["provider"], NEAR_PROVIDER)
        self.assertIsNone(resumed_from(undisturbed))
        self.assertEqual(digest(disturbed, "model.safetensors"), digest(undisturbed, "model.safetensors"))

        lost, kept = self.books(get("trainingtask", "disturbed", "demo")["metadata"]["uid"])
        self.assertEqual([lost["state"], kept["state"]], ["Closed", "Accepted"])
        self.assertEqual([lost["findings"], kept["findings"]], [[], []])
        detour = int(lost["totals"]["paid"])
        print(f"paid for the detour {detour}, for the rest {kept['totals']['paid']}; bond back {lost['totals']['bond']}")
        self.assertGreater(detour, 0)
        self.assertEqual(owed(), detour + int(lost["totals"]["bond"]), "what the dead provider is owed waits for its key")


if __name__ == "__main__":
    unittest.main()
