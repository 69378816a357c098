#!/usr/bin/env bash
# What each call costs, as whole transactions: `name gas` a line, from receipts on a private anvil. Accounts, times
# and salts are fixed, so the figures repeat exactly.
# Usage: contracts/gas.sh [check|write]: print only, or also compare with snapshots/gas.txt and the targets below, or
# write snapshots/gas.txt.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

TERMS='(address,uint128,uint128,uint128,uint128,uint40,uint40,uint40,uint40,uint16,uint8,bytes32,bytes32,bytes32)'
ZERO=0x0000000000000000000000000000000000000000000000000000000000000000
RESULT=0x5555555555555555555555555555555555555555555555555555555555555555
RATE=2777777777777777 # 10 tokens of 6 decimals an hour, a second, scaled by 1e12
declare -A GAS
# The most that each may cost: target of the protocol.
TARGETS='
order 190000
bid 130000
accept 150000
deliver 60000
withdraw 85000
close 95000
happy_path 500000
'

# The environment: a chain, the contracts, a tenant and two providers with tokens in their wallets.
prepare() {
  now=1800000000
  private_anvil --timestamp "$now"
  export ETH_RPC_URL=$RPC
  DEPLOYMENTS=$WORK "$CONTRACTS/deploy.sh" "$RPC" 0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80 >/dev/null
  market=$(jq -r .market "$WORK/31337.json") token=$(jq -r .token "$WORK/31337.json")
  mapfile -t accounts < <(cast rpc eth_accounts | jq -r '.[]' | xargs -n1 cast to-check-sum-address)
  tenant=${accounts[1]} provider=${accounts[2]} loser=${accounts[3]}
  now=$((now + 1000))
  local account
  for account in "$tenant" "$provider" "$loser"; do
    send _ "$account" "$token" 'mint(address,uint256)' "$account" 1000000000
    send _ "$account" "$token" 'approve(address,uint256)' "$market" "$(cast max-uint)"
  done
}

has_receipt() { [[ $(cast rpc eth_getTransactionReceipt "$1") != null ]]; }

# send NAME FROM TO SIGNATURE ARG…: one transaction in a block a second later; its gas is added to GAS[NAME].
send() {
  local name=$1 from=$2 to=$3 hash receipt
  shift 3
  now=$((now + 1))
  cast rpc evm_setNextBlockTimestamp "$now" >/dev/null
  hash=$(cast send --async --unlocked --from "$from" --gas-limit 3000000 "$to" "$@")
  retry 20 has_receipt "$hash" || die "$name ($1) was not mined"
  receipt=$(cast rpc eth_getTransactionReceipt "$hash")
  [[ $(jq -r .status <<<"$receipt") == 0x1 ]] || die "$name ($1) reverted"
  GAS[$name]=$((${GAS[$name]:-0} + $(jq -r .gasUsed <<<"$receipt")))
}

