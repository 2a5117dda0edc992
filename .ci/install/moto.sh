# moto's server, a simulation of AWS, for the tests of provider-aws. Sourced by .ci/tools.
# Pinned by tests/moto/requirements.txt and keyed by its hash; `moto_server` is put on the PATH.

install_moto() {
    local target moto="$here/../provider-aws/tests/moto"
    target="$tools/moto-$(sha256sum "$moto/requirements.txt" | cut -c1-12)"
    if [ ! -d "$target" ]; then
        command -v python3 >/dev/null || fail "python3 is missing; install it (with venv) and try again"
        say "installing moto"
        mkdir "$scratch/moto"
        # Its scripts know the path where it was made; the interpreter, which is all that is used, does not.
        python3 -m venv "$scratch/moto/venv" >&2
        "$scratch/moto/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
            -r "$moto/requirements.txt" >&2
        mv "$scratch/moto" "$target"
    fi
    printf '#!/bin/sh\nexec "%s/venv/bin/python" -c "import sys; sys.argv[0] = \\"moto_server\\"; from moto.server import main; main()" "$@"\n' \
        "$target" >"$scratch/moto_server"
    chmod +x "$scratch/moto_server"
    mv "$scratch/moto_server" "$bin/moto_server"
}
