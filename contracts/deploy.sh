#!/usr/bin/env bash
# Deploys Market and ProviderRegistry, on a development chain also TestToken, and writes deployments/<chain id>.json.
# Does nothing when that file names this very code and the chain has it.
# Usage: contracts/deploy.sh RPC_URL PRIVATE_KEY
# PROFILE=development|rollup|mainnet overrides the choice by chain id. On chains other than 31337, TOKEN names an
# ERC-20 for the record. DEPLOYMENTS is another folder for the record: for chains that live as long as one test.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

[[ $# == 2 ]] || die "usage: $0 RPC_URL PRIVATE_KEY"
export ETH_RPC_URL=$1
key=$2

build

chain=$(cast chain-id)
case $chain in
  31337) profile=${PROFILE:-development} ;;
  1) profile=${PROFILE:-mainnet} ;;
  *) profile=${PROFILE:-rollup} ;;
esac
# Minima of bid period, start window and review window, in seconds. The bid period is half of what the charts ask by
# default: `bidBy` is a point in time, and some blocks pass before an order is in one.
case $profile in
  development) minima=(10 300 600) ;;
  rollup) minima=(30 1800 86400) ;;
  mainnet) minima=(60 1800 86400) ;;
  *) die "PROFILE=$profile: must be development, rollup or mainnet" ;;
esac

# code NAME [ARGS]: creation code of a contract with its constructor's encoded arguments.
code() { printf '%s%s' "$(jq -r .bytecode.object "out/$1.sol/$1.json")" "${2#0x}"; }

market_code=$(code Market "$(cast abi-encode 'f((uint40,uint40,uint40),address[])' "(${minima[0]},${minima[1]},${minima[2]})" '[]')")
registry_code=$(code ProviderRegistry '')
token_code=$(code TestToken '')
build=$(sha256sum <<<"$market_code $registry_code $token_code" | cut -d' ' -f1)

record=${DEPLOYMENTS:-$ROOT/deployments}/$chain.json
deployed() {
  [[ -f $record && $(jq -r .build "$record") == "$build" ]] || return 1
  local address
  for address in $(jq -r '.market, .providerRegistry, .token // empty' "$record"); do
    [[ $(cast code "$address") != 0x ]] || return 1
  done
}
if deployed; then
  printf '%s is up to date\n' "$record"
  exit 0
fi

# create CODE: sends the creation of a contract without waiting for it; sets ADDRESS and HASH.
sender=$(cast wallet address --private-key "$key")
nonce=$(cast nonce --block pending "$sender")
create() {
  ADDRESS=$(cast compute-address --nonce "$nonce" "$sender" | sed 's/.*: //')
  HASH=$(cast send --async --nonce "$nonce" --private-key "$key" --create "$1")
  nonce=$((nonce + 1))
}

create "$market_code"
market=$ADDRESS market_hash=$HASH
create "$registry_code"
registry=$ADDRESS
token=${TOKEN:-}
if [[ $chain == 31337 && -z $token ]]; then
  create "$token_code"
  token=$ADDRESS
fi

# has_code ADDRESS: the chain has a contract there.
has_code() { [[ $(cast code "$1") != 0x ]]; }
for address in "$market" "$registry" ${token:+"$token"}; do
  retry 120 has_code "$address" || die "no contract at $address after 120 s: is chain $chain making blocks, and has $sender gas?"
done
block=$(($(cast receipt --json "$market_hash" | jq -r .blockNumber)))

mkdir -p "$(dirname "$record")"
jq -n --argjson chainId "$chain" --arg market "$market" --arg registry "$registry" --arg token "$token" \
  --argjson block "$block" \
  --arg profile "$profile" --arg build "$build" \
  '{chainId: $chainId, market: $market, providerRegistry: $registry, deployedAtBlock: $block, profile: $profile,
    build: $build} + (if $token == "" then {} else {token: $token} end)' >"$record.new"
mv "$record.new" "$record"
printf 'wrote %s\n' "$record"
