# shellcheck shell=bash
# Long-lived processes of the development environment: started apart from the terminal, found again by a
# mark in their environment, so a recycled process number is never mistaken for one of ours. Sourced.

OURS=${CLUSTER/existing/dev} # beside an existing cluster too there are a chain and images
STATE=$CACHE/clusters/$OURS # what the user may look at: keys, kubeconfig, logs
SHORT=/var/lib/freehold-$OURS # short paths: a socket's may not exceed 107 bytes
MARK=FREEHOLD_CLUSTER=$OURS

# start NAME COMMAND…: unless it runs already. Its output goes to a log of its own.
start() {
  local name=$1
  shift
  alive "$name" && return
  mkdir -p "$STATE/run" "$STATE/logs"
  env "$MARK" setsid --fork bash -c 'echo $$ >"$1"; shift; exec "$@"' - "$STATE/run/$name.pid" "$@" \
    >"$STATE/logs/$name.log" 2>&1 </dev/null
}

# pid_of NAME: prints the process number, if that process lives and is ours.
pid_of() {
  local pid
  pid=$(cat "$STATE/run/$1.pid" 2>/dev/null) && is_ours "$pid" && echo "$pid"
}

is_ours() { grep -qzx "$MARK" "/proc/$1/environ" 2>/dev/null; }
alive() { pid_of "$1" >/dev/null; }

# stop NAME: ask, wait up to five seconds, then insist.
stop() {
  local pid
  if pid=$(pid_of "$1"); then
    kill "$pid" 2>/dev/null || true
    retry 5 gone "$pid" || kill -9 "$pid" 2>/dev/null || true
  fi
  rm -f "$STATE/run/$1.pid"
}

gone() { ! is_ours "$1"; }

# await NAME SECONDS COMMAND…: until the command succeeds; says what the process last wrote if it does not.
await() {
  local name=$1 seconds=$2
  shift 2
  retry "$seconds" "$@" && return
  say "$name is not ready after $seconds s ($*); the end of $STATE/logs/$name.log:" >&2
  tail -n 15 "$STATE/logs/$name.log" >&2 || true
  return 1
}
