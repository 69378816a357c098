#!/usr/bin/env bash
# What reads the contracts instead of running them. Slither: each finding must be explained in analysis/triage.toml.
# halmos: each check of test/symbolic must hold for all values.
# Usage: contracts/analyse.sh [slither|halmos]
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Seconds for one question to the solver. A question that takes longer fails the command.
PATIENCE=60

# python_tool NAME: a virtual environment with the packages of analysis/NAME.txt, kept in the cache, is put on PATH, and
# artifacts are the tool's own: each asks the compiler for other outputs.
python_tool() {
  local pins=$CONTRACTS/analysis/$1.txt kept lock
  kept=$CACHE/tools/$1-$( (python3 --version; cat "$pins") | sha256sum | cut -c1-16)
  mkdir -p "$CACHE/tools" "$CACHE/locks"
  exec {lock}>"$CACHE/locks/$1"
  flock "$lock"
  if [[ ! -e $kept/complete ]]; then
    rm -rf "$CACHE/tools/$1"-????????????????
    python3 -m venv "$kept"
    "$kept/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$pins"
    touch "$kept/complete"
  fi
  exec {lock}>&-
  export PATH=$kept/bin:$PATH FOUNDRY_OUT=cache/analysis/$1 FOUNDRY_CACHE_PATH=cache/analysis/$1-cache
}

slither_findings() {
  python_tool slither
  rm -f "$WORK/slither.json"
  # It exits with an error when it finds anything; whether that is explained, and whether it finished, is asked next.
  slither . --filter-paths node_modules --json "$WORK/slither.json" >"$WORK/slither.log" 2>&1 || true
  [[ -s $WORK/slither.json ]] || { tail -n 20 "$WORK/slither.log" >&2; die "slither did not run"; }
  python3 analysis/triage.py "$WORK/slither.json" analysis/triage.toml
}

# A check that fails, takes too long or cannot be explored whole makes halmos exit with an error; one that is missing
# from its report would not, so they are counted too.
symbolic_checks() {
  python_tool halmos
  local written proved
  halmos --match-contract SymbolicTest --function check_ --forge-build-out "$FOUNDRY_OUT" --loop 8 \
    --solver-command "$(command -v python) $CONTRACTS/analysis/solver.py" --solver-timeout-assertion $((PATIENCE * 1000)) --solver-threads "$(nproc)" --no-status 2>&1 |
    tee "$WORK/halmos.log" | sed 's/\x1b\[[0-9;]*m//g' | grep -E '^\[|^Counterexample|^ +p_|^Symbolic test result' ||
    die "halmos did not prove everything: $WORK/halmos.log"
  written=$(cat test/symbolic/*.t.sol | grep -c 'function check_')
  proved=$(grep -c 'PASS.*check_' "$WORK/halmos.log" || true)
  printf 'halmos: %d of %d checks hold for all values\n' "$proved" "$written"
  ((proved == written)) || die "not everything was proved: $WORK/halmos.log"
}

"$CONTRACTS/setup.sh"
cd "$CONTRACTS"
WORK=$CONTRACTS/cache/analysis
mkdir -p "$WORK"
export FOUNDRY_LINT_LINT_ON_BUILD=false
case ${1:-all} in
  slither) slither_findings ;;
  halmos) symbolic_checks ;;
  all)
    slither_findings
    symbolic_checks
    ;;
  *) die "usage: $0 [slither|halmos]" ;;
esac
