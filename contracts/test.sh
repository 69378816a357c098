#!/usr/bin/env bash
# Everything that speaks for the contracts: format, ABI, trees, unit, fuzz and invariant tests, gas.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

"$CONTRACTS/setup.sh"
cd "$CONTRACTS"
forge fmt --check
python3 test/check-trees.py
# Figures of snapshots/LeafCourt.json have to be those that the tests measure.
FORGE_SNAPSHOT_CHECK=true flock "$CACHE/locks/contracts" forge test --summary
./check-abi.sh
./gas.sh check
