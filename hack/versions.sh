# shellcheck shell=bash disable=SC2034
# Every pin of the development environment, in one place. Sourced, never run.
# Changing a line here (or a go.mod under hack/tools) rebuilds just what depends on it.

KUBERNETES_VERSION=1.34.4 # 1.35 refuses cgroup v1 hosts unless told otherwise: stay on 1.34
TORCH_VERSION=2.13.0      # tch 0.26 accepts exactly this libtorch
TORCH_PYTHON=3.11         # which of torch's wheels; the C++ libraries in them are the same
CUDA_WHEELS="nvidia-cuda-runtime==13.5.37 nvidia-cuda-cupti==13.5.25"
DEBIAN_SUITE=bookworm
BASE_PACKAGES=ca-certificates,unzip # unzip: stage one of the trainer image takes libraries out of wheels
BASE_IMAGE=docker.io/library/debian:bookworm-slim

# Debian packages that bring a tool as command=package; installed only where the command is missing.
HOST_COMMANDS=(
  runc=runc iptables=iptables nft=nftables conntrack=conntrack
  buildah=buildah mmdebstrap=mmdebstrap unzip=unzip jq=jq openssl=openssl
  gcc=build-essential g++=build-essential make=make python3=python3 pip3=python3-pip sysctl=procps ip=iproute2 curl=curl flock=util-linux
  /usr/lib/cni/bridge=containernetworking-plugins
)
