"""Bad input: each is refused or told in a condition, and none of it funds anything."""

import copy
import json
import unittest

from lib import (
    RESEARCHER, TENANT_NS, apply, delete, get, in_namespace, kubectl, namespace_for, task, until, wait_condition,
)


class Refused(unittest.TestCase):
    """The API server refuses what one object can tell, and names the field."""

    def refused(self, named, **changes):
        done = apply(task("bad", **changes), user=RESEARCHER, check=False)
        self.assertNotEqual(done.returncode, 0, f"{changes} was taken")
        self.assertIn(named, done.stderr)

    def test_malformed_manifests(self):
        for named, changes in (
            ("budget", {"market__budget": "1,5"}),
            ("maxRatePerHour", {"market__maxRatePerHour": None}),
            ("activeDeadline", {"activeDeadline": "1 hour"}),
            ("exactly one of recipe and image", {"trainer__image": "freehold.dev/trainer@sha256:" + "0" * 64}),
            ("exactly one of uri, configMapRef and artifact", {"dataset__artifact": {"sha256": "0" * 64}}),
            ("uri needs sha256", {"dataset": {"uri": "https://data.example/digits.csv"}}),
            ("memory", {"resources__memory": "lots"}),
            ("count", {"resources__gpu": {"count": 0, "models": ["*"]}}),
            ("class", {"verification": {"class": "zk"}}),
            ("heads must divide width", {"trainer__recipe__model": {"transformer": {"width": 64, "heads": 3, "layers": 1, "context": 64}}}),
            ("kernel must be odd", {"trainer__recipe__model": {"cnn": {"input": [1, 8, 8], "channels": [8], "kernel": 4, "classes": 10}}}),
            ("learningRate must be above 0", {"trainer__recipe__optimizer": {"sgd": {"learningRate": "0.0"}}}),
            ("beta1 and beta2", {"trainer__recipe__optimizer": {"adam": {"learningRate": "0.1", "beta1": "1"}}}),
            ("split", {"trainer__recipe__evaluate": {"every": 10, "split": "95%"}}),
            ("every", {"trainer__recipe__checkpoint": {"every": ""}}),
            ("resources.gpu.count", {"resources__gpu__count": 2}),
        ):
            with self.subTest(named=named):
                self.refused(named, **changes)

    def test_an_image_by_tag(self):
        self.refused("image", trainer={"image": "freehold.dev/trainer:latest"})


class Told(unittest.TestCase):
    """What only the cluster or the chain can tell becomes a condition with a remedy."""

    def told(self, which, reason, words, **changes):
        name = f"bad-{reason.lower()}"[:40]
        apply(task(name, **changes))
        try:
            found = wait_condition("trainingtask", name, which, status="False", reason=reason, seconds=60)
            for word in words:
                self.assertIn(word, found["message"])
            status = get("trainingtask", name, "demo")["status"]
            self.assertNotIn("orderId", status, "something was funded")
        finally:
            delete("trainingtask", name)

    def test_unknown_account(self):
        self.told("Valid", "AccountNotFound", ["nobody"], market__account="nobody")

    def test_wrong_digest(self):
        self.told("Valid", "DigestMismatch", ["0" * 64], dataset__sha256="0" * 64)

    def test_missing_config_map(self):
        self.told("Valid", "InputNotFound", ["nothing-here"], dataset__configMapRef={"name": "nothing-here", "key": "x.csv"})

    def test_over_the_budget(self):
        self.told("Funded", "BudgetExceeded", ["5"], market__budget="50.00")


class Accounts(unittest.TestCase):
    """What is wrong with an account is told by the task that wants to spend from it."""

    NAMESPACE = "accounts"
    # Its address has never been sent anything.
    EMPTY_KEY = "11" * 32
    WRONG = {
        "wrong-chain": {"chain": {"chainId": 1}},
        "wrong-market": {"market": "0x000000000000000000000000000000000000dEaD"},
        "no-rpc": {"chain": {"rpcUrls": ["http://10.101.0.1:1"]}},
        "no-money": {"signerRef": {"secret": {"name": "freehold-account", "key": "empty"}}},
    }

    @classmethod
    def setUpClass(cls):
        secret = json.dumps({"stringData": {"empty": cls.EMPTY_KEY}})
        kubectl("-n", TENANT_NS, "patch", "secret", "freehold-account", "-p", secret)
        known = get("computeaccount", "team-a")["spec"]
        for name, changes in cls.WRONG.items():
            spec = copy.deepcopy(known)
            for field, change in changes.items():
                spec[field] = spec[field] | change if isinstance(change, dict) else change
            apply({"apiVersion": "freehold.dev/v1alpha1", "kind": "ComputeAccount", "metadata": {"name": name}, "spec": spec})
        namespace_for(cls.NAMESPACE, *cls.WRONG)

    @classmethod
    def tearDownClass(cls):
        kubectl("delete", "namespace", cls.NAMESPACE, "--wait=false")
        until("the namespace is gone", lambda: get("namespace", cls.NAMESPACE) is None, 120)
        kubectl("delete", "computeaccount", *cls.WRONG)

    def told(self, account, which, reason, *words):
        apply(in_namespace(task(account, market__account=account), self.NAMESPACE))
        found = wait_condition("trainingtask", account, which, None, reason, self.NAMESPACE, 60)
        self.assertNotEqual(found["status"], "True")
        for word in words:
            self.assertIn(word, found["message"])
        self.assertNotIn("orderId", get("trainingtask", account, self.NAMESPACE)["status"], "something was funded")

    def test_no_budget(self):
        self.told("team-a", "Funded", "NoBudget", "ComputeBudget")

    def test_wrong_chain_id(self):
        self.told("wrong-chain", "Funded", "WrongChain", "31337")

    def test_wrong_market_address(self):
        self.told("wrong-market", "Funded", "WrongMarket", "0x000000000000000000000000000000000000dEaD")

    def test_rpc_down(self):
        self.told("no-rpc", "Funded", "Unreachable", "10.101.0.1:1")

    def test_nothing_in_the_wallet(self):
        self.told("no-money", "Funded", "InsufficientBalance", "0x")


class Placed(unittest.TestCase):
    """An order that nobody can serve comes back, and the task says why."""

    def test_impossible_gpu(self):
        apply(task("no-such-gpu", resources__gpu={"count": 1, "models": ["NVIDIA B9000"]}))
        try:
            found = wait_condition("trainingtask", "no-such-gpu", "Leased", status="False", reason="NoBids", seconds=90)
            self.assertIn("bid", found["message"])
        finally:
            delete("trainingtask", "no-such-gpu")

    def test_bad_rows_are_not_retried(self):
        apply({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "bad-rows", "namespace": "demo"},
            "data": {"rows.csv": "a,b,label\n1,2,0\n1,oops,1\n"},
        })
        bad = task("bad-rows", dataset={"configMapRef": {"name": "bad-rows", "key": "rows.csv"}})
        bad["spec"]["trainer"]["recipe"]["model"] = {"mlp": {"layers": [2, 2]}}
        bad["spec"]["trainer"]["recipe"]["batchSize"] = 1
        apply(bad)
        try:
            failed = wait_condition("trainingtask", "bad-rows", "Failed", reason="BadData", seconds=180)
            self.assertIn("oops", failed["message"])
            self.assertEqual(get("trainingtask", "bad-rows", "demo")["status"]["attempt"], 0)
        finally:
            delete("trainingtask", "bad-rows")


if __name__ == "__main__":
    unittest.main()
