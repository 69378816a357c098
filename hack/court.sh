#!/usr/bin/env bash
# A million elements of random programs, a third of them claimed wrong by one: the contract in an EVM, the reference
# interpreter and libtorch have to agree on each, and the contract to refuse what was forged. Ends in a table.
# Usage: [CASES=1000000] [SEED=1] hack/court.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export LIBTORCH=$CACHE/libtorch
export LD_LIBRARY_PATH=$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
[[ -d $LIBTORCH/lib ]] || "$HACK/tools.sh" all

stages 1
stage "the comparison, optimised" 12:00 nice -n 19 cargo test --locked --profile fuzz -p freehold-trainer --test court --no-run
say "${CASES:-1000000} cases of seed ${SEED:-1}; some 25 minutes on two processors"
FREEHOLD_COURT_CASES=${CASES:-1000000} FREEHOLD_COURT_SEED=${SEED:-1} \
  nice -n 19 cargo test --quiet --locked --profile fuzz -p freehold-trainer --test court -- --nocapture
