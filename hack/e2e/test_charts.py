"""The charts: lint, rendered objects against the API server, values that must be refused."""

import unittest

from lib import ROOT, kubectl, sh

CHART = ROOT / "charts" / "freehold"
DIGEST = "freehold.dev/freehold@sha256:" + "0" * 63 + "1"


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
        ):
            with self.subTest(namespace=namespace):
                flags = [flag for setting in settings for flag in ("--set", setting)]
                rendered = sh(
                    "helm", "template", "freehold", CHART, "-n", namespace, "--kube-version", "1.34.4",
                    "-f", self.values, *flags,
                ).stdout
                # A server-side dry run needs the namespaces to exist.
                made = [namespace, f"{namespace}-agent"]
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
        ):
            with self.subTest(setting=setting):
                done = sh(
                    "helm", "lint", CHART, "-f", self.values, "--set", "tenant.enabled=true",
                    "--set", f"tenant.trainerImage={DIGEST}", "--set", setting, check=False,
                )
                self.assertNotEqual(done.returncode, 0, setting)
                self.assertIn(named, done.stdout + done.stderr)

    def test_a_release_without_a_role_is_refused(self):
        self.assertNotEqual(sh("helm", "lint", CHART, "-f", self.values, check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
