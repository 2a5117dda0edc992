# make demo   a management plane with a simulated cloud, three machines, and a kubeconfig to play with
# make test   every test
# make lint   formatting, clippy, buf, cargo-deny, generated files
# make bench  the figures of docs/benchmarks.md
#
# The rest of the project's own tools is installed by .ci/tools, outside the checkout.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
PROVIDERS := -p provider-fake
BINARIES := -p clusterctl -p core-controller $(PROVIDERS)

.PHONY: help build demo test lint fmt bench generate

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# The binaries that people run, in target/release.
build:
	$(CARGO) build --locked --release --bins $(BINARIES)

# DEMO_ONCE=1 ends by itself once the machines run; DEMO_DIR keeps the state elsewhere.
demo: build
	@deploy/demo.sh target/release

# The binaries of the development profile first: the tests across processes run them.
test:
	@tools=$$(.ci/tools test) && export PATH="$$tools:$$PATH" && \
	$(CARGO) build --locked --bins $(BINARIES) && \
	$(CARGO) test --locked --workspace --no-fail-fast

lint:
	@tools=$$(.ci/tools lint) && export PATH="$$tools:$$PATH" && \
	$(CARGO) fmt --all --check && \
	buf lint && \
	buf breaking --against proto/released/actuator.binpb && \
	cargo-deny --all-features check --hide-inclusion-graph bans licenses sources && \
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

fmt:
	$(CARGO) fmt --all

# What is generated and checked in: CRDs.
generate:
	UPDATE_CRDS=1 $(CARGO) test --locked -p outrigger-api --test crds

# In one build with the binaries, so that the dependencies are shared.
bench:
	$(CARGO) build --locked --release --bins $(BINARIES) -p e2e -p differential -p actuator-conformance
	target/release/bench --binaries target/release
	target/release/apiserver-bench
