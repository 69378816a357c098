#!/usr/bin/env bash
# GPUs for a machine without any: a library that answers like NVML, a state file that says which devices
# there are and what is wrong with them, and a device file for each. Nothing is done where a real driver is.
# Usage: hack/gpu.sh up|down
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

GPU=/var/lib/freehold-${CLUSTER/existing/dev}/gpu
export FREEHOLD_FAKE_NVML_STATE=$GPU/state.json
CRATE=$HACK/fake-nvml
PROFILE=${GPU_PROFILE:-two-h100}

up() {
  if [[ -c /dev/nvidiactl ]]; then say "a real NVIDIA driver is here: nothing to fake"; return; fi
  if [[ ! -f $CRATE/Cargo.toml ]]; then say "no hack/fake-nvml: skipped"; return; fi
  (cd "$ROOT" && cargo build --quiet --locked -p fake-nvml)
  mkdir -p "$GPU/dev"
  # Replaced in one step: a process that has the old library mapped keeps it whole.
  install -m 0755 "$CARGO_TARGET_DIR/debug/libfake_nvml.so" "$GPU/.new"
  mv "$GPU/.new" "$GPU/libnvidia-ml.so.1"
  if [[ ! -e $GPU/state.json ]]; then "$CRATE/gpuctl" profile "$PROFILE"; fi
  devices
}

# Character devices with the major number of `null`: harmless to open, and countable in a container.
devices() {
  local count i
  count=$("$CRATE/gpuctl" count)
  for ((i = 0; i < count; i++)); do
    [[ -c $GPU/dev/nvidia$i ]] || mknod -m 0666 "$GPU/dev/nvidia$i" c 1 3
  done
}

case ${1:-} in
  up) up ;;
  down) rm -rf "$GPU" ;;
  *) die "usage: hack/gpu.sh up|down" ;;
esac
