#!/usr/bin/env bash
# The demo: a management plane with the simulated cloud, a cluster of three machines
# from the sample manifest, and what to type next.
#
#   deploy/demo.sh BINARIES     the folder of clusterctl and provider-fake
#
# DEMO_ONCE=1    end with exit code 0 once the machines run (for CI), leaving nothing behind
# DEMO_DIR=DIR   keep the state there, to go on later; without it a new folder each time
set -euo pipefail

binaries=$(cd "${1:?usage: deploy/demo.sh BINARIES}" && pwd)
samples=$(cd "$(dirname "$0")/samples" && pwd)
clusterctl="$binaries/clusterctl"

if [ -n "${DEMO_DIR:-}" ]; then
    mkdir -p "$DEMO_DIR"
    directory=$(cd "$DEMO_DIR" && pwd)
else
    directory=$(mktemp -d "${TMPDIR:-/tmp}/outrigger-demo.XXXXXX")
fi

plane=
finish() {
    trap - EXIT
    if [ -n "$plane" ] && kill -0 "$plane" 2>/dev/null; then
        kill -TERM "$plane"
        wait "$plane" || true
    fi
    [ -n "${DEMO_DIR:-}" ] || rm -rf "$directory"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Machines of the simulated cloud take a moment to boot, so that there is something to see.
export PROVIDER_FAKE_BOOT_DELAY="${PROVIDER_FAKE_BOOT_DELAY:-2s}"
export PROVIDER_FAKE_BOOT_JITTER="${PROVIDER_FAKE_BOOT_JITTER:-1s}"

echo "== clusterctl up --provider fake"
output="$directory/clusterctl.out"
mkfifo "$directory/ready.$$"
"$clusterctl" up --data-dir "$directory/plane" --provider fake >"$directory/ready.$$" 2>"$output" &
plane=$!
# `up` prints its line when it serves; when it ends before, the pipe closes and read fails.
ready=
while IFS= read -r line; do
    case "$line" in "ready: "*)
        ready=${line#ready: }
        break
        ;;
    esac
done <"$directory/ready.$$"
rm -f "$directory/ready.$$"
if [ -z "$ready" ]; then
    echo "clusterctl up ended before it was ready:" >&2
    cat "$output" >&2
    exit 1
fi
export KUBECONFIG="$directory/plane/kubeconfig"

echo "== clusterctl apply -f deploy/samples/fake.yaml"
"$clusterctl" apply -f "$samples/fake.yaml"
echo "== clusterctl wait cluster demo"
"$clusterctl" wait cluster demo --timeout 2m || {
    status=$?
    cat "$output" >&2
    exit "$status"
}
echo "== clusterctl describe cluster demo"
"$clusterctl" describe cluster demo --show-machines

[ -z "${DEMO_ONCE:-}" ] || exit 0

cat <<TEXT

The management plane runs until Ctrl-C. In another terminal:

  $ready
  kubectl get cluster-api
  kubectl scale machinedeployment demo-workers --replicas 5
  kubectl edit machinedeployment demo-workers      # another image: a rolling update
  kubectl delete cluster demo

Its log is $output
TEXT
wait "$plane"
