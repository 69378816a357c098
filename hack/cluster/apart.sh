# shellcheck shell=bash
# A second cluster on one machine: in network and mounts of its own, for what each Kubernetes node takes for its own (the
# service proxy's rules, the folder of device plugins) can be there once only. Sourced by cluster.sh.

LINK=fh-far # the host's end of the wire
HOST_END=10.120.0.1
FAR_END=10.120.0.2

is_apart() { [[ $CLUSTER == far ]]; }

# apart COMMAND…: does it in there; a process that only sleeps keeps the place.
apart() {
  local place
  if [[ ${1:-} == kill ]]; then
    end_strays
    return
  fi
  enclose
  place=$(pid_of place)
  nsenter --target "$place" --net --mount env FREEHOLD_APART=1 "$HACK/cluster.sh" "$@"
  case ${1:-} in down | purge) kill "$place" ;; esac
}

enclose() {
  local place
  start place unshare --net --mount --propagation private sleep infinity
  await place 5 enclosed
  place=$(pid_of place)
  ip link show "$LINK" >/dev/null 2>&1 && return
  ip link add "$LINK" type veth peer name uplink netns "$place"
  ip address add "$HOST_END/30" dev "$LINK"
  ip link set "$LINK" up
  ip route replace "$POD_CIDR" via "$FAR_END"
}

enclosed() { [[ $(readlink "/proc/$(pid_of place)/ns/net") != $(readlink /proc/self/ns/net) ]]; }

# What is seen from in there: the way out, and folders that are another's on the host.
uplink() {
  ip link set lo up
  ip address replace "$FAR_END/30" dev uplink
  ip link set uplink up
  ip route replace default via "$HOST_END"
  mkdir -p "$SHORT/var-lib-kubelet" /var/lib/kubelet
  mountpoint -q /var/lib/kubelet || mount --bind "$SHORT/var-lib-kubelet" /var/lib/kubelet
}
