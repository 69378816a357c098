"""What the parts of the benchmark share: tables, out/bench.json, the chain's head, and a namespace of their own."""

import bisect
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "hack" / "e2e"))
import lib  # noqa: E402

OUT = ROOT / "out" / "bench.json"
NAMESPACE = "bench"
TASKS = f"/apis/freehold.dev/v1alpha1/namespaces/{NAMESPACE}/trainingtasks"


def say(text):
    print(text, flush=True)


def setting(name, default):
    """A number from the environment."""
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        sys.exit(f'error: {name} is "{text}"; set a whole number')


def table(title, header, rows, notes=()):
    """Prints columns: the first to the left, figures to the right."""
    cells = [list(map(str, row)) for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    say(f"\n{title}")
    for row in cells:
        first, rest = row[0].ljust(widths[0]), [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        say("  " + "  ".join([first, *rest]).rstrip())
    for note in notes:
        say(f"  {note}")


def record(part, result):
    """Puts one part's figures into out/bench.json; the others' stay."""
    OUT.parent.mkdir(exist_ok=True)
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    measured = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    known[part] = {"measuredAt": measured, "processors": os.cpu_count(), "load1m": os.getloadavg()[0], **result}
    OUT.write_text(json.dumps(known, indent=2) + "\n")


def rpc(method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(lib.RPC, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["result"]


class Heads(threading.Thread):
    """Notes when each block was first seen, so that any moment since the start has a block number."""

    def __init__(self):
        super().__init__(daemon=True)
        self.times, self.numbers = [], []
        self.over = threading.Event()
        self.look()

    def look(self):
        number = int(rpc("eth_blockNumber"), 16)
        if not self.numbers or number > self.numbers[-1]:
            self.times.append(time.time())
            self.numbers.append(number)

    def run(self):
        while not self.over.wait(0.2):
            try:
                self.look()
            except OSError:
                pass  # a busy chain; the next look sees the same block

    def at(self, moment):
        return self.numbers[max(bisect.bisect_right(self.times, moment) - 1, 0)]


def tenancy(limit, most_orders):
    """What examples/tenant.yaml sets up, for the benchmark's own namespace and with its own budget."""
    shown = lib.kubectl("create", "--dry-run=client", "-o", "json", "-f", ROOT / "examples" / "tenant.yaml").stdout
    objects, decoder, rest = [], json.JSONDecoder(), shown.strip()
    while rest:
        item, end = decoder.raw_decode(rest)
        objects += item["items"] if item["kind"] == "List" else [item]
        rest = rest[end:].strip()
    objects = json.loads(json.dumps(objects).replace('"namespace": "demo"', f'"namespace": "{NAMESPACE}"'))
    for item in objects:
        if item["kind"] == "Namespace":
            item["metadata"]["name"] = NAMESPACE
        if item["kind"] == "ComputeBudget":
            item["spec"] = {"accountRef": item["spec"]["accountRef"], "limit": limit, "maxConcurrent": most_orders}
    return objects


def task(name, **changes):
    out = lib.task(name, **changes)
    out["metadata"]["namespace"] = NAMESPACE
    return out


def tasks_left():
    return lib.kubectl("-n", NAMESPACE, "get", "trainingtasks", "-o", "name", "--ignore-not-found").stdout.count("\n")


def clear(seconds=300):
    """Deletes all tasks, waits until the operator has ended their orders, then deletes the namespace."""
    if lib.get("namespace", NAMESPACE) is None:
        return
    lib.kubectl("delete", "--raw", TASKS, check=False)
    end, said = time.monotonic() + seconds, time.monotonic()
    while left := tasks_left():
        if time.monotonic() > end:
            say(f"  {left} tasks are still being ended: kubectl -n {NAMESPACE} get tt; the namespace goes after them")
            break
        if time.monotonic() - said > 30:
            said = time.monotonic()
            say(f"  cleaning up: {left} tasks left")
        time.sleep(2)
    lib.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
    if not left:
        lib.until(f"namespace {NAMESPACE} is gone", lambda: lib.get("namespace", NAMESPACE) is None, 120)


class Workplace:
    """The namespace with budget, right to spend and data; gone afterwards, whatever happens."""

    def __init__(self, limit, most_orders, cleanup_seconds=300):
        self.tenancy = limit, most_orders
        self.cleanup_seconds = cleanup_seconds

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        clear()
        try:
            lib.apply(*tenancy(*self.tenancy))
            data = ROOT / "examples" / "data" / "digits-train.csv.gz"
            lib.kubectl("-n", NAMESPACE, "create", "configmap", "digits", f"--from-file={data.name}={data}")
        except BaseException:
            clear()
            raise
        return self

    def __exit__(self, *_):
        # One signal ends the part, a second one (`timeout` sends two) must not end the cleaning up.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        clear(self.cleanup_seconds)


def run_part(main):
    """A failure is one sentence; what it left is already cleaned up."""
    try:
        main()
    except (lib.Failed, OSError, subprocess.SubprocessError) as failed:
        sys.exit(f"error: {failed}")
