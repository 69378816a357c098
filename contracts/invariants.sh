#!/usr/bin/env bash
# The invariant campaign: random calls by all parties, in honest and hostile tokens, with every invariant checked after
# each call. Prints how often what was done; fails when an invariant breaks, or when anything was done too rarely for
# the campaign to mean something.
# Usage: [SEED=…] [CALLS=1000000] [TIMES=1000] [JOBS=2] contracts/invariants.sh
# SEED repeats a campaign exactly, whatever JOBS is. CALLS must work (calls that the market refuses, as it must, come on
# top, and handler calls that do nothing are not counted at all), and each row of the table be taken TIMES.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

SEED=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
CALLS=${CALLS:-1000000}
TIMES=${TIMES:-1000}
JOBS=${JOBS:-$(nproc)}
# Parts with seeds of their own, so that processors can share the work and the sum stays the same.
PARTS=8
# Of 80 calls that the fuzzer makes in a run (foundry.toml) some 45 work: so many runs are surely enough.
RUNS=$((CALLS / 43 / PARTS + 1))

# Rows as the handler counts them. Numbers are the transitions of the specification; the rest is the ledger, who called,
# in which token, and what hostile tokens were refused for.
ROWS=('1 order' '2 bid' '2 bid again' '2 unbid' '2 reclaim, expired' '2 reclaim, lost' '3 accept' '4 cancel, tenant'
  '4 cancel, anyone' '5 start' '6 decline' '7 no-show' '8 cancel after accept' '9 close, tenant' '10 close, provider'
  '10 close, anyone' '11 deliver' '17 accept, tenant' '17 accept, anyone' '18 reject' 'top up' 'settle' 'deposit'
  'withdraw' 'by tenant 0' 'by tenant 1' 'by provider 0' 'by provider 1' 'by provider with a hook' 'by stranger'
  'in no-return' 'in fee-on-transfer' 'in blocklisting' 'in re-entering' 'refused: a fee' 'refused: blocked'
  'refused: a re-entry' 'refused: a lie' 'refused: no code')

# part N: one of PARTS, its tally in $WORK/N.tally. 255 keeps xargs from starting more.
part() {
  local log=$WORK/$1.log
  TALLY=cache/invariants/$1.tally FOUNDRY_INVARIANT_RUNS=$RUNS FOUNDRY_INVARIANT_FAILURE_PERSIST_DIR=$WORK/failures \
    forge test --match-test invariant_Market --fuzz-seed $((SEED + $1)) >"$log" 2>&1 && return
  printf 'error: part %s, forge test --fuzz-seed %s:\n' "$1" $((SEED + $1)) >&2
  grep -m1 -A40 '\[FAIL' "$log" >&2 || tail -n 20 "$log" >&2
  return 255
}

# report: the table; returns 1 if a row falls short.
report() {
  # forge plays a part's last run twice: a line that is there already is that run.
  sort -u "$WORK"/*.tally | tr ';' '\n' |
    awk -F= -v calls="$CALLS" -v times="$TIMES" -v rows="$(printf '%s\n' "${ROWS[@]}")" '
      function row(name, least) {
        printf "%-26s %10d%s\n", name, count[name], count[name] < least ? "  short of " least : ""
        if (count[name] < least) short = 1
      }
      NF == 2 { count[$1] += $2 }
      END {
        n = split(rows, names, "\n")
        printf "%-26s %10s\n", "transition", "taken"
        for (i = 1; i <= n; i++) row(names[i], times)
        row("worked", calls)
        row("refused", 0)
        exit short
      }'
}

"$CONTRACTS/setup.sh"
cd "$CONTRACTS"
WORK=$CONTRACTS/cache/invariants
exec {lock}>"$CACHE/locks/invariants-$(sha256sum <<<"$CONTRACTS" | cut -c1-16)"
flock "$lock"
rm -rf "$WORK"/*.tally "$WORK"/*.log "$WORK/failures"
mkdir -p "$WORK"
# Artifacts of its own, so that other commands may build meanwhile.
export FOUNDRY_OUT=$WORK/out FOUNDRY_CACHE_PATH=$WORK/cache
forge build --quiet
printf 'seed %s: %d parts of %d runs\n' "$SEED" "$PARTS" "$RUNS"

export -f part
export WORK SEED RUNS
seq 0 $((PARTS - 1)) | xargs -P "$JOBS" -I{} bash -c 'part {}' || die "an invariant is broken; SEED=$SEED repeats it"
report || die "too little was done for the invariants to mean something"
printf 'solvency, accrual, settlement and absorption hold (invariants 1, 2, 3 and 8)\n'
