"""Alerts and dashboard of the chart: what they ask for is what the processes export, and each alert has its page.

Nothing here needs a cluster: the chart is rendered, and its expressions are held against
charts/freehold/files/metrics.txt, which `freehold metricsgen` writes from the processes' own pages.
"""

import json
import re
import unittest

import yaml

from lib import ROOT, sh

CHART = ROOT / "charts" / "freehold"
RUNBOOKS = ROOT / "docs" / "runbooks"
DIGEST = "freehold.dev/freehold@sha256:" + "0" * 63 + "1"
PROVIDER = ("provider.enabled=true", "provider.gatewayUrl=https://gpu.example")
TENANT = ("tenant.enabled=true", f"tenant.trainerImage={DIGEST}")
ALL_ON = (
    "metrics.prometheusRule.enabled=true", "metrics.serviceMonitor.enabled=true", "metrics.dashboard.enabled=true",
    "metrics.from[0].namespaceSelector.matchLabels.name=monitoring",
)
SECTIONS = ("**Means.**", "**At stake.**", "## Look", "## Do", "## Ends")
# Labels that Prometheus gives to what it reads.
GIVEN = {"namespace", "job"}


def render(*settings):
    flags = [flag for setting in settings for flag in ("--set", setting)]
    values = ROOT / "hack" / "e2e" / "values.yaml"
    text = sh("helm", "template", "rel", CHART, "-n", "ns", "--kube-version", "1.34.4", "-f", values, *flags).stdout
    return [item for item in yaml.safe_load_all(text) if item]


def of_kind(items, kind):
    return [item for item in items if item["kind"] == kind]


def dashboards(items):
    return [item for item in of_kind(items, "ConfigMap") if "grafana_dashboard" in item["metadata"]["labels"]]


def exported():
    """Labels of each exported series, by name."""
    lines = (CHART / "files" / "metrics.txt").read_text().splitlines()
    rows = [line.split()[1:] for line in lines if not line.startswith("#")]
    return {name: set(labels) for name, *labels in rows}


def selectors(expression):
    """(name, matchers) of each series that an expression names; matchers as (label, operator, value)."""
    found = []
    for name, inside in re.findall(r"\b(freehold_[a-z0-9_]+)(?:\{([^}]*)\})?", expression):
        found.append((name, re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', inside or "")))
    return found


class Alerts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.items = render(*PROVIDER, *ALL_ON)
        cls.rules = of_kind(cls.items, "PrometheusRule")[0]["spec"]["groups"][0]["rules"]
        cls.exported = exported()

    def check(self, expression):
        series = selectors(expression)
        self.assertTrue(series, f"no series in `{expression}`")
        for name, matchers in series:
            self.assertIn(name, self.exported)
            for label, _, _ in matchers:
                self.assertIn(label, self.exported[name] | GIVEN, f"{name} has no label {label}")

    def test_alerts_ask_for_what_is_exported(self):
        self.assertGreaterEqual(len(self.rules), 16)
        for rule in self.rules:
            with self.subTest(alert=rule["alert"]):
                self.check(rule["expr"])
                left = re.findall(r"\b[A-Z][A-Z_]{3,}\b", re.sub(r'"[^"]*"', "", rule["expr"]))
                self.assertEqual(left, [], "a placeholder that the template did not fill")

    def test_alerts_look_at_this_release_alone(self):
        """Two releases share a cluster; job and namespace are those of the Services that are scraped."""
        jobs = {(s["metadata"]["namespace"], s["metadata"]["name"]) for s in of_kind(self.items, "Service")}
        for rule in self.rules:
            for name, matchers in selectors(rule["expr"]):
                with self.subTest(alert=rule["alert"], series=name):
                    exact = {label: value for label, operator, value in matchers if operator == "="}
                    self.assertIn((exact.get("namespace"), exact.get("job")), jobs)

    def test_every_alert_says_what_it_is_and_has_a_page(self):
        for rule in self.rules:
            with self.subTest(alert=rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))
                told = rule["annotations"]
                self.assertTrue(told["summary"] and told["description"])
                self.assertTrue(told["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md"))
                page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
                for section in SECTIONS:
                    self.assertIn(section, page)
                # What a template of an alert names, its series must have.
                series = [self.exported[name] for name, _ in selectors(rule["expr"])]
                for label in re.findall(r"\$labels\.(\w+)", told["summary"] + told["description"]):
                    self.assertTrue(all(label in labels for labels in series), f"{label} is not on every series")

    def test_every_page_has_its_alert(self):
        pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
        self.assertEqual(pages, {rule["alert"] for rule in self.rules})
        listed = set(re.findall(r"\((Freehold\w+)\.md\)", (RUNBOOKS / "README.md").read_text()))
        self.assertEqual(listed, pages)

    def test_pages_name_columns_that_exist(self):
        """`# columns A, B` beside a command: a CRD of the chart has each of them."""
        columns = set()
        for path in (ROOT / "crds").glob("*.yaml"):
            version = yaml.safe_load(path.read_text())["spec"]["versions"][0]
            columns |= {column["name"].upper() for column in version["additionalPrinterColumns"]}
        seen = 0
        for path in RUNBOOKS.glob("Freehold*.md"):
            for text in re.findall(r"columns? ([A-Z/]+(?:, [A-Z/]+)*)", path.read_text()):
                for name in text.split(", "):
                    seen += 1
                    with self.subTest(page=path.name, column=name):
                        self.assertIn(name, columns)
        self.assertGreater(seen, 10)

    def test_dashboard_shows_what_is_exported(self):
        made = dashboards(self.items)[0]
        self.assertEqual(made["metadata"]["labels"]["grafana_dashboard"], "1")
        board = json.loads(made["data"]["freehold.json"])
        targets = [target for panel in board["panels"] for target in panel.get("targets", [])]
        self.assertGreater(len(targets), 20)
        for target in targets:
            with self.subTest(expression=target["expr"]):
                self.check(target["expr"])
                # A legend names labels that the series keep.
                kept = set.union(*(self.exported[name] for name, _ in selectors(target["expr"])))
                self.assertLessEqual(set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])), kept)


