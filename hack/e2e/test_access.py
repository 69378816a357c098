"""Who may see and spend what: tenant and provider apart, `spend`, the outbox, the fence."""

import unittest

from lib import PROVIDER_NS, RESEARCHER, TENANT_NS, api, apply, delete, get, kubectl, task

OPERATOR = {ns: f"system:serviceaccount:{ns}:freehold-operator" for ns in (TENANT_NS, PROVIDER_NS)}


class Access(unittest.TestCase):
    def test_tenant_and_provider_cannot_read_each_other(self):
        for mine, other in ((TENANT_NS, PROVIDER_NS), (PROVIDER_NS, TENANT_NS)):
            user = OPERATOR[mine]
            token = kubectl("-n", mine, "create", "token", "freehold-operator").stdout.strip()
            for resource, path in (
                ("secrets", f"/api/v1/namespaces/{other}/secrets"),
                ("configmaps", f"/api/v1/namespaces/{other}/configmaps"),
                ("chaintransactions.freehold.dev", f"/apis/freehold.dev/v1alpha1/namespaces/{other}/chaintransactions"),
                ("computeleases.freehold.dev", f"/apis/freehold.dev/v1alpha1/namespaces/{other}/computeleases"),
            ):
                with self.subTest(user=user, resource=resource):
                    asked = kubectl("auth", "can-i", "list", resource, "-n", other, user=user, check=False)
                    self.assertEqual(asked.stdout.strip(), "no")
                    self.assertEqual(api(path, token), 403)
            self.assertEqual(api(f"/apis/freehold.dev/v1alpha1/namespaces/{mine}/chaintransactions", token), 200)

    def test_an_editor_without_spend_is_told_the_role(self):
        apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "editor", "namespace": "demo"}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "editor", "namespace": "demo"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
                "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": "demo"}],
            },
        )
        editor = "system:serviceaccount:demo:editor"
        refused = apply(task("no-spend", suspend=True), user=editor, check=False)
        self.assertNotEqual(refused.returncode, 0)
        for word in ("spend", "computeaccounts/team-a", "Role", "demo"):
            self.assertIn(word, refused.stderr)
        # With the right, the same object is taken; the editor may not raise its budget afterwards.
        apply(task("no-spend", suspend=True), user=RESEARCHER)
        try:
            raised = apply(task("no-spend", suspend=True, market__budget="3.00"), user=editor, check=False)
            self.assertIn("spend", raised.stderr)
        finally:
            delete("trainingtask", "no-spend")

    def test_the_outbox_is_the_operators_own(self):
        entry = {
            "apiVersion": "freehold.dev/v1alpha1",
            "kind": "ChainTransaction",
            "metadata": {"name": "forged", "namespace": TENANT_NS},
            "spec": {"account": "team-a", "goal": {"void": {"nonce": 0}}},
        }
        refused = apply(entry, check=False)
        self.assertIn("outbox belongs to the operator", refused.stderr)
        self.assertIsNone(get("chaintransaction", "forged", TENANT_NS))

    def test_the_fence_keeps_the_operator_in_lease_namespaces(self):
        user = OPERATOR[PROVIDER_NS]
        job = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "escape", "namespace": "kube-system"},
        }
        refused = apply(job, user=user, check=False)
        self.assertNotEqual(refused.returncode, 0)
        labelled = kubectl("label", "namespace", "kube-system", "freehold.dev/x=y", user=user, check=False)
        self.assertNotEqual(labelled.returncode, 0)


if __name__ == "__main__":
    unittest.main()
