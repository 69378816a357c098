# shellcheck shell=bash
# What all scripts of hack/ share: where things live, and the one line a stage prints. Sourced.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HACK=$ROOT/hack
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/freehold
LOGS=$CACHE/logs
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
export PATH=$CACHE/bin:$PATH
# dev; far: a second one beside it; existing: the current kube context, and REGISTRY= for images
CLUSTER=${CLUSTER:-dev}
case $CLUSTER in
  dev | far) export KUBECONFIG=$CACHE/clusters/$CLUSTER/kubeconfig ;;
  existing) ;;
  *)
    echo "error: CLUSTER is \"$CLUSTER\"; use dev, far or existing" >&2
    exit 1
    ;;
esac
mkdir -p "$LOGS" "$CACHE/bin" "$CACHE/locks"
# shellcheck source=versions.sh
source "$HACK/versions.sh"

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
clock() { printf '%02d:%02d' $(($1 / 60)) $(($1 % 60)); }

# hash_of FILE-OR-TEXT…: a short name for a set of inputs; files count by content, never by time.
hash_of() {
  local item
  for item in "$@"; do
    if [[ -f $item ]]; then sha256sum <"$item"; else printf '%s\n' "$item"; fi
  done | sha256sum | cut -c1-16
}

# locked NAME COMMAND…: one run of NAME at a time on this machine; the second waits, then finds the work done.
locked() {
  local name=$1 lock
  shift
  exec {lock}>"$CACHE/locks/$name"
  flock "$lock"
  eval '"$@"' "$lock>&-" # what it starts must not hold the lock on
  eval "exec $lock>&-"
}

# retry SECONDS COMMAND…: until it succeeds; returns 1 when the time is over.
retry() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

STAGE=0 STAGES=0
# stages N: how many stages this command will print.
stages() { STAGES=$1 STAGE=0; }

# stage NAME EXPECTED COMMAND…: run it with its output in a log and print one line. Inside another
# command's stage it prints nothing of its own: the output is already in that stage's log.
stage() {
  local name=$1 expected=$2 log began pid rc=0 line
  shift 2
  STAGE=$((STAGE + 1))
  if [[ -n ${FREEHOLD_IN_STAGE:-} ]]; then
    say "== $name"
    "$@"
    return
  fi
  log=$LOGS/${name//[^A-Za-z0-9.-]/-}.log
  began=$SECONDS
  line="[$STAGE/$STAGES] $name …"
  (
    export FREEHOLD_IN_STAGE=1
    "$@"
  ) >"$log" 2>&1 </dev/null &
  pid=$!
  if [[ -t 1 ]]; then
    while kill -0 "$pid" 2>/dev/null; do
      printf '\r%s %s (expected %s)' "$line" "$(clock $((SECONDS - began)))" "$expected"
      sleep 0.2
    done
    printf '\r'
  fi
  wait "$pid" || rc=$?
  printf '%s %s (expected %s) log: %s\n' "$line" "$(clock $((SECONDS - began)))" "$expected" "$log"
  ((rc == 0)) && return
  {
    say "error: stage \"$name\" failed with status $rc; the end of $log:"
    tail -n 20 "$log" | sed 's/^/    /'
    say "resume with: ${RESUME:-$0}"
  } >&2
  exit "$rc"
}
