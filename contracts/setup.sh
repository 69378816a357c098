#!/usr/bin/env bash
# Installs what the contracts are built with: forge, anvil, cast and solc where they are missing, and the Solidity
# libraries of package-lock.json as node_modules, a link into the cache. Does nothing when all is there.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

[[ -x $CACHE/bin/forge && -x $CACHE/bin/solc ]] || "$ROOT/hack/tools.sh" node

key=$(cat "$CONTRACTS/package.json" "$CONTRACTS/package-lock.json" | sha256sum | cut -c1-16)
kept=$CACHE/tools/solidity-$key
mkdir -p "$CACHE/tools" "$CACHE/locks"
exec {lock}>"$CACHE/locks/solidity"
flock "$lock"
if [[ ! -d $kept ]]; then
  fresh=$CACHE/tools/.solidity.new
  rm -rf "$fresh"
  mkdir -p "$fresh"
  cp "$CONTRACTS"/{package.json,package-lock.json,.npmrc} "$fresh"
  npm ci --prefix "$fresh" --ignore-scripts --no-audit --no-fund --loglevel=error
  rm -rf "$CACHE"/tools/solidity-????????????????
  mv "$fresh" "$kept"
fi
if [[ $(readlink "$CONTRACTS/node_modules") != "$kept/node_modules" ]]; then
  rm -rf "$CONTRACTS/node_modules"
  ln -s "$kept/node_modules" "$CONTRACTS/node_modules"
fi
