# shellcheck shell=bash
# What the scripts of this folder share: where tools and libraries are. Sourced, never run.
set -euo pipefail

CONTRACTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$CONTRACTS")
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/freehold
export PATH=$CACHE/bin:$PATH
export FOUNDRY_SOLC=$CACHE/bin/solc FOUNDRY_OFFLINE=true FOUNDRY_DISABLE_NIGHTLY_WARNING=1

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# build: artifacts in out/, by one forge at a time.
build() {
  "$CONTRACTS/setup.sh"
  cd "$CONTRACTS"
  flock "$CACHE/locks/contracts" forge build --quiet src script
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

# private_anvil ARG…: an anvil of this script alone, on a port of its own, ended with the script. Sets RPC and WORK,
# a folder that ends with it too.
private_anvil() {
  WORK=$(mktemp -d)
  anvil --host 127.0.0.1 --port 0 --hardfork prague "$@" >"$WORK/anvil.log" 2>&1 &
  ANVIL=$!
  trap 'kill "$ANVIL" 2>/dev/null && wait "$ANVIL" || true; rm -rf "$WORK"' EXIT
  retry 20 grep -q '^Listening on' "$WORK/anvil.log" || die "anvil did not start: $(tail -n 3 "$WORK/anvil.log")"
  RPC=http://$(sed -n 's/^Listening on //p' "$WORK/anvil.log")
}
