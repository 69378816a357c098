#!/usr/bin/env bash
# Builds and installs every tool of the development environment into the cache, each keyed by the hash
# of its pins, so a second run only looks. Usage: hack/tools.sh [all|host|node|libtorch|cluster|base|fetch],
# or one of cluster's parts: kubernetes, etcd, containerd, helm, own; or kwok, which make scale alone needs
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TOOLS=$CACHE/tools
export GOFLAGS=-buildvcs=false CGO_ENABLED=0
mkdir -p "$TOOLS"

# keep NAME KEY BUILD…: $TOOLS/NAME-KEY, made by BUILD in an empty folder that is renamed only when it
# is complete; older keys of NAME go. Sets KEPT to the folder.
keep() {
  local name=$1 key=$2
  shift 2
  KEPT=$TOOLS/$name-$key
  [[ -d $KEPT ]] || locked "$name" build_kept "$name" "$@"
}

build_kept() {
  local name=$1 fresh=$TOOLS/.$1.new old
  shift
  [[ -d $KEPT ]] && return
  rm -rf "$fresh"
  mkdir -p "$fresh"
  "$@" "$fresh"
  for old in "$TOOLS/$name"-????????????????; do
    if [[ -d $old ]]; then rm -rf "$old"; fi
  done
  mv "$fresh" "$KEPT"
}

# point NAME TARGET: $CACHE/NAME leads to TARGET, replaced in one step.
point() {
  if [[ $(readlink "$CACHE/$1" || true) != "$2" ]]; then
    ln -sfn "$2" "$CACHE/$1.new.$$"
    mv -T "$CACHE/$1.new.$$" "$CACHE/$1"
  fi
}

need() { command -v "$1" >/dev/null || die "$1 is missing; $2"; }

# --- packages of the host ------------------------------------------------------------------------

