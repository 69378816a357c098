#!/usr/bin/env bash
# Writes every generated file that is committed: CRDs, the chart's copy of them, RBAC rules, names of metrics.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
cargo run -q -p freehold -- crdgen
cargo run -q -p freehold -- rbacgen
cargo run -q -p freehold -- metricsgen
say "crds/, charts/freehold-crds/files and charts/freehold/files are up to date"