# call NAME FROM FUNCTION [MORE-TYPES ARG…]: a call on the current order.
call() {
  local name=$1 from=$2 function=$3 types=${4:-}
  shift 3
  if [[ $# -gt 0 ]]; then shift; fi
  send "$name" "$from" "$market" "$function(bytes32,$TERMS$types)" "$id" "$terms" "$@"
}

# Specs: the longest, and one as examples/training-task.yaml has.
sha=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
LONGEST=$(printf '{%.0s' $(seq 1024))
EXAMPLE='{"class":"none","image":"freehold.dev/trainer@sha256:'$sha'","inputs":[{"name":"dataset","sha256":"'$sha'",'
EXAMPLE+='"size":57160}],"kind":"TrainingTask","manifest":"'$sha'","recipe":"'$sha'","require":{"attributes":'
EXAMPLE+='{"region":"eu-*"}},"resources":{"cpuMillis":2000,"disk":10737418240,"gpu":{"count":1,"memory":17179869184,'
EXAMPLE+='"models":["*"]},"memory":4294967296}}'

# open NAME SPEC: a new order of the tenant; sets id, terms and the bids' validity.
salt=0
open() {
  local spec
  spec=$(cast from-utf8 "$2")
  salt=$((salt + 1))
  local salt32
  salt32=$(cast to-uint256 "$salt")
  until=$((now + 60))
  terms="($token,20000000,0,2000000,400000,$until,300,7200,600,2000,0,$(cast keccak "$spec"),$ZERO,$ZERO)"
  id=$(cast keccak "$(cast abi-encode 'f(uint256,address,address,bytes32)' 31337 "$market" "$tenant" "$salt32")")
  send "$1" "$tenant" "$market" "order(bytes32,$TERMS,bytes)" "$salt32" "$terms" "$spec"
}
bid() { call "$1" "$2" bid ,uint128,uint32 $RATE "$until"; }
accept() { call "$1" "$tenant" accept ,address,uint128,uint32 "$provider" $RATE "$until"; }
start() { call "$1" "$provider" start; }
deliver() { call "$1" "$provider" deliver ,bytes32 $RESULT; }
# awaiting, running, delivered: a lease in that state, its price not counted.
awaiting() { open _ "$EXAMPLE" && bid _ "$provider" && accept _; }
running() { awaiting && start _ && now=$((now + 1800)); }
delivered() { running && deliver _; }

# The two accounts' first lease, paid from wallets, with the longest spec.
first_lease() {
  open order "$LONGEST"
  bid bid "$provider"
  bid _ "$loser"
  accept accept
  start start
  now=$((now + 1800))
  local settle withdraw
  settle=$(cast calldata "settle(bytes32,$TERMS,bytes32)" "$id" "$terms" $ZERO)
  withdraw=$(cast calldata 'withdraw(address,uint128,address)' "$token" "$(cast max-uint uint128)" "$provider")
  send withdraw "$provider" "$market" 'multicall(bytes[])' "[$settle,$withdraw]"
  deliver deliver
  call accept_result "$tenant" acceptResult ,bytes32 $RESULT
  call reclaim "$loser" reclaim ,address,bytes32 "$loser" $RESULT
}

# Their second one, from order to withdrawal: bond from the ledger, the example's spec.
happy_path() {
  send deposit "$provider" "$market" 'deposit(address,uint128)' "$token" 50000000
  open happy_path "$EXAMPLE"
  bid happy_path "$provider"
  accept happy_path
  start happy_path
  now=$((now + 1800))
  deliver happy_path
  call happy_path "$tenant" acceptResult ,bytes32 $RESULT
  send happy_path "$provider" "$market" 'withdraw(address,uint128,address)' "$token" 3000000 "$provider"
}

other_exits() {
  running && call close "$tenant" close
  awaiting && call decline "$provider" decline
  awaiting && now=$((now + 301)) && call no_show "$loser" noShow
  open _ "$EXAMPLE" && call cancel_open "$tenant" cancel
  awaiting && call cancel_awaiting "$tenant" cancel
  delivered && call reject_result "$tenant" rejectResult ,bytes32 $RESULT
  running && call top_up "$tenant" topUp ,uint128 5000000
  open _ "$EXAMPLE" && bid bid_from_ledger "$provider" && call unbid "$provider" unbid
}

report() {
  local name
  for name in order bid bid_from_ledger accept start top_up deliver withdraw accept_result reject_result close \
    decline no_show cancel_open cancel_awaiting unbid reclaim deposit happy_path; do
    printf '%s %d\n' "$name" "${GAS[$name]}"
  done
}

# within_targets: names each figure over its target; returns 1 if there is one.
within_targets() {
  local name target gas status=0
  while read -r name target; do
    [[ -n $name ]] || continue
    gas=${GAS[$name]}
    ((gas > target)) || continue
    printf 'error: %s takes %d gas; the target of the protocol is %d\n' "$name" "$gas" "$target" >&2
    status=1
  done <<<"$TARGETS"
  return $status
}

build
prepare
first_lease
happy_path
other_exits
report | tee "$WORK/gas.txt"

snapshot=$CONTRACTS/snapshots/gas.txt
case ${1:-} in
  write) cp "$WORK/gas.txt" "$snapshot" ;;
  check)
    within_targets || die "gas is over a target of the protocol"
    diff -u "$snapshot" "$WORK/gas.txt" || die "gas changed; if it should, run contracts/gas.sh write"
    ;;
esac
