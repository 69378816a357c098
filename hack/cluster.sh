#!/usr/bin/env bash
# A real Kubernetes node on this machine. Usage: hack/cluster.sh up|down|mend|kill|purge|status|load-image ARCHIVE
# With CLUSTER=far a second one beside the first, in a network of its own (hack/cluster/apart.sh).
# `up` can be repeated; after a crash it clears what is left and starts anew. `down` leaves no process,
# mount, cgroup, bridge or rule behind and keeps images; `purge` removes those too.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=process.sh
source "$HACK/process.sh"
# shellcheck source=cluster/pki.sh
source "$HACK/cluster/pki.sh"
# shellcheck source=cluster/config.sh
source "$HACK/cluster/config.sh"
# shellcheck source=cluster/node.sh
source "$HACK/cluster/node.sh"
# shellcheck source=cluster/apart.sh
source "$HACK/cluster/apart.sh"

export RESUME="hack/cluster.sh up"
PROCESSES=(etcd kube-apiserver kube-controller-manager kube-scheduler containerd netpol kubelet kube-proxy)

up() {
  if [[ $CLUSTER == existing ]]; then
    kubectl version --output=yaml >/dev/null || die "the current kube context does not answer; try: kubectl version"
    return
  fi
  ((EUID == 0)) || die "the development cluster needs root"
  if healthy; then return; fi
  remains && down
  pki
  configuration
  network
  cgroups
  rm -f "$STATE"/logs/audit*.log # one cluster, one story
  control_plane
  runtime
  await kube-apiserver 60 admin get --raw /readyz
  controllers
  node
  apply netpol
  start netpol netpol --bridge "$BRIDGE" --kubeconfig "$PKI/netpol.kubeconfig" --socket "$NETPOL"
  FREEHOLD_IN_STAGE=1 "$HACK/images.sh" system
  await netpol 20 test -S "$NETPOL"
  await kubelet 60 node_ready
  apply dns # not before: a pod that meets no node waits long for its second chance
  # It waits up to 30 s for its own Node object, so it comes after that.
  start kube-proxy kube-proxy --config "$CONF/kube-proxy.yaml"
  await kube-controller-manager 30 admin get serviceaccount default -n default
  await kubelet 60 admin wait --for=condition=Available deployment/coredns -n kube-system --timeout=1s
  await kube-proxy 30 dns_answers
}

control_plane() {
  mkdir -p "$SHORT/etcd"
  mountpoint -q "$SHORT/etcd" || mount -t tmpfs -o size=2g,mode=0700 freehold-etcd "$SHORT/etcd"
  start etcd etcd --name dev --data-dir "$SHORT/etcd/data" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "$ETCD" --advertise-client-urls "$ETCD" \
    --listen-peer-urls "$ETCD_PEER" --initial-advertise-peer-urls "$ETCD_PEER" --initial-cluster "dev=$ETCD_PEER"
  start kube-apiserver kube-apiserver \
    --advertise-address "$NODE_IP" --bind-address "$NODE_IP" --secure-port 6443 --etcd-servers "$ETCD" \
    --service-cluster-ip-range "$SERVICE_CIDR" --allow-privileged \
    --client-ca-file "$PKI/ca.crt" --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
    --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate "$PKI/apiserver-kubelet.crt" --kubelet-client-key "$PKI/apiserver-kubelet.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$PKI/service-accounts.pub" --service-account-signing-key-file "$PKI/service-accounts.key" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --requestheader-client-ca-file "$PKI/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- --enable-aggregator-routing \
    --proxy-client-cert-file "$PKI/front-proxy.crt" --proxy-client-key-file "$PKI/front-proxy.key" \
    --audit-policy-file "$CONF/audit.yaml" --audit-log-path "$STATE/logs/audit.log" \
    --audit-log-maxsize 100 --audit-log-maxbackup 1
}

# They give up at once where the API server's own roles are not there yet, so they come after it.
controllers() {
  start kube-controller-manager kube-controller-manager --leader-elect=false --bind-address "$NODE_IP" \
    --kubeconfig "$PKI/kube-controller-manager.kubeconfig" --use-service-account-credentials \
    --authentication-kubeconfig "$PKI/kube-controller-manager.kubeconfig" \
    --authorization-kubeconfig "$PKI/kube-controller-manager.kubeconfig" \
    --root-ca-file "$PKI/ca.crt" --service-account-private-key-file "$PKI/service-accounts.key" \
    --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key"
  start kube-scheduler kube-scheduler --leader-elect=false --bind-address "$NODE_IP" \
    --kubeconfig "$PKI/kube-scheduler.kubeconfig" --authentication-kubeconfig "$PKI/kube-scheduler.kubeconfig" \
    --authorization-kubeconfig "$PKI/kube-scheduler.kubeconfig"
}

