"""Holds Slither's findings against triage.toml, where each is explained: one that is not there fails, and so does an
explanation of something that is no longer found. Usage: triage.py FINDINGS.json TRIAGE.toml"""

import json
import re
import sys
import tomllib

found_file, triage_file = sys.argv[1:]
results = json.load(open(found_file))
if not results["success"]:
    sys.exit(f"error: slither did not finish: {results['error']}")


def finding(result):
    """What is wrong with what, without the lines it is on: they move with every edit."""
    text = re.sub(r" \((src|node_modules)/[^)]*\)", "", result["description"])
    return result["check"], " ".join(text.split())


found = [finding(result) for result in results["results"].get("detectors", [])]
entries = tomllib.load(open(triage_file, "rb"))["explained"]
explained = [(entry["check"], text) for entry in entries for text in entry["findings"]]
unreasoned = [entry["check"] for entry in entries if len(entry["reason"].split()) < 5]

new = [f for f in found if f not in explained]
stale = [f for f in explained if f not in found]
twice = {f for f in found + explained if max(found.count(f), explained.count(f)) > 1}
for problem, findings in (("not explained", new), ("explained, but not found", stale), ("not told apart", twice)):
    for check, text in findings:
        print(f"error: {problem}: {check}: {text}", file=sys.stderr)
for check in unreasoned:
    print(f"error: no reason: {check}", file=sys.stderr)
print(f"slither: {len(found)} findings, {len(found) - len(new)} explained in {triage_file}")
sys.exit(bool(new or stale or twice or unreasoned))
