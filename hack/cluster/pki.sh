# shellcheck shell=bash
# Keys and certificates of the development cluster: plain openssl, P-256, ten years. Sourced by cluster.sh.

PKI=$STATE/pki

pki() {
  local key
  key=$(hash_of "$HACK/cluster/pki.sh" "$NODE_IP" "$API_SERVICE_IP" "$NODE")
  [[ $(cat "$PKI/made-from" 2>/dev/null) == "$key" ]] && return
  rm -rf "$PKI"
  (
    umask 077
    mkdir -p "$PKI"
    authority ca freehold-dev
    authority front-proxy-ca freehold-dev-front-proxy
    certificate ca apiserver /CN=kube-apiserver serverAuth \
      "IP:$NODE_IP,IP:$API_SERVICE_IP,IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost"
    certificate ca kubelet-server "/O=system:nodes/CN=system:node:$NODE" serverAuth "IP:$NODE_IP,DNS:$NODE"
    certificate ca kubelet "/O=system:nodes/CN=system:node:$NODE" clientAuth
    certificate ca apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
    certificate ca admin /O=system:masters/CN=admin clientAuth
    certificate ca kube-controller-manager /CN=system:kube-controller-manager clientAuth
    certificate ca kube-scheduler /CN=system:kube-scheduler clientAuth
    certificate ca kube-proxy /CN=system:kube-proxy clientAuth
    certificate ca netpol /CN=freehold:netpol clientAuth
    certificate front-proxy-ca front-proxy /CN=front-proxy-client clientAuth
    openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/service-accounts.key"
    openssl ec -in "$PKI/service-accounts.key" -pubout -out "$PKI/service-accounts.pub"
  ) 2>/dev/null || die "openssl could not make the cluster's keys; try: openssl version"
  local user
  for user in kubelet kube-controller-manager kube-scheduler kube-proxy netpol; do
    kubeconfig "$user" "$PKI/$user.kubeconfig"
  done
  kubeconfig admin "$STATE/kubeconfig"
  echo "$key" >"$PKI/made-from"
}

# authority NAME CN
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj "/CN=$2" -keyout "$PKI/$1.key" -out "$PKI/$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
}

# certificate AUTHORITY NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
certificate() {
  local extensions="extendedKeyUsage=$4${5:+$'\n'subjectAltName=$5}"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$3" -keyout "$PKI/$2.key" |
    openssl x509 -req -days 3650 -CA "$PKI/$1.crt" -CAkey "$PKI/$1.key" -CAcreateserial \
      -extfile <(printf '%s\n' "$extensions") -out "$PKI/$2.crt"
}

# kubeconfig USER FILE: everything inline, so the file can be copied.
kubeconfig() {
  (
    umask 077
    cat >"$2" <<EOF
apiVersion: v1
kind: Config
current-context: freehold-dev
clusters:
  - name: freehold-dev
    cluster:
      server: $API
      certificate-authority-data: $(base64 -w0 <"$PKI/ca.crt")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 <"$PKI/$1.crt")
      client-key-data: $(base64 -w0 <"$PKI/$1.key")
contexts:
  - name: freehold-dev
    context: { cluster: freehold-dev, user: $1 }
EOF
  )
}
