#!/usr/bin/env bash
# The long journeys, on the demo's cluster: which device was sold, given and seen, and what happens when one is lost or a
# runtime would show it to all; a release whose key lies with a signer; a second cluster that dies with the work half done;
# an hour of the chain that the operators cannot see; what an administrator drains, upgrades, deletes, restores and
# uninstalls. Some 49 minutes, most of it leases that run; `make test` leaves them out to stay within its time.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export RESUME="make journeys"

journey() { (cd "$HACK/e2e" && python3 -m unittest -v "test_$1"); }

"$HACK/demo.sh"
stages 8
stage "GPU truth" 8:00 journey gpu
stage "isolation" 7:00 journey isolation
stage "probe image" 0:10 "$HACK/images.sh" probe
stage "the signer holds the key" 4:00 journey signer
stage "a cluster dies, another goes on" 9:00 journey failover
stage "an hour without the chain" 6:00 journey blind
stage "drain, upgrade, deletion, restore, uninstall" 14:00 journey lifecycle
stage "installed anew" 2:30 "$HACK/demo.sh"
