# What `make lint` needs: buf and cargo-deny. Sourced by .ci/tools.

BUF=1.75.0
CARGO_DENY=0.20.2

install_buf() {
    local target="$tools/buf-$BUF"
    if [ ! -x "$target/buf" ]; then
        say "installing buf $BUF"
        mkdir -p "$scratch/buf"
        if command -v npm >/dev/null && [ "$(uname -sm)" = "Linux x86_64" ]; then
            (cd "$scratch/buf" && npm pack --silent "@bufbuild/buf-linux-x64@$BUF" >/dev/null && tar xzf ./*.tgz)
            mv "$scratch/buf/package/bin" "$scratch/buf/out"
        elif command -v go >/dev/null; then
            GOBIN="$scratch/buf/out" go install "github.com/bufbuild/buf/cmd/buf@v$BUF"
        else
            fail "buf is missing and can be installed with npm or go; install one of them, or put buf on the PATH"
        fi
        rm -rf "$target"
        mv "$scratch/buf/out" "$target"
    fi
    ln -sfn "$target/buf" "$bin/buf"
}

install_cargo_deny() {
    local target="$tools/cargo-deny-$CARGO_DENY"
    if [ ! -x "$target/bin/cargo-deny" ]; then
        say "installing cargo-deny $CARGO_DENY (minutes, only once)"
        cargo install cargo-deny --quiet --locked --version "$CARGO_DENY" --root "$scratch/deny" >&2
        rm -rf "$target"
        mv "$scratch/deny" "$target"
    fi
    ln -sfn "$target/bin/cargo-deny" "$bin/cargo-deny"
}
