# Each target installs what it needs on a bare Debian 12 with a Rust toolchain.
.DEFAULT_GOAL := help
.PHONY: help run test check unit desktop api cli npm chaos agents bench bench-stream static gen clean tools-build tools-node tools-test tools-browser tools-desktop

PORT ?= 2468
# Tests must not depend on who runs them.
export PATH := $(CURDIR)/.tools/node_modules/.bin:$(PATH)
unexport SANDBOXD_TOKEN SANDBOXD_TOKEN_FILE

help: ## these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: tools-build ## builds, starts the server on 127.0.0.1:2468, says what to do next
	cargo build --release --locked
	@scripts/first-steps.sh $(PORT) &
	exec target/release/sandboxd server --no-token --port $(PORT)

test: check unit desktop api cli agents npm ## everything

check: tools-build ## format, lints, documentation, dependencies
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --workspace --no-deps --document-private-items --quiet
	scripts/check-dependencies.sh

unit: tools-build ## what stands beside the code, and the rules of the house
	cargo test --locked --workspace --lib --test house

desktop: tools-build tools-desktop ## the crates of the desktop on a real X server
	cargo test --locked --workspace $(patsubst %,--test %,$(basename $(notdir $(wildcard crates/*/tests/*.rs))))

api: tools-build tools-test tools-desktop ## the real binary over HTTP, chaos and full disks included
	cargo build --locked --bins --examples
	cargo test --locked --test api

cli: tools-build tools-test ## the command line
	cargo test --locked --test cli

agents: tools-build tools-node ## installing agents from the npm registry; what agents get in a directory
	scripts/npm-install.sh tests/npm
	cargo test --locked --test agents_install --test workspace

npm: tools-build tools-node tools-test tools-browser tools-desktop ## the published npm packages and real agents against us
	cargo build --locked
	tests/npm/run.sh

chaos: tools-build tools-node ## agents, terminals and processes on a server that is killed CHAOS_KILLS (1000) times; CHAOS_SEED repeats a run
	cargo build --locked
	CHAOS_KILLS=$(or $(CHAOS_KILLS),1000) tests/npm/run.sh keeper_chaos.test.mjs

bench: tools-build tools-node tools-desktop ## side by side with the system our users run today
	cargo build --release --locked
	scripts/npm-install.sh tests/npm
	chmod +x tests/npm/node_modules/@sandbox-agent/cli-linux-x64/bin/sandbox-agent
	cargo bench --locked --bench compare -- --ours $(or $(OURS),target/release/sandboxd) $(BENCH)

bench-stream: tools-build tools-node tools-browser tools-desktop ## how late, smooth and costly the desktop's live stream is
	cargo build --release --locked
	cargo build --release --locked -p x-desktop --example test_card
	scripts/npm-install.sh tests/npm
	node benches/stream/main.mjs --ours $(or $(OURS),target/release/sandboxd) $(BENCH)

static: tools-build ## the one static binary, and its start in an empty root
	scripts/build-static.sh
	scripts/prove-static.sh

gen: tools-build ## rewrites generated files: schemas/openapi.json, the table of bounds
	cargo build --locked --bins --examples
	UPDATE_GOLDEN=1 cargo test --locked --test api golden --test house

clean: ## removes what was built
	cargo clean
	rm -rf .tools .musl-tools tests/npm/node_modules

tools-build:
	@scripts/install-tools.sh build

tools-node:
	@scripts/install-tools.sh node

tools-test:
	@scripts/install-tools.sh test

tools-browser:
	@scripts/install-tools.sh browser

tools-desktop:
	@scripts/install-tools.sh desktop
