#!/usr/bin/env bash
# The long journeys, on the demo's cluster: devices that are lost, operators that are killed, budgets, deletion.
# Some 15 minutes, most of it leases that run; `make test` leaves them out to stay within its time.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export RESUME="make journeys"

journey() { (cd "$HACK/e2e" && python3 -m unittest -v "test_$1"); }

"$HACK/demo.sh"
stages 2
stage "GPU truth" 7:00 journey gpu
stage "the seam" 6:00 journey seam
