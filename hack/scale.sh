#!/usr/bin/env bash
# A thousand tasks through their whole lives, and what that costs: a control plane and a chain of their own on
# 127.0.0.1, KWOK in place of kubelets, a scripted courier in place of containers; operators, gateway, contracts,
# policies and rights are the real ones. Ends by itself, leaves nothing behind but logs, and may run beside the
# development cluster. SCALE_TASKS (default 1000); hack/scale/README.md says what else may be set.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=process.sh
source "$HACK/process.sh"
export RESUME="make scale"

STATE=$CACHE/clusters/scale MARK=FREEHOLD_CLUSTER=scale
export KUBECONFIG=$STATE/kubeconfig
NODE=scale NODE_IP=127.0.0.1 SERVICE_CIDR=10.112.0.0/16 API_SERVICE_IP=10.112.0.1
API=https://127.0.0.1:16443 ETCD=http://127.0.0.1:16379 ETCD_PEER=http://127.0.0.1:16380
RPC=http://127.0.0.1:18645
# The first of anvil's mnemonic: known to everybody, worth nothing anywhere else.
DEPLOYER_KEY=0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80
# shellcheck source=cluster/pki.sh
source "$HACK/cluster/pki.sh"

# Who wrote what: only our own service accounts, only writes.
audit_policy() {
  cat <<YAML
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    verbs: [create, update, patch, delete, deletecollection]
    userGroups: ["system:serviceaccounts:freehold-tenant", "system:serviceaccounts:freehold-provider", "system:serviceaccounts:freehold-provider-agent"]
  - level: None
YAML
}

control_plane() {
  pki
  audit_policy >"$STATE/audit.yaml"
  mkdir -p "$STATE/etcd"
  start etcd etcd --name scale --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "$ETCD" --advertise-client-urls "$ETCD" \
    --listen-peer-urls "$ETCD_PEER" --initial-advertise-peer-urls "$ETCD_PEER" --initial-cluster "scale=$ETCD_PEER"
  # No endpoints of the service "kubernetes": a loopback address cannot be one, and nothing here asks for it.
  start kube-apiserver kube-apiserver --bind-address "$NODE_IP" --secure-port "${API##*:}" --advertise-address "$NODE_IP" \
    --endpoint-reconciler-type none --etcd-servers "$ETCD" --etcd-compaction-interval 1m0s --service-cluster-ip-range "$SERVICE_CIDR" \
    --client-ca-file "$PKI/ca.crt" --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$PKI/service-accounts.pub" --service-account-signing-key-file "$PKI/service-accounts.key" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --audit-policy-file "$STATE/audit.yaml" --audit-log-path "$STATE/logs/audit.log"
  await kube-apiserver 120 kubectl get --raw /readyz
  start kube-controller-manager kube-controller-manager --leader-elect=false --bind-address "$NODE_IP" --secure-port 16257 \
    --kubeconfig "$PKI/kube-controller-manager.kubeconfig" --use-service-account-credentials \
    --root-ca-file "$PKI/ca.crt" --service-account-private-key-file "$PKI/service-accounts.key" \
    --kube-api-qps 200 --kube-api-burst 400
  start kube-scheduler kube-scheduler --leader-elect=false --bind-address "$NODE_IP" --secure-port 16259 \
    --kubeconfig "$PKI/kube-scheduler.kubeconfig" --kube-api-qps 200 --kube-api-burst 400
  await kube-controller-manager 120 kubectl get serviceaccount default -n default
}

nodes() {
  start kwok kwok --config "$HACK/scale/stages.yaml" --kubeconfig "$KUBECONFIG" --server-address 127.0.0.1:16247 \
    --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake --node-ip 127.0.0.1 --node-port 16247 \
    --node-lease-duration-seconds 40
  await kwok 60 curl -fsS http://127.0.0.1:16247/healthz
}

# A block a second, `finalized` two behind the head.
chain() {
  start anvil anvil --host 127.0.0.1 --port "${RPC##*:}" --chain-id 31337 --block-time 1 --slots-in-an-epoch 1 --quiet
  await anvil 30 cast chain-id --rpc-url "$RPC"
  DEPLOYMENTS=$STATE "$ROOT/contracts/deploy.sh" "$RPC" "$DEPLOYER_KEY"
}

# What bears our mark, also of a run that was killed; then all but logs and keys.
clear() {
  local file
  for file in $(grep -lzx "$MARK" /proc/[0-9]*/environ 2>/dev/null); do
    [[ ${file//[^0-9]/} == "$$" ]] || kill -9 "${file//[^0-9]/}" 2>/dev/null || true
  done
  rm -rf "$STATE"/{etcd,run,store,tokens,31337.json}
}

run() {
  trap clear EXIT
  trap 'exit 130' INT TERM
  clear
  rm -rf "$STATE/logs"
  mkdir -p "$STATE/logs"
  stage "scale: control plane" 0:20 control_plane
  stage "scale: KWOK" 0:05 nodes
  stage "scale: chain and contracts" 0:20 chain
  # Waited for, not run in front: a trap strikes at once only then.
  env "$MARK" python3 "$HACK/scale/run.py" --state "$STATE" --etcd "$ETCD" --rpc "$RPC" --program "$PROGRAM" "$@" &
  wait $!
}

stages 6
PROGRAM=$CARGO_TARGET_DIR/debug/freehold
stage "cluster programs: KWOK" 1:30 "$HACK/tools.sh" kwok
stage "cluster programs: Kubernetes, etcd, helm" 0:01 bash -c 'for part in kubernetes etcd helm node; do "$0" "$part"; done' "$HACK/tools.sh"
stage "operator" 3:00 "$HACK/build.sh" operator
locked scale run "$@"