host() {
  local entry missing=()
  for entry in "${HOST_COMMANDS[@]}"; do
    command -v "${entry%%=*}" >/dev/null || [[ -x ${entry%%=*} ]] || missing+=("${entry#*=}")
  done
  ((${#missing[@]})) || return 0
  ((EUID == 0)) || die "these packages are missing and only root can install them: ${missing[*]}"
  locked apt apt_install "${missing[@]}"
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "$@"
}

# --- forge, anvil, cast and solc -----------------------------------------------------------------

node_tools() {
  need npm "install nodejs and npm"
  local src=$HACK/tools/node command
  keep node "$(hash_of "$src/package-lock.json" "$src/solc" "$(node --version)")" build_node
  point node "$KEPT"
  for command in anvil cast forge; do
    point "bin/$command" "$KEPT/node_modules/@foundry-rs/$command-linux-amd64/bin/$command"
  done
  point bin/solc "$KEPT/solc"
}

build_node() {
  cp "$HACK"/tools/node/{package.json,package-lock.json,solc} "$1"
  npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error
}

# --- libtorch ------------------------------------------------------------------------------------

libtorch() {
  need python3 "install python3 and pip"
  local pins
  pins=$(hash_of "$TORCH_VERSION" "$TORCH_PYTHON" "$CUDA_WHEELS")
  keep wheels "$pins" build_wheels
  point wheels "$KEPT"
  keep libtorch "$pins" build_libtorch
  point libtorch "$KEPT"
}

build_wheels() {
  # shellcheck disable=SC2086 # CUDA_WHEELS is a list
  python3 -m pip download -q --no-deps --only-binary=:all: --progress-bar off \
    --python-version "$TORCH_PYTHON" \
    --dest "$1" "torch==$TORCH_VERSION" $CUDA_WHEELS
}

# The processor part of the CUDA wheel: headers, and the libraries a program without a GPU needs.
build_libtorch() {
  local wheels=$CACHE/wheels lib
  mkdir -p "$1/lib"
  unzip -q "$wheels"/torch-*.whl 'torch/include/*' -d "$1"
  mv "$1/torch/include" "$1/include"
  rmdir "$1/torch"
  for lib in libtorch.so libtorch_cpu.so libc10.so libgomp.so.1 libtorch_global_deps.so; do
    unzip -q -j "$wheels"/torch-*.whl "torch/lib/$lib" -d "$1/lib"
  done
  unzip -q -j "$wheels"/nvidia_cuda_runtime-*.whl '*/lib/libcudart.so.13' -d "$1/lib"
  unzip -q -j "$wheels"/nvidia_cuda_cupti-*.whl '*/lib/libcupti.so.13' -d "$1/lib"
}

# --- the cluster's programs ----------------------------------------------------------------------

# go_programs MODULE LDFLAGS TAGS [PACKAGE=NAME…]: the tools of hack/tools/MODULE, linked into the cache's
# bin. Names default to the last path element.
go_programs() {
  need go "install Go 1.26 or newer"
  local module=$1 ldflags=$2 tags=$3 program
  keep "$module" "$(hash_of "$HACK/tools/$module/go.mod" "$HACK/tools/$module/go.sum" "$ldflags" "$tags" "$(go version)")" \
    build_go "$HACK/tools/$module" "$ldflags" "$tags"
  for program in "$KEPT"/*; do
    point "bin/${program##*/}" "$program"
  done
}

build_go() {
  local out=$4
  cd "$1"
  # shellcheck disable=SC2046 # a list of packages
  nice go build -trimpath -tags "$3" -ldflags "-s -w $2" -o "$out/" $(go list -f '{{.ImportPath}}' tool)
  cd "$ROOT"
  # etcd's main package is called "server".
  if [[ -e $out/server ]]; then mv "$out/server" "$out/etcd"; fi
}

kubernetes() {
  local minor=${KUBERNETES_VERSION#*.} v=k8s.io/component-base/version
  # Without these every binary calls itself v0.0.0, and clients' version checks go wrong.
  go_programs kube "-X $v.gitVersion=v$KUBERNETES_VERSION -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*} \
    -X k8s.io/client-go/pkg/version.gitVersion=v$KUBERNETES_VERSION" ""
}

etcd() { go_programs etcd "" ""; }
containerd() { go_programs containerd "" "no_btrfs no_devmapper no_zfs"; }
helm() { go_programs helm "" ""; }
kwok() { go_programs kwok "" ""; }

# Our own sources, not a wrapper: the NetworkPolicy enforcer, CoreDNS with few plugins, the probe of the cluster's
# tests, the pause container.
own_programs() {
  local program sources
  for program in netpol coredns probe; do
    mapfile -t sources < <(find "$HACK/$program" -name '*.go' -o -name 'go.*' | sort)
    keep "$program" "$(hash_of "${sources[@]}" "$(go version)")" build_own "$program"
    point "bin/$program" "$KEPT/$program"
  done
  keep pause "$(hash_of "$HACK/tools/pause/pause.c")" build_pause
  point bin/pause "$KEPT/pause"
}

build_own() { (cd "$HACK/$1" && nice go build -trimpath -ldflags "-s -w" -o "$2/$1" .); }
build_pause() { gcc -Os -static -s -Wall -Wextra -o "$1/pause" "$HACK/tools/pause/pause.c"; }

cluster() {
  stage "Kubernetes $KUBERNETES_VERSION" 5:00 kubernetes
  stage "etcd" 0:50 etcd
  stage "containerd" 0:50 containerd
  stage "helm" 1:30 helm
  stage "our own programs" 0:40 own_programs
}

# --- the base image ------------------------------------------------------------------------------

# A root file system that stands in for debian:bookworm-slim, under the name Dockerfiles ask for.
base() {
  need mmdebstrap "run: hack/tools.sh host"
  keep base "$(hash_of "$DEBIAN_SUITE" "$BASE_PACKAGES" "$(declare -f build_base)")" build_base
  point base "$KEPT"
}

build_base() {
  mmdebstrap --quiet --variant=minbase --include="$BASE_PACKAGES" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --aptopt='Acquire::Languages "none"' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb' \
    --customize-hook='rm -f "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/var/log/*.log' \
    "$DEBIAN_SUITE" "$1/base.tar"
}

# --- downloads that need no processor -------------------------------------------------------------

# Fills the module caches while something else compiles.
fetch() {
  local module
  for module in kube etcd containerd helm; do
    (cd "$HACK/tools/$module" && go list -deps tool >/dev/null)
  done
  (cd "$HACK/coredns" && go list -deps . >/dev/null)
  (cd "$ROOT" && cargo fetch --locked)
}

case ${1:-all} in
  host) stages 1; stage "host packages" 0:30 host ;;
  node) stages 1; stage "forge, anvil and solc" 0:20 node_tools ;;
  libtorch) stages 1; stage "libtorch $TORCH_VERSION" 1:00 libtorch ;;
  cluster) stages 5; cluster ;;
  kubernetes | etcd | containerd | helm | kwok) stages 1; stage "$1" 1:30 "$1" ;;
  own) stages 1; stage "our own programs" 0:40 own_programs ;;
  base) stages 1; stage "base image" 0:40 base ;;
  fetch) fetch ;;
  all)
    stages 9
    stage "host packages" 0:30 host
    stage "forge, anvil and solc" 0:20 node_tools
    stage "libtorch $TORCH_VERSION" 1:00 libtorch
    cluster
    stage "base image" 0:40 base
    ;;
  *) die "unknown part \"$1\": see the head of hack/tools.sh" ;;
esac
