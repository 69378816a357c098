#!/usr/bin/env bash
# All tests but the journey of devices (make journeys), on this machine: units, contracts, drift of generated files, then
# the cluster, the chain and each user's journey on real parts. One summary line at the end.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export RESUME="make test"
cd "$ROOT"

# Counts come from the runners' own closing lines, never from us.
COUNTS=$LOGS/test-counts
: >"$COUNTS"

# counted COMMAND…: runs it, and adds what cargo, forge, go and unittest say of passed and failed tests.
counted() {
  local log counts rc=0
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" || rc=$?
  counts=$(python3 "$HACK/count.py" "$log")
  rm -f "$log"
  [[ $counts != "0 0" ]] || die "no test ran: $*"
  echo "$counts" >>"$COUNTS"
  return "$rc"
}

units() { counted nice cargo test --locked --no-fail-fast; }

trainer() {
  export LIBTORCH=$CACHE/libtorch
  export LD_LIBRARY_PATH=$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  counted nice cargo test --locked --no-fail-fast -p freehold-trainer
  counted nice cargo test --locked --no-fail-fast -p freehold-fuzz --no-default-features --features trainer
}

contracts() { counted nice contracts/test.sh; }

enforcer() { (cd hack/netpol && counted nice go test -v ./...); }

# Real API server, real chain: the process is ended at every point where a crash could cost money.
outbox() { counted nice cargo test --locked -p freehold-controllers --test outbox -- --ignored --test-threads 1; }

# Generated files are committed; what the sources make today must be the same.
drift() {
  local fresh
  fresh=$(mktemp -d)
  mkdir -p "$fresh/crds"
  cargo run -q --locked -p freehold -- crdgen --dir "$fresh/crds"
  cargo run -q --locked -p freehold -- rbacgen --file "$fresh/rbac.yaml"
  cargo run -q --locked -p freehold -- metricsgen --file "$fresh/metrics.txt"
  diff -r "$fresh/crds" crds || die "crds/ is not what the types say: run make generate"
  diff -r "$fresh/crds" charts/freehold-crds/files || die "charts/freehold-crds/files is not what the types say: run make generate"
  diff "$fresh/rbac.yaml" charts/freehold/files/rbac.yaml || die "charts/freehold/files/rbac.yaml is not what the controllers say: run make generate"
  diff "$fresh/metrics.txt" charts/freehold/files/metrics.txt || die "charts/freehold/files/metrics.txt is not what the processes export: run make generate"
  for patch in hack/chaos/mutants/*.patch; do
    patch --dry-run --quiet -p1 <"$patch" || die "$patch no longer fits the source: make it anew"
  done
  rm -rf "$fresh"
}

# journey NAME: one file of hack/e2e.
journey() { (cd "$HACK/e2e" && counted python3 -m unittest -v "test_$1"); }

began=$SECONDS
"$HACK/up.sh"
stages 19
stage "unit tests of the operator's crates" 4:00 units
stage "trainer" 1:30 trainer
stage "contracts: unit, fuzz, invariant" 4:00 contracts
stage "NetworkPolicy enforcer" 0:20 enforcer
stage "generated files" 0:10 drift
# What follows begins where a user begins: with nothing on the cluster and nothing on the chain.
stage "the old cluster goes" 0:05 "$HACK/cluster.sh" down
stage "the demo" 4:00 "$HACK/demo.sh"
stage "alerts and dashboard" 0:05 journey alerts
stage "charts" 0:40 journey charts
stage "guides" 2:00 journey guides
stage "outbox: killed at every point, refused by a signer" 1:15 outbox
stage "journey: audit" 0:05 journey audit
stage "journey: access" 0:20 journey access
stage "journey: bad input" 2:00 journey input
stage "journey: the seam under kills, deletion, budgets" 4:30 journey seam
stage "probe image" 0:10 "$HACK/images.sh" probe
stage "journey: network truth" 1:30 journey network
stage "journey: exact training" 1:00 journey exact
stage "chaos, a short form" 5:00 python3 "$HACK/chaos/run.py" --minutes 1.5 --seed 3 --settle 300
python3 - "$COUNTS" "$((SECONDS - began))" <<'PY'
import sys
passed = failed = 0
for line in open(sys.argv[1]):
    p, f = map(int, line.split())
    passed, failed = passed + p, failed + f
print(f"all stages done in {int(sys.argv[2]) // 60} min {int(sys.argv[2]) % 60} s")
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
PY
