#!/usr/bin/env bash
# Builds images from ordinary Dockerfiles with buildah and gives them to the cluster: into containerd under
# REPO:dev and REPO@sha256:…, or with CLUSTER=existing to REGISTRY. What has not changed is not built again.
# Usage: hack/images.sh [all|system|operator|trainer|custom|probe|waiting|build NAME DOCKERFILE CONTEXT]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=process.sh
source "$HACK/process.sh"

export RESUME="hack/images.sh ${*:-all}"
IMAGES=$CACHE/images
CONTAINERD=$SHORT/containerd.sock
REFERENCES=$STATE/images.json
mkdir -p "$IMAGES" "$STATE"

# Storage of our own, so that other images of the machine are neither seen nor touched.
buildah() { nice buildah --root "$CACHE/buildah" --runroot /run/freehold-buildah "$@"; }
ctr() { command ctr --address "$CONTAINERD" --namespace k8s.io "$@"; }

# image NAME DOCKERFILE CONTEXT [KEY…]: freehold.dev/NAME, present in the cluster afterwards. The keys say what
# the image is made of; without any, every file of the context counts.
image() {
  local name=$1 dockerfile=$2 context=$3 key folder
  shift 3
  if (($# == 0)); then key=$(content_of "$context"); else key=$(hash_of "$@"); fi
  key=$(hash_of "$dockerfile" "$key" "${BASE_KEY:-}")
  folder=$IMAGES/$name-$key
  if [[ ! -f $folder/digest ]]; then build "$name" "$dockerfile" "$context" "$folder"; fi
  if [[ $CLUSTER == existing ]]; then deliver "$name" "$folder"; else load "$name" "$folder"; fi
}

content_of() { (cd "$1" && find -L . -type f -print0 | sort -z | xargs -0 sha256sum | hash_of "$(cat)"); }

build() {
  local name=$1 dockerfile=$2 context=$3 folder=$4 tag=freehold.dev/$1:dev fresh=$IMAGES/.$1.new digest old
  old=$(buildah images --quiet "$tag" 2>/dev/null) || true
  rm -rf "$fresh"
  mkdir -p "$fresh"
  BUILDAH_ISOLATION=chroot buildah build --layers --timestamp 0 --pull-never \
    --file "$dockerfile" --tag "$tag" "$context"
  if [[ -n $old && $old != "$(buildah images --quiet "$tag")" ]]; then
    buildah rmi "$old" >/dev/null 2>&1 || true # what the new image shares with it stays
  fi
  buildah push --quiet --compression-format zstd --compression-level 1 --digestfile "$fresh/digest" "$tag" "oci:$fresh/layout:$tag"
  digest=$(<"$fresh/digest")
  # The manifest under both names: a pod that names a digest needs an image called literally so.
  jq --arg tag "$tag" --arg pinned "${tag%:*}@$digest" '
    .manifests = [.manifests[0] as $m | $tag, $pinned
      | $m + { annotations: { "io.containerd.image.name": ., "org.opencontainers.image.ref.name": . } }]
  ' "$fresh/layout/index.json" >"$fresh/index.json"
  mv "$fresh/index.json" "$fresh/layout/index.json"
  tar -C "$fresh/layout" -cf "$fresh/image.tar" .
  rm -rf "$fresh/layout"
  # shellcheck disable=SC2012 # our own plain names; all but the newest two go
  for old in $(ls -dt "$IMAGES/$name"-???????????????? 2>/dev/null | tail -n +2); do
    rm -rf "$old"
  done
  mv "$fresh" "$folder"
}

load() {
  local reference
  reference=freehold.dev/$1@$(<"$2/digest")
  if [[ $(ctr images ls -q "name==$reference" 2>/dev/null) != "$reference" || ! -f $2/loaded-$(cluster_id) ]]; then
    ctr images import --local "$2/image.tar" >/dev/null
    : >"$2/loaded-$(cluster_id)"
  fi
  record "$1" "$reference"
}

# The containerd root's identity: a purged cluster has to load everything again.
cluster_id() { stat -c %W "$SHORT/containerd/root"; }

# deliver NAME FOLDER: the digest that counts is the one that the registry ends up with.
deliver() {
  local tag=freehold.dev/$1:dev folder=$2 to
  to=${REGISTRY:?set REGISTRY to where the cluster pulls from, e.g. registry.example.com/freehold}/$1
  if [[ $(cat "$folder/delivered" 2>/dev/null) != "$to@"* ]]; then
    buildah images --quiet "$tag" >/dev/null 2>&1 || buildah pull --quiet "oci-archive:$folder/image.tar:$tag" >/dev/null
    buildah push --quiet --tls-verify="${REGISTRY_VERIFY:-true}" --digestfile "$folder/pushed" "$tag" "docker://$to:dev"
    echo "$to@$(<"$folder/pushed")" >"$folder/delivered"
  fi
  record "$1" "$(<"$folder/delivered")"
}

# record NAME REFERENCE: into images.json, which charts and tests take their values from.
record() { locked images-json write_record "$@"; }

write_record() {
  local old='{}'
  if [[ -s $REFERENCES ]]; then old=$(<"$REFERENCES"); fi
  jq --arg name "$1" --arg reference "$2" '.[$name] = $reference' <<<"$old" >"$REFERENCES.new"
  mv "$REFERENCES.new" "$REFERENCES"
  say "$2"
}

# context NAME FILE…: an empty folder with links to just these files; prints its path.
context() {
  local folder=$IMAGES/.context-$1 file
  shift
  rm -rf "$folder"
  mkdir -p "$folder"
  for file in "$@"; do
    [[ -f $file ]] || die "$file is missing: build it first"
    ln "$(realpath "$file")" "$folder/${file##*/}" 2>/dev/null || cp "$file" "$folder/"
  done
  echo "$folder"
}

base() {
  BASE_KEY=$(basename "$(readlink "$CACHE/base")") || die "no base image; run: hack/tools.sh base"
  buildah images --quiet "$BASE_IMAGE" >/dev/null 2>&1 &&
    [[ $(cat "$CACHE/buildah/base-key" 2>/dev/null) == "$BASE_KEY" ]] && return
  locked buildah-base import_base
}

import_base() {
  local container
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$CACHE/base/base.tar" / >/dev/null
  buildah config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit --quiet --timestamp 0 --rm "$container" "$BASE_IMAGE" >/dev/null
  echo "$BASE_KEY" >"$CACHE/buildah/base-key"
}

# --- which images there are ----------------------------------------------------------------------

system() {
  [[ $CLUSTER != existing ]] || return 0
  local name folder
  for name in pause coredns; do
    folder=$(context "$name" "$CACHE/bin/$name")
    image "$name" "$HACK/images/$name/Dockerfile" "$folder" "$(realpath "$CACHE/bin/$name")"
  done
}

operator() {
  base
  local folder
  folder=$(context operator "$CARGO_TARGET_DIR/debug/freehold")
  image freehold "$ROOT/operator/Dockerfile" "$folder"
}

# The context holds the program and the wheels that libtorch comes in; the wheels count by their pins.
trainer() {
  local dockerfile=$ROOT/trainer-image/Dockerfile folder
  if [[ ! -f $dockerfile ]]; then say "no trainer-image/Dockerfile: skipped"; return; fi
  base
  folder=$(context trainer "$CARGO_TARGET_DIR/debug/freehold-trainer" "$CACHE"/wheels/*.whl)
  image trainer "$dockerfile" "$folder" "$CARGO_TARGET_DIR/debug/freehold-trainer" "$(readlink "$CACHE/wheels")"
}

# What the cluster's own tests run.
probe() {
  local folder
  folder=$(context probe "$CACHE/bin/probe")
  image probe "$HACK/probe/Dockerfile" "$folder"
}

# A trainer that only waits, for tests with many leases.
waiting() {
  base
  image waiting "$HACK/images/waiting/Dockerfile" "$HACK/images/waiting"
}

custom() {
  local folder=$ROOT/examples/custom-image
  if [[ ! -f $folder/Dockerfile ]]; then say "no examples/custom-image/Dockerfile: skipped"; return; fi
  base
  image custom "$folder/Dockerfile" "$folder"
}

# one NAME: one run at a time, for the context folder is shared.
one() { locked "image-$1" "$1"; }

arbitrary() {
  base
  image "$@"
}

case ${1:-all} in
  system | operator | trainer | custom | probe | waiting) stages 1; stage "image: $1" 0:20 one "$1" ;;
  build)
    (($# == 4)) || die "usage: hack/images.sh build NAME DOCKERFILE CONTEXT"
    locked "image-$2" arbitrary "$2" "$3" "$4"
    ;;
  all)
    stages 4
    stage "system images" 0:05 one system
    stage "operator image" 0:05 one operator
    stage "trainer image" 0:25 one trainer
    stage "custom image" 0:10 one custom
    ;;
  *) die "unknown image \"$1\": use all, system, operator, trainer, custom, probe, waiting or build NAME DOCKERFILE CONTEXT" ;;
esac
