#!/usr/bin/env bash
# Shows that `make chaos` can fail: three copies of the operator, each with one defect of the kind that costs peers their
# users' money or work, meet faults that the operator itself passes with the same seed. Each has to break its sum.
# Usage: hack/chaos-mutants.sh [NAME…]   (default: all that are below)
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export RESUME="make chaos-mutants"

TREE=$CACHE/mutants/tree
PATCHES=$HACK/chaos/mutants
CHOSEN=("$@")
for name in "$@"; do
  [[ -f $PATCHES/$name.patch ]] || die "no mutant is called $name; there are $(cd "$PATCHES" && basename -s .patch -- *.patch | xargs)"
done

# mutate NAME: the working tree with one defect, built and given to the cluster as the image mutant-NAME.
mutate() {
  local name=$1 context=$CACHE/mutants/context
  rm -rf "$TREE" "$context"
  mkdir -p "$TREE" "$context"
  (cd "$ROOT" && git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - 2>/dev/null) | tar -C "$TREE" -xf -
  patch --quiet -d "$TREE" -p1 <"$PATCHES/$name.patch" || die "hack/chaos/mutants/$name.patch no longer fits the source: make it anew"
  (cd "$TREE" && CARGO_TARGET_DIR=$CACHE/mutants/target nice cargo build --quiet --locked -p freehold)
  cp "$CACHE/mutants/target/debug/freehold" "$context/"
  "$HACK/images.sh" build "mutant-$name" "$ROOT/operator/Dockerfile" "$context"
}

image() { jq -re --arg name "$1" '.[$name]' "$CACHE/clusters/dev/images.json"; }

# meets NAME SUM SEED MINUTES LANES: the operator passes, the mutant breaks the sum.
meets() {
  local name=$1 sum=$2
  [[ ${#CHOSEN[@]} -eq 0 || " ${CHOSEN[*]} " == *" $name "* ]] || return 0
  local faults=(--seed "$3" --minutes "$4" --lanes "$5" --settle 300)
  mutate "$name"
  say "the operator itself, before $name:"
  python3 "$HACK/chaos/run.py" "${faults[@]}"
  say "$name:"
  python3 "$HACK/chaos/run.py" "${faults[@]}" --image "$(image "mutant-$name")" --expect "$sum"
}

[[ $CLUSTER == dev ]] || die "make chaos-mutants stops and breaks what the cluster runs on: it needs CLUSTER=dev"
"$HACK/demo.sh"
meets nonce-after-broadcast unrecorded 11 2.5 deaths
meets blind-teardown tornDown 12 3 chain,deaths
meets sweep-any-origin foreignEnded 13 2 chain # an operator that dies forgets since when an order has had no task
say "each defect broke its sum"
