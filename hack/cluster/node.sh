# shellcheck shell=bash
# The node's own parts: network, cgroups, runtime, kubelet, and how each is removed. Sourced by cluster.sh.

case $CLUSTER in
  far) NODE=freehold-far PODS=10.111 SERVICES=10.112 ;;
  *) NODE=freehold-node PODS=10.101 SERVICES=10.102 ;;
esac
BRIDGE=fh0
NODE_IP=$PODS.0.1 # the API server and every other program of the cluster listen here and nowhere else
POD_CIDR=$PODS.0.0/16
SERVICE_CIDR=$SERVICES.0.0/16
API_SERVICE_IP=$SERVICES.0.1
DNS_IP=$SERVICES.0.10
API=https://$NODE_IP:6443
ETCD=http://127.0.0.1:23790 # without TLS, so where no pod can reach it
ETCD_PEER=http://127.0.0.1:23800
CGROUP=freehold-$OURS
CONTAINERD=$SHORT/containerd.sock
NETPOL=$SHORT/netpol.sock

admin() { kubectl --kubeconfig "$STATE/kubeconfig" "$@"; }
ctr() { command ctr --address "$CONTAINERD" --namespace k8s.io "$@"; }

# --- network -------------------------------------------------------------------------------------

network() {
  local key
  if ! ip link show "$BRIDGE" >/dev/null 2>&1; then
    # A fixed hardware address, or the bridge would take that of whichever pod comes first.
    ip link add "$BRIDGE" address 0a:58:0a:65:00:01 type bridge
    sysctl -qw "net.ipv6.conf.$BRIDGE.disable_ipv6=1" 2>/dev/null || true
    ip address add "$NODE_IP/${POD_CIDR#*/}" dev "$BRIDGE"
    ip link set "$BRIDGE" up
  fi
  modprobe -q br_netfilter 2>/dev/null || true
  for key in net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables; do
    [[ $(sysctl -n "$key" 2>/dev/null) == 1 ]] || sysctl -qw "$key=1" ||
      die "$key must be 1 and cannot be set; is the kernel module br_netfilter there?"
  done
  # One rule for all pods on their way out of the machine.
  nft -f - <<EOF
add table ip freehold_nat
delete table ip freehold_nat
table ip freehold_nat {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr $POD_CIDR ip daddr != $POD_CIDR oifname != "$BRIDGE" masquerade
  }
}
EOF
}

# remove_network [shared]: with "shared" also the tables that any kube-proxy writes. The bridge goes last, for
# `remains` knows by it that we were up.
remove_network() {
  local table link tables=("inet freehold_netpol" "bridge freehold_netpol" "ip freehold_nat")
  if [[ ${1:-} == shared ]]; then tables+=("ip kube-proxy" "ip6 kube-proxy"); fi
  for table in "${tables[@]}"; do
    # shellcheck disable=SC2086 # family and name
    if nft list table $table >/dev/null 2>&1; then nft delete table $table; fi
  done
  if ip link show "$BRIDGE" >/dev/null 2>&1; then
    ip -o link show master "$BRIDGE" | awk -F'[:@ ]+' '{ print $2 }' | while read -r link; do
      ip link delete "$link" || true
    done
    ip link delete "$BRIDGE"
  fi
}

# --- cgroups -------------------------------------------------------------------------------------

# The kubelet exits unless its root exists in every hierarchy it looks at.
cgroups() {
  local controller file
  if [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]]; then
    for controller in cpuset cpu memory pids; do
      echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    done
    mkdir -p "/sys/fs/cgroup/$CGROUP"
    return
  fi
  for controller in cpu cpuacct cpuset memory pids systemd; do
    if [[ -d /sys/fs/cgroup/$controller ]]; then mkdir -p "/sys/fs/cgroup/$controller/$CGROUP"; fi
  done
  for file in cpuset.cpus cpuset.mems; do
    cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$CGROUP/$file"
  done
}

cgroup_folders() { find /sys/fs/cgroup -maxdepth 2 -type d -name "$CGROUP" 2>/dev/null; }

remove_cgroups() {
  local folder
  for folder in $(cgroup_folders); do
    retry 5 rmdir_tree "$folder" || say "warning: $folder is still busy"
  done
}

rmdir_tree() {
  find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
  [[ ! -d $1 ]]
}

# --- runtime and kubelet -------------------------------------------------------------------------

runtime() {
  start containerd containerd --config "$CONF/containerd.toml"
  await containerd 20 ctr version
}

node() {
  mkdir -p /var/lib/kubelet/device-plugins
  start kubelet kubelet --config "$CONF/kubelet.yaml" --kubeconfig "$PKI/kubelet.kubeconfig" \
    --root-dir "$SHORT/kubelet" --cert-dir "$SHORT/kubelet/pki" --hostname-override "$NODE" --node-ip "$NODE_IP" \
    --node-labels freehold.dev/dev=true
}

# Shims outlive a killed runtime and leave only when their task is deleted.
end_containers() {
  local ids
  for ids in $(ctr tasks ls -q 2>/dev/null); do
    ctr tasks delete --force "$ids" >/dev/null 2>&1 || true
  done
  ids=$(ctr containers ls -q 2>/dev/null) || true
  # shellcheck disable=SC2086 # a list of ids
  if [[ -n $ids ]]; then ctr containers delete $ids >/dev/null 2>&1 || true; fi
  for ids in $(ctr sandboxes ls 2>/dev/null | awk 'NR > 1 { print $1 }'); do
    ctr sandboxes rm "$ids" >/dev/null 2>&1 || true
  done
}

# What is still in our cgroups or bears our mark, shims among it: also when the files that named it are lost.
end_strays() {
  local pid folder
  for folder in $(grep -lzx "$MARK" /proc/[0-9]*/environ 2>/dev/null); do
    pid=${folder//[^0-9]/}
    kill -9 "$pid" 2>/dev/null || true
  done
  for folder in $(cgroup_folders); do
    find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null
  done | sort -u | while read -r pid; do
    kill -9 "$pid" 2>/dev/null || true
  done
}

unmount() {
  local target
  awk -v ours="$SHORT/" -v builds="$CACHE/buildah/" 'index($2, ours) == 1 || index($2, builds) == 1 { print $2 }' /proc/mounts | sort -r | while read -r target; do
    umount -l "$target" 2>/dev/null || true
  done
}

load_image() { ctr images import --local "$1"; }
