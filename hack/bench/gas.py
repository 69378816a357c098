"""Gas of each call and of the happy path, whole transactions, beside the peers of peers.json."""

import json
import pathlib
import re
import subprocess

import common
from common import ROOT, record, run_part, say, table

PEERS = json.loads((pathlib.Path(__file__).parent / "peers.json").read_text())


def measured():
    say("gas: each call on a chain of its own, some 40 s …")
    done = subprocess.run([ROOT / "contracts" / "gas.sh"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise common.lib.Failed(f"contracts/gas.sh: {done.stderr.strip() or done.stdout.strip()}")
    return {name: int(gas) for name, gas in re.findall(r"^(\w+) (\d+)$", done.stdout, re.M)}


def compared(ours):
    for pair in PEERS["compare"]:
        mine = sum(ours[name] for name in pair["ours"])
        theirs = sum(PEERS["gas"][pair["peer"]][name] for name in pair["theirs"])
        yield {**pair, "gas": mine, "peerGas": theirs, "ratio": round(mine / theirs, 3)}


def main():
    ours, ceilings = measured(), PEERS["ceilings"]
    rows = [
        (name, f"{gas:,}", f"{ceilings[name]:,}" if name in ceilings else "", f"{gas / ceilings[name]:.2f}" if name in ceilings else "")
        for name, gas in ours.items()
    ]
    table("Gas of each call (whole transactions; happy_path: seven, from order to withdrawal)", ("call", "gas", "ceiling", "of it"), rows)
    pairs = list(compared(ours))
    rows = [
        (f"{p['what']}, beside {p['peer']}: {' + '.join(p['theirs'])}", f"{p['gas']:,}", f"{p['peerGas']:,}", f"{p['ratio']:.2f}")
        for p in pairs
    ]
    notes = ["ratio: Freehold's gas to the peer's, by the same method; below 1 is cheaper. Sources: hack/bench/peers.json"]
    table("Gas beside peers", ("step", "Freehold", "peer", "ratio"), rows, notes)
    record("gas", {"calls": ours, "ceilings": ceilings, "compared": pairs, "sources": PEERS["sources"]})


run_part(main)
