# shellcheck shell=bash
# Configuration files of the cluster's programs. Sourced by cluster.sh.

CONF=$STATE/conf

configuration() {
  mkdir -p "$CONF" "$SHORT"/{cni/bin,cni/conf,cdi,kubelet} /var/run/cdi
  containerd_config >"$CONF/containerd.toml"
  kubelet_config >"$CONF/kubelet.yaml"
  proxy_config >"$CONF/kube-proxy.yaml"
  audit_policy >"$CONF/audit.yaml"
  network_config >"$SHORT/cni/conf/10-freehold.conflist"
  : >"$CONF/resolv.conf"
  local plugin
  for plugin in bridge host-local loopback; do
    ln -sfn "/usr/lib/cni/$plugin" "$SHORT/cni/bin/$plugin"
  done
  ln -sfn "$CACHE/bin/netpol" "$SHORT/cni/bin/freehold-netpol"
}

# restrict_oom_score_adj: without CAP_SYS_RESOURCE every pod would fail with "can't get final child's PID".
containerd_config() {
  cat <<EOF
version = 3
root = "$SHORT/containerd/root"
state = "$SHORT/containerd/state"

[grpc]
address = "$CONTAINERD"

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "freehold.dev/pause:dev"

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
enable_cdi = true
cdi_spec_dirs = ["$SHORT/cdi", "/var/run/cdi", "/etc/cdi"]
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["$SHORT/cni/bin"]
conf_dir = "$SHORT/cni/conf"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "$(command -v runc)"
SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.visible-devices]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.visible-devices.options]
BinaryName = "$HACK/cluster/visible-devices.sh"
SystemdCgroup = false
EOF
}

# Masquerading is one rule of ours (see network): a chain for each pod would outlive a killed runtime.
# The last plugin holds a pod back until its NetworkPolicies are in force.
network_config() {
  cat <<EOF
{
  "cniVersion": "1.0.0",
  "name": "freehold",
  "plugins": [
    {
      "type": "bridge", "bridge": "$BRIDGE", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "$SHORT/cni/addresses",
        "ranges": [[{ "subnet": "$POD_CIDR", "gateway": "$NODE_IP" }]], "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    { "type": "freehold-netpol", "socket": "$NETPOL" }
  ]
}
EOF
}

# Image collection is off in effect: an imported image cannot be pulled again.
kubelet_config() {
  cat <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
healthzBindAddress: $NODE_IP
authentication:
  anonymous: { enabled: false }
  webhook: { enabled: true }
  x509: { clientCAFile: $PKI/ca.crt }
authorization: { mode: Webhook }
tlsCertFile: $PKI/kubelet-server.crt
tlsPrivateKeyFile: $PKI/kubelet-server.key
clusterDomain: cluster.local
clusterDNS: [$DNS_IP]
containerRuntimeEndpoint: unix://$CONTAINERD
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
maxPods: 250
podLogsDir: $SHORT/pod-logs
resolvConf: $CONF/resolv.conf
syncFrequency: 10s
imageGCHighThresholdPercent: 100 # never: no registry could give an image back
evictionHard: { memory.available: 100Mi, nodefs.available: 500Mi, imagefs.available: 500Mi, nodefs.inodesFree: 1% }
EOF
}

# Zeroes keep it from writing sysctls it may not be allowed to write.
proxy_config() {
  cat <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: $NODE_IP
healthzBindAddress: $NODE_IP
metricsBindAddress: $NODE_IP
clientConnection: { kubeconfig: $PKI/kube-proxy.kubeconfig }
clusterCIDR: $POD_CIDR
hostnameOverride: $NODE
mode: nftables
conntrack: { maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
EOF
}

# Who asked for what, for tests of least privilege; the cluster's own parts are left out.
audit_policy() {
  cat <<EOF
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:node:$NODE", "freehold:netpol"]
  - level: None
    userGroups: ["system:serviceaccounts:kube-system"]
  - level: None
    nonResourceURLs: ["/*"]
  - level: Metadata
EOF
}
