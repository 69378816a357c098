#!/usr/bin/env bash
# The main job: a tenant's training task on a provider's GPU node, paid on the chain; then the trained
# model predicts rows that it has never seen. Ends with a table read from the cluster and the chain.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export RESUME="make demo"

DEMO=$CACHE/clusters/dev/demo
GATEWAY_PORT=30080
# Accounts 1 and 2 of anvil's mnemonic: known to everybody, worth nothing anywhere else.
TENANT=0x70997970C51812dc3A010C7d01b50e0d17dc79C8
TENANT_KEY=59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d
PROVIDER=0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC
PROVIDER_KEY=5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a
DEPLOYER_KEY=0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80
RPC=http://${CHAIN_HOST:-10.101.0.1}:8545
DEPLOYMENT=$ROOT/deployments/31337.json
mkdir -p "$DEMO" "$ROOT/out"

contract() { jq -re ".$1" "$DEPLOYMENT"; }
image() { jq -re ".$1" "$CACHE/clusters/dev/images.json"; }

# Tokens for both sides; a wallet that has enough is left alone.
tokens() {
  local account token
  token=$(contract token)
  for account in "$TENANT" "$PROVIDER"; do
    if [[ $(cast call --rpc-url "$RPC" "$token" 'balanceOf(address)(uint256)' "$account" | cut -d' ' -f1) -lt 1000000000 ]]; then
      cast send --rpc-url "$RPC" --private-key "$DEPLOYER_KEY" "$token" 'mint(address,uint256)' "$account" 1000000000 >/dev/null
    fi
  done
}

# values ACCOUNT: what both releases share, for the named ComputeAccount.
values() {
  cat <<YAML
image: $(image freehold)
account:
  name: $1
  chain:
    chainId: $(contract chainId)
    rpcUrls: ["$RPC"]
    blockTime: 2s
    windows: { bids: 20s, start: 5m, review: 10m }
  confirmations: { blocks: 3, finalized: false }
  market: "$(contract market)"
  providerRegistry: "$(contract providerRegistry)"
  token: "$(contract token)"
YAML
}

# install NAMESPACE KEY ARGUMENT…: the account's key as a Secret, then the chart.
install() {
  local namespace=$1 key=$2
  shift 2
  kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f -
  kubectl -n "$namespace" create secret generic freehold-account --from-literal=key="$key" --dry-run=client -o yaml |
    kubectl apply -f -
  helm upgrade --install freehold "$ROOT/charts/freehold" --namespace "$namespace" --wait --timeout 3m "$@"
}

kinds() { helm upgrade --install freehold-crds "$ROOT/charts/freehold-crds" --namespace default; }

provider() {
  values provider-a >"$DEMO/provider.yaml"
  cat >>"$DEMO/provider.yaml" <<YAML
provider:
  enabled: true
  name: provider-a
  gatewayUrl: http://10.101.0.1:$GATEWAY_PORT
  attributes: { region: eu-north, tier: development }
  pricing: { gpu: { "*": "1.00" }, cpu: "0.01", memory: "0.002", disk: "0.0001", minimum: "0.10" }
  gateway:
    service: { type: NodePort, nodePort: $GATEWAY_PORT }
    allowedCidrs: ["10.101.0.0/16"]
  gpu:
    plugin: builtin
    nvmlLibrary: /var/lib/freehold-dev/gpu/libnvidia-ml.so.1
    devRoot: /var/lib/freehold-dev/gpu/dev
    cdiDir: /var/lib/freehold-dev/cdi
    pluginsRegistryDir: /var/lib/freehold-dev/kubelet/plugins_registry
    podResourcesDir: /var/lib/freehold-dev/kubelet/pod-resources
    hostPaths: [/var/lib/freehold-dev/gpu]
    privileged: false
    env: { FREEHOLD_FAKE_NVML_STATE: /var/lib/freehold-dev/gpu/state.json }
YAML
  install freehold-provider "$PROVIDER_KEY" -f "$DEMO/provider.yaml"
  kubectl wait --for=condition=Ready --timeout=60s computeaccount/provider-a
  kubectl -n freehold-provider wait --for=condition=Registered --timeout=60s computeprovider/provider-a
  kubectl -n freehold-provider wait --for=condition=Bidding --timeout=60s computeprovider/provider-a
}

tenant() {
  values team-a >"$DEMO/tenant.yaml"
  cat >>"$DEMO/tenant.yaml" <<YAML
tenant:
  enabled: true
  trainerImage: $(image trainer)
  store: { hostPath: /var/lib/freehold-dev/tenant-store }
  allowedCidrs: ["10.101.0.0/16"]
YAML
  install freehold-tenant "$TENANT_KEY" -f "$DEMO/tenant.yaml"
  kubectl wait --for=condition=Ready --timeout=60s computeaccount/team-a
  kubectl apply -f "$ROOT/examples/tenant.yaml"
}

# fresh KIND NAME FILE: the task as if applied for the first time.
fresh() {
  kubectl -n demo delete "$1" "$2" --ignore-not-found --wait --timeout=120s
  researcher apply -f "$3"
}

# As the tenant's user, not as an administrator.
researcher() { kubectl --as=system:serviceaccount:demo:researcher "$@"; }

configmap() {
  kubectl -n demo create configmap "$1" --from-file="$2" --dry-run=client -o yaml | kubectl apply --server-side -f -
}

# complete KIND NAME: waits for the end; a task that failed is told at once.
complete() {
  local end=$((SECONDS + 420)) state
  while ((SECONDS < end)); do
    state=$(kubectl -n demo get "$1" "$2" -o jsonpath='{.status.state}')
    case $state in
      Complete) return 0 ;;
      Failed) break ;;
    esac
    kubectl -n demo wait "$1/$2" --for=jsonpath='{.status.state}'=Complete --timeout=5s >/dev/null 2>&1 || true
  done
  kubectl -n demo describe "$1" "$2"
  return 1
}

train() {
  configmap digits "digits-train.csv.gz=$ROOT/examples/data/digits-train.csv.gz"
  fresh trainingtask digits "$ROOT/examples/training-task.yaml"
  complete trainingtask digits
}

infer() {
  configmap digits-test "digits-test.csv.gz=$ROOT/examples/data/digits-test.csv.gz"
  fresh inferencetask digits-test "$ROOT/examples/inference-task.yaml"
  complete inferencetask digits-test
}

settled() {
  kubectl -n demo wait --for=condition=Settled --timeout=120s trainingtask/digits inferencetask/digits-test
}

began=$SECONDS
say "Freehold: own your AI, lease the compute."
"$HACK/up.sh"
stages 7
stage "kinds and policies" 0:05 kinds
stage "tokens for both sides" 0:05 tokens
stage "provider: agent, gateway, operator" 0:25 provider
stage "tenant: operator, budget, right to spend" 0:20 tenant
stage "train: order, bid, lease, run, verdict" 1:10 train
stage "infer: predictions for rows never seen" 1:00 infer
stage "settle: refunds are in the wallet" 0:20 settled
python3 "$HACK/report.py" --rpc "$RPC" --market "$(contract market)" --out "$ROOT/out/demo.json"
say ""
say "Done in $(clock $((SECONDS - began))). Look around:"
say "  export KUBECONFIG=$KUBECONFIG PATH=$CACHE/bin:\$PATH"
say "  kubectl get tt,it,cprov,gpun -A"
say "  kubectl -n demo describe tt digits"
say "  $CARGO_TARGET_DIR/debug/freehold audit lease $(jq -r .orderId "$ROOT/out/demo.json") --rpc $RPC --market $(contract market)"
say "  make down"
