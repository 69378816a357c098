"""The charts: lint, rendered objects against the API server, values that must be refused, a release's whole life."""

import json
import unittest

from lib import ROOT, RPC, deployment, get, image, kubectl, sh, until

CHART = ROOT / "charts" / "freehold"
DIGEST = "freehold.dev/freehold@sha256:" + "0" * 63 + "1"
# What a signer needs to be told.
SIGNER = ("signer.enabled=true", "signer.policy.tokens=10", "signer.policy.fees=0.1")


def strings(*settings):
    return [flag for setting in settings for flag in ("--set-json" if setting.endswith("=true") else "--set-string", setting)]


class Charts(unittest.TestCase):
    def setUp(self):
        self.values = ROOT / "hack" / "e2e" / "values.yaml"

    def test_lint(self):
        sh("helm", "lint", ROOT / "charts" / "freehold-crds")
        sh("helm", "lint", CHART, "-f", self.values, "--set", "tenant.enabled=true", "--set", f"tenant.trainerImage={DIGEST}")
        sh("helm", "lint", CHART, "-f", self.values, "--set", "provider.enabled=true", "--set", "provider.gatewayUrl=https://gpu.example")

    def test_rendered_objects_pass_the_api_server(self):
        for namespace, *settings in (
            ("chart-tenant", "tenant.enabled=true", f"tenant.trainerImage={DIGEST}"),
            ("chart-provider", "provider.enabled=true", "provider.gatewayUrl=https://gpu.example"),
            ("chart-signed", "tenant.enabled=true", f"tenant.trainerImage={DIGEST}", *SIGNER),
        ):
            with self.subTest(namespace=namespace):
                flags = strings(*settings)
                rendered = sh(
                    "helm", "template", "freehold", CHART, "-n", namespace, "--kube-version", "1.34.4",
                    "-f", self.values, *flags,
                ).stdout
                # A server-side dry run needs the namespaces to exist.
                made = [namespace, f"{namespace}-agent", f"{namespace}-signer"]
                for name in made:
                    kubectl("create", "namespace", name, check=False)
                try:
                    kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=rendered)
                finally:
                    for name in made:
                        kubectl("delete", "namespace", name, "--wait=false")

    def test_bad_values_are_refused_by_name(self):
        for setting, named in (
            ("image=freehold.dev/freehold:latest", "image"),
            ("account.market=0x12", "market"),
            ("account.chain.blockTime=2", "blockTime"),
            ("tenant.trainerImage=", "trainerImage"),
            ("tenant.trainerImages=x", "trainerImages"),
            ("provider.gateway.leaseQuota=1e9", "leaseQuota"),
            ("signer.policies.tokens=1", "policies"),
            ("signer.policy.goals[0]=transfer", "goals"),
            ("signer.enabled=true", "tokens"),
            ("account.signerRef.key=x", "signerRef"),
        ):
            with self.subTest(setting=setting):
                done = sh(
                    "helm", "lint", CHART, "-f", self.values, "--set", "tenant.enabled=true",
                    "--set", f"tenant.trainerImage={DIGEST}", "--set", setting, check=False,
                )
                self.assertNotEqual(done.returncode, 0, setting)
                self.assertIn(named, done.stdout + done.stderr)

    def rendered(self, *settings):
        """Objects of a tenant's release by (kind, name)."""
        base = ("tenant.enabled=true", f"tenant.trainerImage={DIGEST}")
        text = sh(
            "helm", "template", "freehold", CHART, "-n", "chart-tenant", "--kube-version", "1.34.4",
            "-f", self.values, *strings(*base, *settings),
        ).stdout
        made = sh("kubectl", "create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-", stdin=text, check=False).stdout
        decoder, found, at = json.JSONDecoder(), [], 0
        while at < len(made.rstrip()):
            item, end = decoder.raw_decode(made, at)
            found.append(item)
            at = end + len(made[end:]) - len(made[end:].lstrip())
        return {(item["kind"], item["metadata"]["name"]): item for item in found}

    def test_with_a_signer_the_operator_reads_no_key(self):
        reads = lambda objects: [r for r in objects["Role", "freehold-operator"]["rules"] if "secrets" in r["resources"]]
        without = self.rendered()
        self.assertEqual(reads(without)[0]["resourceNames"], ["freehold-account"])
        self.assertIn("secret", without["ComputeAccount", "chart-test"]["spec"]["signerRef"])
        self.assertNotIn(("Deployment", "freehold-signer"), without)

        signed = self.rendered(*SIGNER)
        self.assertEqual(reads(signed), [])
        account = signed["ComputeAccount", "chart-test"]["spec"]
        self.assertEqual(account["signerRef"], {"url": "http://freehold-signer.chart-tenant-signer.svc:8080"})
        self.assertEqual(account["caps"], {"period": "24h", "tokens": "10", "fees": "0.1"})
        secrets = lambda name: [v["secret"] for v in signed["Deployment", name]["spec"]["template"]["spec"]["volumes"] if "secret" in v]
        self.assertEqual(secrets("freehold-operator"), [])
        self.assertEqual(len(secrets("freehold-signer")), 2)
        self.assertEqual(signed["Deployment", "freehold-signer"]["metadata"]["namespace"], "chart-tenant-signer")
        rules = signed["ClusterRole", "chart-tenant-freehold-signer"]["rules"]
        self.assertEqual(rules, [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}])
        self.assertFalse(any("signer" in name for kind, name in signed if kind == "Role"))

    def test_a_release_without_a_role_is_refused(self):
        self.assertNotEqual(sh("helm", "lint", CHART, "-f", self.values, check=False).returncode, 0)


