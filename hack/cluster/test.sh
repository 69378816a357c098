#!/usr/bin/env bash
# Tests the development cluster itself with real pods: jobs with sidecars, DNS, services, images by digest, and
# NetworkPolicies that hold from a container's first instruction. Usage: hack/cluster/test.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

TEST=$HACK/cluster/test
FAILED=0

check() { # check NAME COMMAND…
  local name=$1
  shift
  if "$@"; then say "ok   $name"; else FAILED=1; say "FAIL $name"; fi
}

# job NAME NAMESPACE IMAGE TARGET…: runs a probe to its end and prints what it printed.
job() {
  local name=$1 namespace=$2 image=$3 targets
  shift 3
  targets=$(printf '"%s", ' "$@")
  sed "s|@NAME@|$name|; s|@NAMESPACE@|$namespace|; s|@IMAGE@|$image|; s|@TARGETS@|${targets%, }|" "$TEST/job.yaml" |
    kubectl create -f - >/dev/null
  kubectl wait -n "$namespace" --for=condition=Complete "job/$name" --timeout=60s >/dev/null &&
    kubectl logs -n "$namespace" "job/$name" -c probe
}

open() { grep -qF "$2 open" <<<"$1"; }
shut() { grep -qxF "$2 shut" <<<"$1"; }

trap 'kubectl delete namespace fh-open fh-sealed --ignore-not-found --wait=false >/dev/null 2>&1' EXIT
kubectl delete namespace fh-open fh-sealed --ignore-not-found >/dev/null 2>&1
"$HACK/images.sh" probe >/dev/null
image=$(jq -r .probe "$CACHE/clusters/dev/images.json")

kubectl apply -f "$TEST/pods.yaml" >/dev/null
for namespace in fh-open fh-sealed; do
  retry 30 kubectl get serviceaccount default -n "$namespace" || die "namespace $namespace has no service account"
done
kubectl wait -n fh-open --for=condition=Ready pod/server pod/guarded --timeout=60s >/dev/null
address() { kubectl get pod -n fh-open "$1" -o jsonpath='{.status.podIP}'; }
server=$(address server) guarded=$(address guarded)
link=$(kubectl logs -n fh-open server | sed -n 's|^address \(fe80:[^/]*\)/.*|\1|p' | head -n 1)
node=10.101.0.1
outside=$(ip -4 -o address show scope global | awk -v bridge=fh0 '$2 != bridge { sub("/.*", "", $4); print $4; exit }')

say "a pod without policies (image by tag)"
seen=$(job free fh-open freehold.dev/probe:dev "dns=server.fh-open.svc.cluster.local" "dns=server" "tcp=server:80" \
  "tcp=$server:7070" "tcp=$guarded:8080" "tcp=$node:6443" "tcp=[$link%eth0]:8080" "tcp=$outside:1") || FAILED=1
for target in dns=server.fh-open.svc.cluster.local dns=server tcp=server:80 "tcp=$server:7070" "tcp=$node:6443" \
  "tcp=[$link%eth0]:8080" "tcp=$outside:1"; do
  check "reaches $target" open "$seen" "$target"
done
check "is kept from the guarded pod" shut "$seen" "tcp=$guarded:8080"

say "a sealed pod (image by digest), from its first instruction"
seen=$(job sealed fh-sealed "$image" "tcp=$server:8080" "tcp=$guarded:8080" "tcp=$guarded:9090" \
  "tcp=$guarded:7070" "tcp=$server:7070" "dns=kubernetes.default.svc.cluster.local" "tcp=10.102.0.10:53" \
  "tcp=10.102.0.1:443" "tcp=$node:6443" "tcp=$node:10250" "tcp=[$link%eth0]:8080" "tcp=$outside:1" "tcp=192.0.2.99:80") || FAILED=1
for target in "tcp=$server:8080" "tcp=$guarded:8080" "tcp=$guarded:9090"; do
  check "reaches the allowed $target" open "$seen" "$target"
done
for target in "tcp=$guarded:7070" "tcp=$server:7070" "dns=kubernetes.default.svc.cluster.local" "tcp=10.102.0.10:53" \
  "tcp=10.102.0.1:443" "tcp=$node:6443" "tcp=$node:10250" "tcp=[$link%eth0]:8080" "tcp=$outside:1" "tcp=192.0.2.99:80"; do
  check "is kept from $target" shut "$seen" "$target"
done
say "$(grep -F open <<<"$seen")"

cluster_ip=$(kubectl get service -n fh-open server -o jsonpath='{.spec.clusterIP}')
check "the host reaches a service" timeout 5 bash -c "read -r caller </dev/tcp/$cluster_ip/80 && [[ -n \$caller ]]"
check "kubectl exec is refused by a container without a shell, not by the kubelet" bash -c \
  'kubectl exec -n fh-open server -- /nothing 2>&1 | grep -q "no such file"'
exit "$FAILED"
