#!/usr/bin/env bash
# abi/*.json, which the operator's bindings are made from, and abi/LeafCourt.bin, the code that the interpreter is compared
# with, against what the sources say now.
# Usage: contracts/check-abi.sh [write]
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

build
status=0
for name in Market ProviderRegistry LeafCourt TestToken; do
  fresh=$(jq '.abi' "out/$name.sol/$name.json")
  if [[ ${1:-} == write ]]; then
    printf '%s\n' "$fresh" >"abi/$name.json"
  elif ! diff -u "abi/$name.json" <(printf '%s\n' "$fresh"); then
    printf 'error: abi/%s.json is stale; run contracts/check-abi.sh write\n' "$name" >&2
    status=1
  fi
done
code=$(jq -r '.deployedBytecode.object' out/LeafCourt.sol/LeafCourt.json)
if [[ ${1:-} == write ]]; then
  printf '%s\n' "$code" >abi/LeafCourt.bin
elif [[ $(cat abi/LeafCourt.bin) != "$code" ]]; then
  printf 'error: abi/LeafCourt.bin is stale; run contracts/check-abi.sh write\n' >&2
  status=1
fi
exit $status
