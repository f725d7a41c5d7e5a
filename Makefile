# strongroom. The two commands: make demo, make test.
#
# Everything is built once, in the release profile (thin LTO), and lands in target/; what the suites and lint
# need besides (packages of Python and Node.js, cargo-deny) is installed there too.

SHELL := /bin/sh
BIN := target/release
PYTHON := target/python
NODE := target/node
TOOLS := target/tools
IMAGE := target/image
STATIC := target/x86_64-unknown-linux-musl/image
# Slow builds (kernel, QEMU), which `make clean` leaves.
export STRONGROOM_CACHE ?= $(CURDIR)/.cache
CARGO_DENY_VERSION := 0.20.2

# The dev stack's: from the environment or the command line.
LISTEN ?= 127.0.0.1:8080
DEV_DIR ?= target/dev
export LISTEN DEV_DIR

.PHONY: help build demo dev test image test-boot test-arm64 enclave-image eif reproduce image-oracle bench lint check-deploy clean

help:
	@echo 'make demo    the main job from end to end, on embedded defaults'
	@echo 'make dev     the same stack in the foreground (LISTEN=$(LISTEN) DEV_DIR=$(DEV_DIR))'
	@echo 'make test    all tests, with what they need'
	@echo 'make image   the enclave image (EIF) and its measurements, in $(IMAGE)'
	@echo 'make test-boot  boots it in virtual machines, without Nitro hardware'
	@echo 'make test-arm64  the programs for Graviton, under emulation'
	@echo 'make bench   the benchmarks: some minutes, a table, and target/bench/report.md, .json and .svg'
	@echo 'make lint    formatting, clippy, licences and sources of dependencies'
	@echo 'make check-deploy  deploy/ and its paper: templates, units, manifests, key policies, commands'
	@echo 'make build   all binaries, in $(BIN)'
	@echo 'make enclave-image  the enclave as a container image (ARCH=amd64 or arm64)'
	@echo 'make eif     the enclave image by nitro-cli, with its measurements'
	@echo 'make reproduce  this commit once more, in a fresh Debian: the same bytes?'

# What is built can be less: BUILD.
BUILD := --workspace --bins
build:
	cargo build --release --locked $(BUILD)

demo: build
	@exec $(BIN)/dev-stack demo

dev: build
	@exec $(BIN)/dev-stack dev

# The suites drive the built binaries over real sockets, so these come first. Temporary files stay in target/.
test: build $(PYTHON)/installed $(NODE)/installed
	mkdir -p target/tmp
	TMPDIR=$(CURDIR)/target/tmp cargo test --release --locked --workspace

# The image. CONFIGURATION=enclave.json makes one that accepts this configuration only, under a name of its own.
PINNED := $(if $(CONFIGURATION),-pinned)
image: build
	@[ -z '$(CONFIGURATION_SHA384)' ] || { echo 'make image takes the file itself: CONFIGURATION=enclave.json' >&2; exit 2; }
	image/build-kernel $(IMAGE)/bzImage
	image/build-binaries x86_64
	$(BIN)/strongroom image build --kernel $(IMAGE)/bzImage --command-line "$$(cat image/kernel.command-line)" \
	    --enclave $(STATIC)/strongroom-enclave $(if $(CONFIGURATION),--configuration $(CONFIGURATION)) \
	    --output $(IMAGE)/strongroom-enclave-x86_64$(PINNED).eif --pcrs $(IMAGE)/pcrs$(PINNED).json
	@cat $(IMAGE)/bzImage.not-comparable $(STATIC)/not-comparable > $(IMAGE)/not-comparable 2>/dev/null; \
	if [ -s $(IMAGE)/not-comparable ]; then \
	    echo "MEASUREMENTS ARE NOT COMPARABLE WITH ANYBODY'S:"; cat $(IMAGE)/not-comparable; \
	else rm -f $(IMAGE)/not-comparable; fi

# Boots it, once beside a machine with the static parent. The tests are in tests/suites/boot.
test-boot: image
	tests/boot/install-tools
	image/build-binaries x86_64 --package strongroom-parent --package strongroom-tests \
	    --bin strongroom --bin mock-kms --bin dev-stack
	mkdir -p target/tmp
	STRONGROOM_TOOLS=$(STRONGROOM_CACHE)/tools TMPDIR=$(CURDIR)/target/tmp cargo test --release --locked --workspace \
	    --test suites -- --ignored --test-threads 1 --nocapture boot::
	@if [ -f $(IMAGE)/not-comparable ]; then \
	    echo "MEASUREMENTS ARE NOT COMPARED WITH ANYBODY'S:"; cat $(IMAGE)/not-comparable; fi

# Graviton: both programs, static for aarch64, do the main job under QEMU's user emulation.
ARM64 := target/aarch64-unknown-linux-musl/image
test-arm64: build
	tests/boot/install-emulator
	image/build-binaries aarch64 --package strongroom-enclave --package strongroom-parent --package strongroom-tests \
	    --bin strongroom-enclave --bin strongroom --bin dev-enclave
	$(BIN)/dev-stack demo --directory target/demo-arm64 --emulator qemu-aarch64-static --binaries $(CURDIR)/$(ARM64)
	qemu-aarch64-static $(ARM64)/strongroom-enclave --version

# The pieces, then the built binaries, with moto's server for DynamoDB.
bench: build $(PYTHON)/installed
	cargo bench --locked --package strongroom-tests --bench pieces
	@exec $(BIN)/bench

# Not needed by anything: AWS's library as one more judge of the images that the suites make. Takes minutes, and
# OpenSSL's headers (libssl-dev, pkg-config).
image-oracle:
	cargo build --release --locked --manifest-path tests/image-oracle/Cargo.toml --target-dir target/image-oracle

lint: $(TOOLS)/bin/cargo-deny
	cargo fmt --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(TOOLS)/bin/cargo-deny --locked check bans licenses sources

check-deploy: build $(PYTHON)/installed
	deploy/check

$(PYTHON)/installed: tests/requirements.txt
	tests/install-python $(PYTHON) tests/requirements.txt
	touch $@

$(NODE)/installed: tests/node/package-lock.json
	tests/install-node $(NODE) tests/node
	touch $@

$(TOOLS)/bin/cargo-deny:
	cargo install --locked --root $(TOOLS) --target-dir $(TOOLS)/build cargo-deny@$(CARGO_DENY_VERSION)
	rm -rf $(TOOLS)/build

# The container image; CONFIGURATION=enclave.json names the only configuration that it accepts.
enclave-image:
	image/build-container $(ARCH)

eif:
	image/build-eif-nitro

# REPRODUCE=--cached takes the kernel from the cache.
reproduce:
	image/reproduce $(REPRODUCE)

clean:
	rm -rf target
