#!/usr/bin/env bash
# Faults strike the demo's cluster, chain, operators and work while tasks run; when they stop every sum must be zero.
# CHAOS_MINUTES (default 20) of faults, SEED (default 1). What is what: hack/chaos/README.md.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export RESUME="make chaos"

[[ $CLUSTER == dev ]] || die "make chaos stops and breaks what the cluster runs on: it needs CLUSTER=dev"
"$HACK/demo.sh"
exec python3 "$HACK/chaos/run.py" "$@"
