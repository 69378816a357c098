#!/usr/bin/env bash
# runc with the habit of NVIDIA's container runtime that matters to isolation: a container whose environment says
# NVIDIA_VISIBLE_DEVICES=all is given every GPU, whatever it was sold. For pods of a RuntimeClass whose handler is
# `visible-devices`; the tests show with it that a node on which this is the habit is not sold.
set -euo pipefail

DEVICES=/var/lib/freehold-dev/gpu/dev

bundle() {
  while (($# > 0)); do
    case $1 in
      --bundle | -b) echo "$2" && return ;;
      --bundle=*) echo "${1#*=}" && return ;;
    esac
    shift
  done
}

# The fake GPUs' files are character devices with the numbers of `null`.
devices() {
  local file
  for file in "$DEVICES"/nvidia*; do
    jq -n --arg path "/dev/${file##*/}" '{ path: $path, type: "c", major: 1, minor: 3, fileMode: 438, uid: 0, gid: 0 }'
  done | jq -s .
}

if [[ " $* " == *" create "* ]]; then
  config=$(bundle "$@")/config.json
  asked=$(jq -r '[.process.env[]? | select(startswith("NVIDIA_VISIBLE_DEVICES="))] | last // ""' "$config")
  if [[ $asked == NVIDIA_VISIBLE_DEVICES=all ]]; then
    jq -c --argjson devices "$(devices)" '.linux.devices += $devices' "$config" >"$config.new"
    mv "$config.new" "$config"
  fi
fi
exec runc "$@"
