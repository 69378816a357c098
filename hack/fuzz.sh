#!/usr/bin/env bash
# Every parser of a stranger's bytes under libFuzzer, with a table of what was tried and found.
# Usage: [FUZZ_MINUTES=10] [SEED=…] [JOBS=2] hack/fuzz.sh [PARSER…]
#        hack/fuzz.sh seeds   writes fuzz/corpus anew, from real objects
# FUZZ_MINUTES is the time of one parser, JOBS how many run at a time. SEED repeats what libFuzzer chooses; with a corpus
# that has grown meanwhile, or another machine's speed, it takes another way all the same.
# The corpus grows in the cache; fuzz/corpus is where it begins, fuzz/regressions what once broke a parser.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

FUZZ_MINUTES=${FUZZ_MINUTES:-10}
SECONDS_EACH=$(awk "BEGIN { print int($FUZZ_MINUTES * 60) }")
SEED=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
JOBS=${JOBS:-2}
CORPUS=$CACHE/fuzz
OUT=$ROOT/out/fuzz
HOST=$(rustc -vV | sed -n 's/^host: //p')
# What libFuzzer asks of the code that it watches. All of it is stable: a pass of LLVM's, and its options.
COVERAGE="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"

# half FEATURES NAME: one program for each half, built with the features that the half is built with elsewhere.
half() {
  RUSTFLAGS=$COVERAGE nice -n 19 cargo build --locked --profile fuzz --target "$HOST" -p freehold-fuzz \
    --no-default-features --features "engine,$1" --bin freehold-fuzz
  cp "$CARGO_TARGET_DIR/$HOST/fuzz/freehold-fuzz" "$OUT/freehold-fuzz-$1"
}

# parsers: a line each, tab-separated: name, longest input, what it reads, the half it is in.
parsers() {
  local half
  for half in operator trainer; do
    FREEHOLD_FUZZ=list "$OUT/freehold-fuzz-$half" 2>/dev/null | sed "s/\$/\t$half/"
  done
}

# one NAME LONGEST READS HALF: fuzzes it. libFuzzer's status is kept beside its log.
one() {
  local name=$1 longest=$2 half=$4 rc=0
  mkdir -p "$CORPUS/$name" "fuzz/corpus/$name" "$OUT/found"
  printf 'fuzzing %s: %s\n' "$name" "$3"
  # The files of the trainer's targets lie in memory.
  RUST_BACKTRACE=0 FREEHOLD_FUZZ=$name TMPDIR=/dev/shm nice -n 19 "$OUT/freehold-fuzz-$half" \
    "$CORPUS/$name" "fuzz/corpus/$name" $(find fuzz/regressions -mindepth 1 -maxdepth 1 -name "$name") \
    -seed="$SEED" -max_total_time="$SECONDS_EACH" -dict=fuzz/tokens.dict -max_len="$longest" -rss_limit_mb=2048 -timeout=20 \
    -artifact_prefix="$OUT/found/$name-" -print_final_stats=1 >"$OUT/$name.log" 2>&1 || rc=$?
  echo "$rc" >"$OUT/$name.status"
}

# report: the table, out/fuzz.json, and what to do about each input that was found.
report() {
  SEED=$SEED FUZZ_MINUTES=$FUZZ_MINUTES python3 hack/fuzz-report.py "$OUT" "$CORPUS" out/fuzz.json <"$OUT/parsers"
}

mkdir -p "$OUT"
rm -f "$OUT"/*.log "$OUT"/*.status
stages 2
stage "the operator's parsers" 12:00 half operator
stage "the trainer's parsers" 2:00 half trainer
if [[ ${1:-} == seeds ]]; then
  for half in operator trainer; do FREEHOLD_FUZZ=seeds:fuzz/corpus "$OUT/freehold-fuzz-$half"; done
  exit
fi
parsers | { if (($#)); then grep -E "^($(IFS='|'; echo "$*"))"$'\t'; else cat; fi; } >"$OUT/parsers" ||
  die "no such parser: $*; there are $(parsers | cut -f1 | xargs)"
say "seed $SEED: $(wc -l <"$OUT/parsers") parsers, $FUZZ_MINUTES min each, $JOBS at a time; logs in ${OUT#"$ROOT"/}"
export -f one
export OUT CORPUS SEED SECONDS_EACH
tr '\n' '\0' <"$OUT/parsers" | xargs -0 -P "$JOBS" -I{} bash -c 'IFS=$'"'\t'"' read -r -a row <<<"$1"; one "${row[@]}"' _ {}
report
