#!/usr/bin/env bash
# Lines and branches of the sources that unit and integration tests reach, without the random calls of test/invariant:
# a branch counts only where a test went on purpose.
# Usage: contracts/coverage.sh. Fails when Market.sol is below LEAST (95) per cent of either.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

LEAST=${LEAST:-95}

"$CONTRACTS/setup.sh"
cd "$CONTRACTS"
WORK=$CONTRACTS/cache/coverage
mkdir -p "$WORK"
# Compiled without the optimizer, hence artifacts of its own.
export FOUNDRY_OUT=$WORK/out FOUNDRY_CACHE_PATH=$WORK/cache
rm -f "$WORK/lcov.info"
forge coverage --no-match-path 'test/invariant/*' --no-match-coverage '^(test|script|node_modules)/' \
  --report lcov --report-file "$WORK/lcov.info" >"$WORK/log" 2>&1 || { tail -n 40 "$WORK/log" >&2; die "the tests fail"; }

awk -F: -v least="$LEAST" '
  function share(hit, all) { return all ? 100 * hit / all : 100 }
  $1 == "SF" { file = $2 }
  $1 == "LF" { lines = $2 }
  $1 == "LH" { line_hits = $2 }
  $1 == "BRF" { branches = $2 }
  $1 == "BRH" { branch_hits = $2 }
  $1 == "end_of_record" {
    if (!seen++) printf "%-30s %16s %16s\n", "file", "lines", "branches"
    printf "%-30s %5.1f%% (%d/%d) %8.1f%% (%d/%d)\n", file, share(line_hits, lines), line_hits, lines,
      share(branch_hits, branches), branch_hits, branches
    if (file == "src/Market.sol") {
      found = branches > 0
      low = share(line_hits, lines) < least || share(branch_hits, branches) < least
    }
  }
  END { exit !found || low }' "$WORK/lcov.info" || die "src/Market.sol is below $LEAST %"
