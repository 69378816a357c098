"""What the journeys share: kubectl as some user, waiting for conditions, tasks, the chain, injected faults.

Nothing here sleeps for a fixed time: `until` looks again until a condition holds or its time is over, and
then says what it saw last.
"""

import copy
import json
import os
import pathlib
import ssl
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "freehold"
STATE = CACHE / "clusters" / "dev"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target"))
ENV = os.environ | {
    "KUBECONFIG": os.environ.get("KUBECONFIG", str(STATE / "kubeconfig")),
    "PATH": f"{CACHE / 'bin'}:{os.environ['PATH']}",
}
RPC = f"http://{os.environ.get('CHAIN_HOST') or '10.101.0.1'}:8545"
RESEARCHER = "system:serviceaccount:demo:researcher"
TENANT_NS, PROVIDER_NS = "freehold-tenant", "freehold-provider"


class Failed(AssertionError):
    pass


def sh(*command, check=True, stdin=None, env=None):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, input=stdin, env=env or ENV, check=False
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def kubectl(*arguments, user=None, check=True, stdin=None):
    who = (f"--as={user}",) if user else ()
    return sh("kubectl", *who, *arguments, check=check, stdin=stdin)


def get(kind, name, namespace=None):
    """The object, or None."""
    where = ("-n", namespace) if namespace else ()
    done = kubectl(*where, "get", kind, name, "-o", "json", "--ignore-not-found")
    return json.loads(done.stdout) if done.stdout.strip() else None


def api(path, token):
    """Status of a real request with a real token, past kubectl."""
    config = json.loads(sh("kubectl", "config", "view", "--raw", "--minify", "-o", "json").stdout)
    server = config["clusters"][0]["cluster"]["server"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(server + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def items(kind, namespace=None, selector=None):
    where = ("-n", namespace) if namespace else ("-A",)
    chosen = ("-l", selector) if selector else ()
    return json.loads(kubectl("get", kind, *where, *chosen, "-o", "json").stdout)["items"]


def apply(*objects, user=None, check=True):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    return kubectl("apply", "-f", "-", user=user, check=check, stdin=text)


def until(what, look, seconds=60):
    """`look` returns something true, or the time is over."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.3)


def condition(item, name):
    found = [c for c in (item or {}).get("status", {}).get("conditions", []) if c["type"] == name]
    return found[0] if found else None


def state(kind, name, namespace="demo"):
    return ((get(kind, name, namespace) or {}).get("status") or {}).get("state")


def wait_condition(kind, name, which, status="True", reason=None, namespace="demo", seconds=120):
    """The condition, once it has this status and reason; None is any."""
    last = {}

    def look():
        item = get(kind, name, namespace)
        last["item"] = item
        found = condition(item, which)
        fits = found and status in (None, found["status"]) and reason in (None, found["reason"])
        return found if fits else None

    try:
        return until(f"{kind}/{name} {which}={status} {reason or ''}", look, seconds)
    except Failed as failed:
        conditions = ((last["item"] or {}).get("status") or {}).get("conditions", [])
        seen = "; ".join(f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in conditions)
        raise Failed(f"{failed}; it has: {seen}") from None


def manifest(path):
    """A manifest of examples/ as an object."""
    done = sh("kubectl", "create", "--dry-run=client", "-o", "json", "-f", ROOT / "examples" / path)
    return json.loads(done.stdout)


def task(name, steps=2500, **changes):
    """The example's training task under another name; `changes` are dotted paths with __ for the dot."""
    out = copy.deepcopy(manifest("training-task.yaml"))
    out["metadata"]["name"] = name
    out["spec"]["trainer"]["recipe"]["steps"] = steps
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = out["spec"]
        for key in parents:
            node = node[key]
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return out


def long_task(name, steps=400_000, **changes):
    """A task that runs for minutes and writes a checkpoint every few seconds."""
    out = task(name, steps=steps, **changes)
    # Two of these have to fit on the development node's two cores, beside what runs there.
    out["spec"]["resources"]["cpu"] = "500m"
    recipe = out["spec"]["trainer"]["recipe"]
    recipe["checkpoint"] = {"every": "3s", "keepLast": 2}
    recipe["evaluate"] = {"every": 5000, "metrics": ["loss"]}
    return out


def namespace_for(name, *accounts):
    """A namespace whose tasks may spend from these accounts, as an administrator would make it."""
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    apply({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "freehold-data", "namespace": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "freehold-tenant-freehold-data"},
        "subjects": [{"kind": "ServiceAccount", "name": "freehold-operator", "namespace": TENANT_NS}],
    }, {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits", "namespace": name},
        "binaryData": get("configmap", "digits", "demo")["binaryData"],
    }, *[{
        "apiVersion": "freehold.dev/v1alpha1", "kind": "ComputeBudget", "metadata": {"name": account, "namespace": name},
        "spec": {"accountRef": {"name": account}, "limit": "2", "period": "720h"},
    } for account in accounts])


def in_namespace(item, namespace):
    item["metadata"]["namespace"] = namespace
    return item


def delete(kind, name, namespace="demo", seconds=150):
    kubectl("-n", namespace, "delete", kind, name, "--ignore-not-found", "--wait=false")
    until(f"{kind}/{name} is gone", lambda: get(kind, name, namespace) is None, seconds)


def lease_of(order):
    """The provider's ComputeLease of an order."""
    found = [item for item in items("computeleases", PROVIDER_NS) if item["spec"]["orderId"] == order]
    return found[0] if found else None


def lease_pod(order):
    lease = lease_of(order)
    pods = items("pods", lease["spec"]["namespace"]) if lease else []
    live = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return live[0] if live else None


def deployment(key):
    return json.loads((ROOT / "deployments" / "31337.json").read_text())[key]


def audit(order, rpc=RPC, check=True):
    binary = TARGET / "debug" / "freehold"
    return sh(binary, "audit", "lease", order, "--rpc", rpc, "--market", deployment("market"), "-o", "json", check=check)


def image(name):
    return json.loads((STATE / "images.json").read_text())[name]


def gpuctl(*arguments):
    return sh(ROOT / "hack" / "fake-nvml" / "gpuctl", *arguments)


def scale(namespace, name, replicas, seconds=90):
    kubectl("-n", namespace, "scale", f"deployment/{name}", f"--replicas={replicas}")

    def settled():
        pods = items("pods", namespace, f"app.kubernetes.io/component={name.rsplit('-', 1)[-1]}")
        ready = [p for p in pods if (condition(p, "Ready") or {}).get("status") == "True"]
        return len(pods) == replicas and len(ready) == replicas

    until(f"{namespace}/{name} has {replicas} pods", settled, seconds)
