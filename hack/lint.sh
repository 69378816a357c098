#!/usr/bin/env bash
# Formats and lints of all languages; changes nothing.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
stages 4
stage "rustfmt" 0:05 cargo fmt --all --check
stage "clippy" 2:00 cargo clippy --locked --all-targets -- -D warnings
stage "forge fmt" 0:05 bash -c 'cd contracts && forge fmt --check'
stage "gofmt and vet" 0:20 bash -c 'cd hack/netpol && test -z "$(gofmt -l .)" && go vet ./...'
