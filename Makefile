# strongroom. The two commands: make demo, make test.
#
# Everything is built once, in the release profile (thin LTO), and lands in target/; what the suites and lint
# need besides (packages of Python and Node.js, cargo-deny) is installed there too.

SHELL := /bin/sh
BIN := target/release
PYTHON := target/python
NODE := target/node
TOOLS := target/tools
CARGO_DENY_VERSION := 0.20.2

# The dev stack's: from the environment or the command line.
LISTEN ?= 127.0.0.1:8080
DEV_DIR ?= target/dev
export LISTEN DEV_DIR

.PHONY: help build demo dev test bench lint clean

help:
	@echo 'make demo    the main job from end to end, on embedded defaults'
	@echo 'make dev     the same stack in the foreground (LISTEN=$(LISTEN) DEV_DIR=$(DEV_DIR))'
	@echo 'make test    all tests, with what they need'
	@echo 'make bench   the benchmarks: some minutes, a table, and target/bench/report.md'
	@echo 'make lint    formatting, clippy, licences and sources of dependencies'
	@echo 'make build   all binaries, in $(BIN)'

build:
	cargo build --release --locked --workspace --bins

demo: build
	@exec $(BIN)/dev-stack demo

dev: build
	@exec $(BIN)/dev-stack dev

# The suites drive the built binaries over real sockets, so these come first. Temporary files stay in target/.
test: build $(PYTHON)/installed $(NODE)/installed
	mkdir -p target/tmp
	TMPDIR=$(CURDIR)/target/tmp cargo test --release --locked --workspace

# Measures the built binaries, with moto's server for DynamoDB.
bench: build $(PYTHON)/installed
	@exec $(BIN)/bench

lint: $(TOOLS)/bin/cargo-deny
	cargo fmt --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(TOOLS)/bin/cargo-deny --locked check bans licenses sources

$(PYTHON)/installed: tests/requirements.txt
	tests/install-python $(PYTHON) tests/requirements.txt
	touch $@

$(NODE)/installed: tests/node/package-lock.json
	tests/install-node $(NODE) tests/node
	touch $@

$(TOOLS)/bin/cargo-deny:
	cargo install --locked --root $(TOOLS) --target-dir $(TOOLS)/build cargo-deny@$(CARGO_DENY_VERSION)
	rm -rf $(TOOLS)/build

clean:
	rm -rf target
