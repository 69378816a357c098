"""The table of a fuzzing run, from libFuzzer's own lines. Usage: fuzz-report.py LOGS CORPUS JSON <PARSERS"""

import json
import os
import pathlib
import re
import sys

logs, corpus, out = (pathlib.Path(name) for name in sys.argv[1:4])


def last(pattern, text):
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def row(line):
    name, _, reads, half = line.rstrip("\n").split("\t")
    text = (logs / f"{name}.log").read_text(errors="replace")
    status = int((logs / f"{name}.status").read_text())
    return {
        "parser": name,
        "reads": reads,
        "program": str(logs / f"freehold-fuzz-{half}"),
        "runs": last(r"stat::number_of_executed_units:\s*(\d+)", text),
        "perSecond": last(r"stat::average_exec_per_sec:\s*(\d+)", text),
        "edges": last(r"cov: (\d+)", text),
        "features": last(r"ft: (\d+)", text),
        "corpus": sum(1 for _ in (corpus / name).iterdir()),
        "peakMiB": last(r"stat::peak_rss_mb:\s*(\d+)", text),
        "crashes": sorted(set(re.findall(r"Test unit written to (\S+-(?:crash|timeout|oom|leak)-\S+)", text))),
        "status": status,
    }


rows = [row(line) for line in sys.stdin]
form = "{:<12}{:>13}{:>11}{:>8}{:>10}{:>8}{:>6}{:>9}"
print(form.format("parser", "runs", "runs/s", "edges", "features", "corpus", "MiB", "crashes"))
for r in rows:
    shown = [f"{r['runs']:,}", f"{r['perSecond']:,}", f"{r['edges']:,}", f"{r['features']:,}", r["corpus"], r["peakMiB"]]
    print(form.format(r["parser"], *shown, len(r["crashes"])))
runs = sum(r["runs"] for r in rows)
found = [r for r in rows if r["status"] or r["crashes"]]
print(f"{len(rows)} parsers, {runs:,} runs, {sum(len(r['crashes']) for r in rows)} crashes")
seed, minutes = int(os.environ["SEED"]), float(os.environ["FUZZ_MINUTES"])
out.write_text(json.dumps({"seed": seed, "minutes": minutes, "parsers": rows}, indent=1) + "\n")
for r in found:
    print(f"error: {r['parser']} ended with status {r['status']}; the end of {logs / r['parser']}.log says why", file=sys.stderr)
    for path in r["crashes"]:
        print(f"  repeat: FREEHOLD_FUZZ={r['parser']} {r['program']} {path}", file=sys.stderr)
        print(f"  keep:   cp {path} fuzz/regressions/{r['parser']}/", file=sys.stderr)
sys.exit(1 if found or not runs else 0)
