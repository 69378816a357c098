#!/usr/bin/env python3
"""The demo's result as a table and as out/demo.json.

Everything is read from where it lives: objects from the cluster, money from
`freehold audit` (which reads the chain alone), predictions from the tenant's
store over the operator's artifact endpoint, as the tenant's user.
"""

import argparse
import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def kubectl(*arguments: str):
    return json.loads(run("kubectl", *arguments, "-o", "json"))


def artifact(kind: str, name: str, artifact_name: str) -> bytes:
    """A result file, fetched as the tenant's user."""
    service = kubectl("-n", "freehold-tenant", "get", "service", "freehold-operator")
    token = run("kubectl", "-n", "demo", "create", "token", "researcher").strip()
    address = service["spec"]["clusterIP"]
    url = f"http://{address}:8080/v1/namespaces/demo/{kind}/{name}/artifacts/{artifact_name}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def audit(order: str, rpc: str, market: str) -> dict:
    binary = pathlib.Path(os.environ["CARGO_TARGET_DIR"]) / "debug" / "freehold"
    return json.loads(run(str(binary), "audit", "lease", order, "--rpc", rpc, "--market", market, "-o", "json"))


def whole(units: int, decimals: int) -> str:
    text = f"{units / 10**decimals:.{decimals}f}".rstrip("0").rstrip(".")
    return text or "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rpc", required=True)
    parser.add_argument("--market", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    options = parser.parse_args()

    task = kubectl("-n", "demo", "get", "trainingtask", "digits")["status"]
    order = task["orderId"]
    leases = kubectl("-n", "freehold-provider", "get", "computeleases")["items"]
    lease = next((item for item in leases if item["spec"]["orderId"] == order), None)
    if lease is None:
        sys.exit(f"error: no ComputeLease for order {order} in namespace freehold-provider")
    decimals = kubectl("get", "computeaccount", "team-a")["status"]["decimals"]
    books = audit(order, options.rpc, options.market)

    rows = list(csv.DictReader(io.StringIO(artifact("inferencetasks", "digits-test", "predictions.csv").decode())))
    labels = [row["label"] for row in csv.DictReader((ROOT / "examples/data/digits-test-labels.csv").open())]
    if len(rows) != len(labels):
        sys.exit(f"error: {len(rows)} predictions for {len(labels)} test rows")
    right = sum(row["prediction"] == label for row, label in zip(rows, labels))
    accuracy = right / len(labels)

    result = {
        "accuracy": round(accuracy, 6),
        "provider": task["provider"],
        "gpuUuid": ",".join(lease["status"]["gpus"]),
        "orderId": order,
        "funded": books["totals"]["funded"],
        "paid": books["totals"]["paid"],
        "refunded": books["totals"]["refunded"],
        "burned": books["totals"]["burned"],
        "transactions": [entry["transaction"] for entry in books["transitions"]],
        "predictions": [
            {"row": index, "label": label, "prediction": row["prediction"]}
            for index, (row, label) in enumerate(zip(rows, labels))
        ],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")

    lines = [
        ("test accuracy", f"{accuracy:.4f}  ({right} of {len(labels)} rows that no provider had labels for)"),
        ("provider", result["provider"]),
        ("GPU", result["gpuUuid"]),
        ("order", order),
        ("rate", f"{task['ratePerHour']} tokens an hour"),
        ("funded", f"{whole(int(result['funded']), decimals)} tokens"),
        ("paid", f"{whole(int(result['paid']), decimals)} tokens"),
        ("refunded", f"{whole(int(result['refunded']), decimals)} tokens"),
        ("burned", f"{whole(int(result['burned']), decimals)} tokens"),
        ("transactions", str(len(result["transactions"]))),
        ("predictions", " ".join(f"{p['label']}→{p['prediction']}" for p in result["predictions"][:12]) + " …"),
    ]
    print()
    for name, value in lines:
        print(f"  {name:<14} {value}")
    print(f"  written to     {options.out}")
    if accuracy < 0.95:
        sys.exit(f"error: test accuracy {accuracy:.4f} is below 0.95")


if __name__ == "__main__":
    main()
