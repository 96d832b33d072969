# What a person types. Each target sets up what it needs on a fresh machine: see scripts/setup.sh.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup run build test unit layers durability-short test-durability test-clients test-clients-rust test-clients-go clients \
        test-federation test-synapse test-sytest smoke lint fmt \
        bench profile docs complement-binary complement

# Every recipe starts with the shared environment: the target folder and RocksDB's library live in a
# cache outside the checkout, so that clones on one machine share them.
ENV := . scripts/env.sh;

help:
	@echo "make run                build and start the server on http://127.0.0.1:8008 (data in ./data)"
	echo "make test               all tests: unit, layering, smoke, short durability, released clients, two servers"
	echo "make lint               formatting and clippy, as CI checks them"
	echo "make fmt                format the code"
	echo "make test-durability    the long kill -9 and lost-fsync tests"
	echo "make test-clients       matrix-nio, matrix-js-sdk and a mautrix bridge use a real server"
	echo "make test-clients-rust  matrix-sdk and matrix-sdk-ui chat through a real server (a long build)"
	echo "make test-clients-go    mautrix-go, with a crypto stack of its own, chats through a real server"
	echo "make test-federation    two servers as processes federate over TLS"
	echo "make test-synapse       a server and a released Synapse (from PyPI) federate"
	echo "make test-sytest        optional: SyTest against real servers; see tests/sytest/README.md for what it needs"
	echo "make bench              the load program and the micro-benchmarks"
	echo "make profile            learn anew what release builds are told of a server under load"
	echo "make docs               regenerate generated documents"
	echo "make complement-binary  put the release build where complement/start.sh finds it"
	echo "make complement         run Complement; see complement/README.md for what it needs"

setup:
	@scripts/setup.sh

build: setup
	@$(ENV) . scripts/release-env.sh
	echo "hearth: building the server (release; the first time takes some minutes) ..." >&2
	cargo build --release --locked -p hearth-server
	echo "hearth: the program is $$CARGO_TARGET_DIR/release/hearth" >&2

# The binary is started outside make's own control flow (exec), so Ctrl-C reaches it as SIGINT.
run: build
	@$(ENV)
	exec "$$CARGO_TARGET_DIR/release/hearth" $(ARGS)

# One profile for everything that make test runs, so that no dependency is compiled twice.
test: setup
	@$(ENV)
	scripts/test.sh

unit: setup
	@$(ENV)
	cargo test --workspace --locked

layers: setup
	@$(ENV)
	cargo test --locked --workspace --test layers

smoke: setup
	@$(ENV)
	cargo build --locked --workspace --bins --tests
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/debug/hearth}" tests/smoke.sh

durability-short: setup
	@$(ENV)
	cargo build --locked --workspace --bins --tests
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/debug/hearth}" tests/durability/run.sh short

test-durability: build
	@$(ENV)
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/release/hearth}" tests/durability/run.sh long

test-clients clients: setup
	@$(ENV)
	cargo build --locked --workspace --bins --tests
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/debug/hearth}" tests/clients/run.sh

test-federation: setup
	@$(ENV)
	cargo build --locked --workspace --bins --tests
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/debug/hearth}" tests/federation/run.sh hearths $(ARGS)

test-synapse: setup
	@$(ENV)
	cargo build --locked --workspace --bins --tests
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/debug/hearth}" tests/federation/run.sh synapse $(ARGS)

test-sytest: setup
	@$(ENV)
	cargo build --locked --workspace --bins --tests
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/debug/hearth}" tests/sytest/run.sh $(ARGS)

test-clients-rust: setup
	@$(ENV)
	cargo build --locked --workspace --bins --tests
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/debug/hearth}" tests/clients/rust_sdk.sh

test-clients-go: setup
	@$(ENV)
	cargo build --locked --workspace --bins --tests
	HEARTH_BINARY="$${HEARTH_BINARY:-$$CARGO_TARGET_DIR/debug/hearth}" tests/clients/go_chat.sh

lint: setup
	@$(ENV)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

fmt:
	@cargo fmt --all

bench: build
	@$(ENV)
	scripts/bench.sh $(ARGS)

profile: setup
	@scripts/profile.sh

docs: setup
	@$(ENV)
	scripts/docs.sh

complement-binary: build
	@$(ENV)
	mkdir -p complement/bin
	install -m 755 "$$CARGO_TARGET_DIR/release/hearth" complement/bin/hearth.part
	mv complement/bin/hearth.part complement/bin/hearth
	echo "complement/bin/hearth is the release build now"

complement: complement-binary
	@complement/run.sh $(ARGS)