apply() {
  sed "s|@DNS_IP@|$DNS_IP|; s|@FORWARD@|$(forward_zone)|" "$HACK/cluster/$1.yaml" |
    admin apply --server-side --force-conflicts -f - >/dev/null
}

# Names outside the cluster go where this machine asks, unless it asks itself.
forward_zone() {
  local servers
  servers=$(awk '$1 == "nameserver" && $2 !~ /^(127\.|::1)/ { printf " %s", $2 }' /etc/resolv.conf)
  if [[ -n $servers ]]; then echo "forward .$servers"; fi
}

node_ready() { admin wait --for=condition=Ready "node/$NODE" --timeout=1s; }

# The whole path: service address, proxy rules, bridge, pod. A DNS query for kubernetes.default over TCP.
dns_answers() {
  local query='\x00\x36\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01'
  timeout 2 bash -c "exec 3<>/dev/tcp/$DNS_IP/53; printf '$query' >&3; head -c 40 <&3" | tail -c +40 | grep -q .
}

healthy() {
  local name
  for name in "${PROCESSES[@]}"; do
    alive "$name" || return 1
  done
  node_ready >/dev/null 2>&1
}

# remains: is there anything of an earlier run that did not end in `down`?
remains() { ls "$STATE"/run/*.pid >/dev/null 2>&1 || ip link show "$BRIDGE" >/dev/null 2>&1; }

# Starts again what has ended of a cluster that is up.
mend() {
  remains || die "there is no cluster to mend: run make up"
  control_plane
  runtime
  controllers
  node
}

# Workloads first, while there still is a runtime to end them; then what they stood on.
down() {
  [[ $CLUSTER != existing ]] || return 0
  if [[ $CLUSTER == dev ]]; then "$HACK/chain.sh" down; fi
  # Asked before anything is removed: what other Kubernetes of the machine has too is ours only if we were up.
  local shared=
  if remains; then shared=shared; fi
  stop kubelet
  if [[ $shared ]]; then
    runtime || true
    end_containers
  fi
  local name
  for name in kube-proxy netpol containerd kube-scheduler kube-controller-manager kube-apiserver etcd; do
    stop "$name"
  done
  end_strays
  unmount
  remove_cgroups
  if [[ $shared ]]; then rm -rf /var/lib/kubelet/device-plugins/*; fi
  remove_network "$shared"
  rm -rf "$SHORT"/{kubelet,pod-logs,cni/addresses,containerd/state,etcd} "$NETPOL"
  # Of the runtime's root images alone stay: a record of a sandbox that is gone would be searched for at each start.
  rm -rf "$SHORT"/containerd/root/io.containerd.{sandbox.controller.v1.shim,grpc.v1.cri,runtime.v2.task}
  rm -rf "$STATE/run"
}

purge() {
  down
  rm -rf "$SHORT/containerd" "$SHORT/cni" "$STATE"
}

status() {
  local name pid
  for name in "${PROCESSES[@]}" anvil; do
    if pid=$(pid_of "$name"); then
      printf '%-25s running  pid %-8s %4d MiB  log %s\n' "$name" "$pid" \
        "$(($(awk '/VmRSS/ { print $2 }' "/proc/$pid/status") / 1024))" "$STATE/logs/$name.log"
    else
      printf '%-25s stopped\n' "$name"
    fi
  done
  healthy || return 1
  admin get nodes -o wide
  say "export KUBECONFIG=$STATE/kubeconfig"
}

if is_apart && [[ -z ${FREEHOLD_APART:-} ]]; then
  apart "$@"
  exit
fi
if is_apart; then settle_apart; fi
case ${1:-} in
  up) stages 1; stage "cluster up" 0:20 locked "cluster-$OURS" up ;;
  down) stages 1; RESUME="hack/cluster.sh down" stage "cluster down" 0:06 locked "cluster-$OURS" down ;;
  purge) locked "cluster-$OURS" purge ;;
  status) status ;;
  mend) locked "cluster-$OURS" mend ;;
  kill) end_strays ;; # as a machine does that loses its power
  load-image) [[ -f ${2:-} ]] || die "which archive? usage: hack/cluster.sh load-image ARCHIVE"; load_image "$2" ;;
  *) die "usage: hack/cluster.sh up|down|mend|kill|purge|status|load-image ARCHIVE" ;;
esac