class Monitoring(unittest.TestCase):
    def test_nothing_of_it_is_rendered_unless_asked_for(self):
        items = render(*PROVIDER)
        for kind in ("ServiceMonitor", "PrometheusRule"):
            self.assertEqual(of_kind(items, kind), [])
        self.assertEqual(dashboards(items), [])

    def test_each_process_is_scraped_where_it_listens(self):
        for roles, components in ((PROVIDER, {"operator", "gateway", "agent"}), (TENANT, {"operator"})):
            items = render(*roles, *ALL_ON)
            monitors = of_kind(items, "ServiceMonitor")
            self.assertEqual(len(monitors), len(components))
            for monitor in monitors:
                wanted = monitor["spec"]["selector"]["matchLabels"].items()
                services = [s for s in of_kind(items, "Service") if wanted <= s["metadata"]["labels"].items()]
                self.assertEqual(len(services), 1, monitor["metadata"]["name"])
                pods = [
                    w["spec"]["template"] for w in of_kind(items, "Deployment") + of_kind(items, "DaemonSet")
                    if services[0]["spec"]["selector"].items() <= w["spec"]["template"]["metadata"]["labels"].items()
                ]
                self.assertEqual(len(pods), 1)
                ports = {p["name"]: p["containerPort"] for p in pods[0]["spec"]["containers"][0]["ports"]}
                self.assertEqual(services[0]["spec"]["ports"][0]["port"], ports["metrics"])

    def test_metrics_are_read_by_those_alone_that_the_values_name(self):
        def opened(settings):
            """Component to the peers that each of its open ports has; None for everybody."""
            out = {}
            for policy in of_kind(render(*PROVIDER, *settings), "NetworkPolicy"):
                component = policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                rules = policy["spec"].get("ingress", [])
                out[component] = {port["port"]: rule.get("from") for rule in rules for port in rule["ports"]}
            return out

        shut = {"operator": {"http": None}, "gateway": {"public": None, "courier": None}, "agent": {}}
        self.assertEqual(opened(()), shut)
        peers = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
        self.assertEqual(opened(ALL_ON), {name: ports | {"metrics": peers} for name, ports in shut.items()})

    def test_wrong_values_are_refused(self):
        for setting in ("metrics.serviceMonitors.enabled=true", "metrics.prometheusRule.gasLow=none", "logFormat=xml"):
            done = sh("helm", "lint", CHART, "-f", ROOT / "hack/e2e/values.yaml", "--set", setting,
                      *(flag for value in TENANT for flag in ("--set", value)), check=False)
            self.assertNotEqual(done.returncode, 0, setting)


if __name__ == "__main__":
    unittest.main()
