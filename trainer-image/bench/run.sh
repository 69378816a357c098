#!/usr/bin/env bash
# Steps a second of the trainer beside the same network in Python PyTorch: the same libtorch, the same threads,
# the same minute. Needs a built freehold-trainer; makes a virtual environment of some 6 GB in the cache once.
# Usage: trainer-image/bench/run.sh [ROUNDS]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/freehold
venv=$cache/bench-torch
export LIBTORCH=${LIBTORCH:-$cache/libtorch}
export LD_LIBRARY_PATH=$LIBTORCH/lib
trainer=${TRAINER:-${CARGO_TARGET_DIR:-$cache/target}/debug/freehold-trainer}
case $(basename "$(dirname "$trainer")") in
  debug) profile=dev ;;
  release) profile=release ;;
  *) profile="unknown, since $trainer lies in no folder of cargo" ;;
esac
[[ -x $trainer ]] || { echo "no $trainer: run make build, or name one in TRAINER" >&2; exit 1; }

if [[ ! -f $venv/ready ]]; then
  python3 -c 'import ensurepip' 2>/dev/null || { echo "python3 cannot make virtual environments: install python3-venv" >&2; exit 1; }
  echo "installing torch 2.13.0 for Python into $venv (once, about 2.7 GB to fetch)" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
  touch "$venv/ready"
fi

# Python finds its own libraries; ours are for the trainer alone.
env -u LD_LIBRARY_PATH "$venv/bin/python" -W ignore "$here/compare.py" "$trainer" "$LD_LIBRARY_PATH" "${1:-5}" "$profile"