class Release(unittest.TestCase):
    """Installed, upgraded and uninstalled beside the releases that are there."""

    NAMESPACE, ACCOUNT = "chart-live", "chart-live"
    # Account 3 of anvil's mnemonic: known to everybody, worth nothing anywhere else.
    KEY = "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"
    CLUSTER_KINDS = (
        "computeaccounts.freehold.dev,clusterroles,clusterrolebindings,"
        "validatingadmissionpolicies,validatingadmissionpolicybindings"
    )
    NAMESPACED_KINDS = "deployments,replicasets,pods,services,serviceaccounts,roles,rolebindings,networkpolicies"

    def helm(self, *arguments):
        return sh("helm", "-n", self.NAMESPACE, *arguments)

    def upgrade(self, *changes):
        settings = {
            "image": image("freehold"), "account.name": self.ACCOUNT, "account.chain.rpcUrls[0]": RPC,
            "tenant.enabled": "true", "tenant.trainerImage": image("trainer"),
        } | {f"account.{key}": deployment(key) for key in ("market", "providerRegistry", "token")}
        flags = [flag for setting in [*(f"{k}={v}" for k, v in settings.items()), *changes] for flag in ("--set", setting)]
        values = ROOT / "hack" / "e2e" / "values.yaml"
        self.helm("upgrade", "--install", "freehold", CHART, "--wait", "--timeout", "2m", "-f", values, *flags)
        kubectl("wait", "--for=condition=Ready", f"computeaccount/{self.ACCOUNT}", "--timeout=60s")

    def left(self):
        """Names of all objects that carry the release's label."""
        label = ("-l", f"freehold.dev/release={self.NAMESPACE}.freehold", "-o", "name", "--ignore-not-found")
        found = kubectl("get", self.CLUSTER_KINDS, *label).stdout
        return (found + kubectl("-n", self.NAMESPACE, "get", self.NAMESPACED_KINDS, *label).stdout).split()

    def test_install_upgrade_uninstall(self):
        kubectl("create", "namespace", self.NAMESPACE)
        try:
            kubectl("-n", self.NAMESPACE, "create", "secret", "generic", "freehold-account", f"--from-literal=key={self.KEY}")
            self.upgrade()
            first = get("deployment", "freehold-operator", self.NAMESPACE)
            self.upgrade("log=debug")
            second = get("deployment", "freehold-operator", self.NAMESPACE)
            self.assertEqual(second["metadata"]["uid"], first["metadata"]["uid"])
            self.assertGreater(second["metadata"]["generation"], first["metadata"]["generation"])
            self.assertGreater(len(self.left()), 10)
            self.helm("uninstall", "freehold", "--wait", "--timeout", "2m")
            until("nothing of the release is left", lambda: not self.left(), 60)
            self.assertIsNotNone(get("crd", "trainingtasks.freehold.dev"))
        finally:
            kubectl("delete", "namespace", self.NAMESPACE, "--wait=false")
            until("the namespace is gone", lambda: get("namespace", self.NAMESPACE) is None, 90)


if __name__ == "__main__":
    unittest.main()
