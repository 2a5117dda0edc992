# kubectl, for the tests that drive it. Sourced by .ci/tools.

KUBECTL=0.34.2 # of the Go module k8s.io/kubectl, that is Kubernetes 1.34.2

install_kubectl() {
    # Any kubectl of the usual skew will do.
    if [ ! -x "$bin/kubectl" ] && command -v kubectl >/dev/null; then
        return
    fi
    local target="$tools/kubectl-$KUBECTL"
    if [ ! -x "$target/kubectl" ]; then
        command -v go >/dev/null || fail "kubectl is missing and can be built with go; install one of them and try again"
        say "building kubectl $KUBECTL (minutes, only once)"
        mkdir -p "$scratch/kubectl/out"
        cat >"$scratch/kubectl/main.go" <<'GO'
// kubectl, as k8s.io/kubernetes/cmd/kubectl builds it.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
GO
        (cd "$scratch/kubectl" &&
            go mod init kubectl >/dev/null 2>&1 &&
            go get "k8s.io/kubectl@v$KUBECTL" "k8s.io/component-base@v$KUBECTL" >/dev/null 2>&1 &&
            go mod tidy >/dev/null 2>&1 &&
            go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.${KUBECTL#0.} \
                -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(echo "$KUBECTL" | cut -d. -f2)" -o out/kubectl .)
        rm -rf "$target"
        mv "$scratch/kubectl/out" "$target"
    fi
    ln -sfn "$target/kubectl" "$bin/kubectl"
}
