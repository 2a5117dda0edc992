# The clients of tests/clients. Sourced by .ci/tools. What is made from files there is keyed by
# their hash, and so found again by the tests (tests/clients/src/tools.rs).

HELM3=3.19.5
HELM4=4.3.1
clients="$here/../tests/clients"

# The hash of the files of a folder whose names match, in the order of the names.
key() {
    (cd "$1" && LC_ALL=C ls | grep -E "$2" | LC_ALL=C sort | xargs cat | sha256sum | cut -c1-12)
}

install_helm() { # VERSION
    local target="$tools/helm-$1" major=${1%%.*}
    if [ ! -x "$target/helm" ]; then
        command -v go >/dev/null || fail "helm is built with go, which is missing; install it and try again"
        say "building helm $1 (minutes, only once)"
        CGO_ENABLED=0 GOBIN="$scratch/helm$major" go install -trimpath \
            -ldflags "-s -w -X helm.sh/helm/v$major/internal/version.version=v$1" "helm.sh/helm/v$major/cmd/helm@v$1" >&2
        rm -rf "$target"
        mv "$scratch/helm$major" "$target"
    fi
    ln -sfn "$target/helm" "$bin/helm$major"
}

install_python_client() {
    local target
    target="$tools/clients-python-$(key "$clients/python" '\.txt$')"
    if [ ! -d "$target" ]; then
        command -v python3 >/dev/null || fail "python3 is missing; install it (with venv) and try again"
        say "installing the Python client"
        mkdir "$scratch/python"
        # Its scripts know the path where it was made; the interpreter, which is all that is used, does not.
        python3 -m venv "$scratch/python/venv" >&2
        "$scratch/python/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
            -r "$clients/python/requirements.txt" >&2
        mv "$scratch/python" "$target"
    fi
}

install_javascript_client() {
    local target
    target="$tools/clients-javascript-$(key "$clients/javascript" '\.json$')"
    if [ ! -d "$target" ]; then
        command -v npm >/dev/null || fail "npm is missing; install node and npm and try again"
        say "installing the JavaScript client"
        mkdir "$scratch/javascript"
        cp "$clients/javascript/package.json" "$clients/javascript/package-lock.json" "$scratch/javascript/"
        (cd "$scratch/javascript" && npm ci --silent --ignore-scripts --no-audit --no-fund >&2)
        mv "$scratch/javascript" "$target"
    fi
}

install_informer() {
    local target
    target="$tools/clients-informer-$(key "$clients/informer" '(\.go|go\.mod|go\.sum)$')"
    if [ ! -d "$target" ]; then
        command -v go >/dev/null || fail "tests/clients/informer is built with go, which is missing; install it and try again"
        say "building tests/clients/informer (minutes the first time)"
        mkdir "$scratch/informer"
        (cd "$clients/informer" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w" -o "$scratch/informer/informer" . >&2)
        mv "$scratch/informer" "$target"
    fi
}
