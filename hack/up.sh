#!/usr/bin/env bash
# Everything the product needs on this machine: tools, cluster, images, chain, contracts. Safe to repeat.
# Downloads start at once; what needs the processor runs one after another.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export RESUME="make up"

if [[ $CLUSTER == dev ]]; then stages 16; else stages 11; fi
free=$(df -Pk "$CACHE" | awk 'NR == 2 { print int($4 / 1048576) }')
((free >= 4)) || say "warning: $CACHE has $free GiB left; the first run takes some 35, each further one up to 4"
stage "host packages" 0:30 "$HACK/tools.sh" host
for part in node libtorch fetch; do
  "$HACK/tools.sh" "$part" >"$LOGS/download-$part.log" 2>&1 </dev/null & # the stages below wait for its lock
done
if [[ $CLUSTER == dev ]]; then
  stage "cluster programs: Kubernetes" 5:30 "$HACK/tools.sh" kubernetes
  stage "cluster programs: etcd" 0:50 "$HACK/tools.sh" etcd
  stage "cluster programs: containerd" 1:00 "$HACK/tools.sh" containerd
  stage "cluster programs: our own" 0:40 "$HACK/tools.sh" own
fi
stage "helm" 1:30 "$HACK/tools.sh" helm
stage "forge, anvil and solc" 0:20 "$HACK/tools.sh" node
stage "libtorch" 1:00 "$HACK/tools.sh" libtorch
stage "base image" 0:40 "$HACK/tools.sh" base
stage "operator" 3:00 "$HACK/build.sh" operator
stage "trainer" 4:30 "$HACK/build.sh" trainer
stage "cluster" 0:20 "$HACK/cluster.sh" up
if [[ $CLUSTER == dev ]]; then stage "GPUs" 0:10 "$HACK/gpu.sh" up; fi
stage "images" 0:40 "$HACK/images.sh" all
stage "chain" 0:02 "$HACK/chain.sh" up
stage "contracts" 0:20 "$HACK/chain.sh" deploy
