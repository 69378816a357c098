#!/usr/bin/env bash
# Shows that the invariant campaign can fail: each defect below, put into a copy of the contracts, must break an
# invariant, and the copy without a defect must not.
# Usage: contracts/mutants.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# What is wrong | file in src | sed expression
MUTANTS='
the tenant is paid one unit too few | Market.sol | s/toTenant = o.funds + bond - toProvider - burned;/toTenant = o.funds + bond - toProvider - burned; if (toTenant != 0) --toTenant;/
the provider is paid one unit too much | Market.sol | s/_credit(token, provider, toProvider);/_credit(token, provider, toProvider + 1);/
settling pays again what was paid | Market.sol | s/amount = \(AccrualLib.released(total, terms.holdbackBps)\) - o.paid;/amount = \1;/
accrual goes above the cap | libraries/AccrualLib.sol | s/sum < cap ? sum : cap/sum/
accrual is rounded up | libraries/AccrualLib.sol | s/rate \* elapsed \/ SCALE/(rate * elapsed + SCALE - 1) \/ SCALE/
a top-up does not move the end | Market.sol | /uint128 funds = o.funds + amount;/,/emit ToppedUp/s/o.endAt = endAt;//
a bid stays after its bond was returned | Market.sol | s/delete _bids\[id\]\[provider\];//
the winner can reclaim its bond | Market.sol | s/provider == o.provider) {/provider == o.provider \&\& o.state == State.Open) {/
a rejection refunds what it should burn | Market.sol | s/uint128 burned = total - released;/uint128 burned = 0;/
closing pays the provider the holdback | Market.sol | s/^            earned = .*//
deadlines exclude their last second | Market.sol | s/block.timestamp > deadline) revert Market_TooLate/block.timestamp >= deadline) revert Market_TooLate/
a stranger may cancel in time | Market.sol | s/^            _requirePassed(id, o.deadline);$//
an id can be used again | Market.sol | s/o.state != State.None/o.state == State.Running/
a settled order can be closed | Market.sol | /function close/,/}/s/_orderIn(State.Running, id, terms)/_orders[id]/
a token that lies is believed | libraries/TokenLib.sol | s/moved != asked/moved > asked/
hooks may call back | Market.sol | s/external nonReentrant/external/
withdrawing charges nothing | Market.sol | s/free\[token\]\[msg.sender\] = held - amount;$//
'

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# campaign: a short one on the copy. The size of a campaign is not the question here, nor the shortest way to a failure.
campaign() {
  SEED=1 CALLS=10000 TIMES=0 FOUNDRY_INVARIANT_SHRINK_RUN_LIMIT=0 "$WORK/contracts/invariants.sh" >"$WORK/log" 2>&1
}

# fresh: the copy as it is here, of what the campaign needs.
fresh() {
  mkdir -p "$WORK/contracts/test"
  cp -r "$CONTRACTS"/{*.sh,*.toml,*.json,.npmrc,src,script} "$WORK/contracts"
  cp -r "$CONTRACTS"/test/{invariant,utils} "$WORK/contracts/test"
}

fresh
campaign || { cat "$WORK/log"; die "the campaign fails without a defect"; }
survivors=0
while IFS='|' read -r name file change; do
  [[ -n $name ]] || continue
  name=${name% } file=${file// /}
  fresh
  sed -i -e "$change" "$WORK/contracts/src/$file"
  ! cmp -s "$CONTRACTS/src/$file" "$WORK/contracts/src/$file" || die "\"$name\" changes nothing in $file any more"
  if campaign; then
    printf 'SURVIVED  %s\n' "$name"
    survivors=$((survivors + 1))
  elif ! grep -q '\[FAIL' "$WORK/log"; then
    cat "$WORK/log"
    die "\"$name\" broke something else than an invariant"
  else
    printf 'killed    %-42s %s\n' "$name" "$(sed -n 's/.*\[FAIL: \(.*\)\].*/\1/p' "$WORK/log" | head -n1)"
  fi
done <<<"$MUTANTS"
((survivors == 0)) || die "$survivors defects survived the campaign"
