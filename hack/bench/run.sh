#!/usr/bin/env bash
# Speed, memory and gas, as tables with ratios: the seam between cluster and chain, the operator's memory, the
# trainer beside Python PyTorch, and each call's gas beside its peers'. Nothing here passes or fails by a figure.
# Usage: hack/bench/run.sh [gas|trainer|lease|memory …]   (default: all four; README.md says what may be set)
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
export RESUME="make bench"
BENCH=$HACK/bench

# The parts on the cluster measure the demo's releases; without them the demo is run first.
releases() {
  kubectl wait --for=condition=Ready --timeout=5s computeaccount/team-a computeaccount/provider-a >/dev/null 2>&1 ||
    "$HACK/demo.sh"
}

trainer_is_built() { [[ -x $CARGO_TARGET_DIR/debug/freehold-trainer && -d $CACHE/libtorch/lib ]] || "$HACK/up.sh"; }

part() {
  case $1 in
    gas) ;;
    trainer) trainer_is_built ;;
    lease | memory) releases ;;
    *) die "usage: hack/bench/run.sh [gas|trainer|lease|memory …]" ;;
  esac
  python3 "$BENCH/$1.py"
}

for name in "${@:-all}"; do
  if [[ $name == all ]]; then
    for each in gas trainer lease memory; do part "$each"; done
  else
    part "$name"
  fi
done
say ""
say "written to $ROOT/out/bench.json"
