#!/usr/bin/env bash
# Builds the programs that images hold. Usage: hack/build.sh operator|trainer
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

operator() { nice cargo build --locked -p freehold; }

# The trainer links the libtorch of the cache; its image carries the same libraries.
trainer() {
  export LIBTORCH=$CACHE/libtorch
  export LD_LIBRARY_PATH=$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  nice cargo build --locked -p freehold-trainer --bin freehold-trainer
}

case ${1:-} in
  operator | trainer) "$1" ;;
  *) die "usage: hack/build.sh operator|trainer" ;;
esac
