#!/usr/bin/env bash
# The development chain: anvil on the bridge's address, chain id 31337, a block every two seconds, its
# usual mnemonic accounts, state in memory only. Usage: hack/chain.sh up|down|deploy|accounts
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=process.sh
source "$HACK/process.sh"

export RESUME="hack/chain.sh ${1:-up}"
# With an existing cluster: an address of this machine that its pods reach.
if [[ $CLUSTER == existing && -z ${CHAIN_HOST:-} ]]; then
  die "with CLUSTER=existing set CHAIN_HOST to an address of this machine that the cluster's pods can reach"
fi
CHAIN_HOST=${CHAIN_HOST:-10.101.0.1}
RPC=http://$CHAIN_HOST:8545
CHAIN_ID=31337
# The first of the mnemonic's accounts: known to everybody, worth nothing anywhere else.
DEPLOYER_KEY=0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80

# An epoch of one slot makes `finalized` follow two blocks behind the head instead of 64.
up() {
  start anvil anvil --host "$CHAIN_HOST" --port 8545 --chain-id "$CHAIN_ID" --block-time 2 --slots-in-an-epoch 1 --quiet
  await anvil 15 answers
}

answers() { [[ $(cast chain-id --rpc-url "$RPC") == "$CHAIN_ID" ]]; }

# Writes deployments/31337.json; does nothing when this chain already has this very code.
deploy() { "$ROOT/contracts/deploy.sh" "$RPC" "$DEPLOYER_KEY"; }

accounts() {
  local i
  for i in $(seq 0 9); do
    cast wallet address --mnemonic "test test test test test test test test test test test junk" --mnemonic-index "$i"
  done
}

case ${1:-} in
  up) stages 1; stage "chain up" 0:02 up ;;
  down) stop anvil ;;
  deploy) stages 1; stage "contracts" 0:20 deploy ;;
  accounts) accounts ;;
  *) die "usage: hack/chain.sh up|down|deploy|accounts" ;;
esac
