# shellcheck shell=bash
# A second cluster on one machine: in network and mounts of its own, for what each Kubernetes node takes for its own (the
# service proxy's rules, the folder of device plugins) can be there once only. Sourced by cluster.sh.

LINK=fh-far # the host's end of the wire
HOST_END=10.120.0.1
FAR_END=10.120.0.2
PLACE=$STATE/place # the process that keeps network and mounts

is_apart() { [[ $CLUSTER == far ]]; }

# apart COMMAND…: does it in there; a process that only sleeps keeps the place.
apart() {
  if [[ ${1:-} == kill ]]; then
    end_strays
    return
  fi
  local place
  enclose
  place=$(<"$PLACE")
  nsenter --target "$place" --net --mount env FREEHOLD_APART=1 "$HACK/cluster.sh" "$@"
  case ${1:-} in
    down | purge)
      kill "$place" 2>/dev/null || true # it may have ended with the rest
      ip route delete blackhole "$POD_CIDR" metric 1000
      rm -f "$PLACE"
      ;;
  esac
}

enclose() {
  mkdir -p "$STATE"
  if ! is_ours "$(cat "$PLACE" 2>/dev/null)"; then
    rm -f "$PLACE"
    # shellcheck disable=SC2016 # expanded in there
    env "$MARK" setsid --fork unshare --net --mount --propagation private \
      bash -c 'echo $$ >"$1"; exec sleep infinity' - "$PLACE" >/dev/null 2>&1 </dev/null
    retry 5 test -s "$PLACE" || die "no place for a second cluster; try: unshare --net --mount true"
  fi
  ip link show "$LINK" >/dev/null 2>&1 && return
  ip link add "$LINK" type veth peer name uplink netns "$(<"$PLACE")"
  ip address add "$HOST_END/30" dev "$LINK"
  ip link set "$LINK" up
  ip route replace "$POD_CIDR" via "$FAR_END"
  ip route replace blackhole "$POD_CIDR" metric 1000 # once it is dead nobody answers in its stead
}

# Before anything else in there: the way out, and a folder that is the first cluster's on the host.
settle_apart() {
  ip link set lo up
  ip address replace "$FAR_END/30" dev uplink
  ip link set uplink up
  ip route replace default via "$HOST_END"
  mkdir -p "$SHORT/var-lib-kubelet" /var/lib/kubelet
  mountpoint -q /var/lib/kubelet || mount --bind "$SHORT/var-lib-kubelet" /var/lib/kubelet
}
