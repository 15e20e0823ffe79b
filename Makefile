# The front door. `make help` lists every target.

CARGO ?= cargo
ARGS ?=
MINUTES ?= 10
SEEDS ?= 2000
PROFILE ?= dev
SHAPE ?= maze
SCALE ?= 1
DIFF ?=
TIME ?= 60
RUNS ?= -1
TARGET ?=
MUTANT ?=
STORE ?=
PID ?=
TRACE ?=

.DEFAULT_GOAL := help
.PHONY: help screenshots run test test-tls certs lint traces bless demo bench instructions flamegraph perf-stat stages soak dist check-dist image dev-server simulate mutants clean fuzz chaos cluster

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and run the server (ARGS='--event-timeout-ms 500 …')
	$(CARGO) build --release
	$(CARGO) run --release --quiet -- $(ARGS)

screenshots: ## Take the pictures of docs/status-page.md (needs Chromium and nats-server; builds for minutes, takes three)
	@mkdir -p docs/status-page
	FORTNIGHT_SCREENSHOTS="$$PWD/docs/status-page" $(CARGO) test --release --quiet --test status_page states:: -- --test-threads=1

traces: ## Replay the recorded traces and compare (tests/traces)
	$(CARGO) run --release --quiet -- replay --quiet --expect tests/traces tests/traces/*.trace

bless: ## Renew the expectations of the traces
	$(CARGO) run --release --quiet -- replay --expect tests/traces --bless tests/traces/*.trace

test: ## Test everything, and list the tests that were skipped
	CARGO="$(CARGO)" tests/all

test-tls: ## Run the black-box tests with TLS on every port
	FORTNIGHT_TEST_TLS=1 CARGO="$(CARGO)" tests/all --test black_box

certs: ## Make a throw-away authority and certificates for trying TLS, in certs/ (ARGS='FOLDER NAME…')
	$(CARGO) build --quiet --workspace --bin certs
	@target=$$($(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug && \
	"$$target/certs" $(ARGS)

demo: ## Drive a million events through the server and check every byte
	$(CARGO) build --release --workspace
	@target=$$($(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release && \
	"$$target/maze" run --total-events 1000000 --spawn "$$target/fortnight --event-source-server-port 0 --user-server-port 0 --log-level warn"

bench: ## Measure every figure of the README against the limit (ARGS='shapes --scale 0.1')
	$(CARGO) build --release --workspace
	$(CARGO) run --release --quiet -p maze -- bench $(ARGS)

instructions: ## Count the engine's instructions under callgrind, and compare with the committed counts (STORE=yes: replace them)
	STORE=$(STORE) perf/instructions

perf-stat: ## Counters and system calls per thousand deliveries, beside the limit (SHAPE=maze SCALE=1)
	perf/perf-stat "$(SHAPE)" "$(SCALE)"

stages: ## Time the engine's stages one by one: parse, sequence, route, gather (ARGS=gather: only that)
	$(CARGO) bench --quiet --features stages --bench stages -- $(ARGS)
	@echo "wrote $$($(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/criterion"

flamegraph: ## Draw a flame graph (SHAPE=maze SCALE=1 DIFF=REV: the difference from that commit; PID=: of a running server; TRACE=: of a replay)
	PID=$(PID) TRACE=$(TRACE) perf/flamegraph "$(SHAPE)" "$(SCALE)" "$(DIFF)"

soak: ## Load one server for MINUTES with all faults, and check that it does not grow
	$(CARGO) build --release --quiet --workspace
	$(CARGO) run --release --quiet -p maze -- soak --minutes $(MINUTES) $(ARGS)

cluster: ## Start three NATS servers, two sequencers and two edges here (ARGS=--demo: kill the leader and compare; needs nats-server)
	$(CARGO) build --release
	@target=$$($(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/') && \
	CARGO_TARGET_DIR="$$target" examples/cluster/run $(ARGS)

chaos: ## Kill and stop NATS servers, sequencers and edges at random for MINUTES, and check that nothing is lost (needs nats-server)
	CHAOS_MINUTES=$(MINUTES) $(CARGO) test --quiet --test black_box chaos:: -- --nocapture

simulate: ## Run SEEDS (default 2000) of the simulator (PROFILE=release: builds for minutes, runs ten times as fast)
	SEEDS=$(SEEDS) $(CARGO) test --profile $(PROFILE) --test simulate -- --nocapture

mutants: ## Break the server in each of the ways of tests/mutants, and see the simulator notice (MUTANT=name: only that; tests/mutants/run --list)
	MUTANT=$(MUTANT) tests/mutants/run

clean: ## Remove everything that was built: target/ grows to 5 GB
	$(CARGO) clean

fuzz: ## Fuzz framing, trace reader, options, the journal's readers, the door and NATS, TIME seconds each (TARGET=framing RUNS=N; needs a C++ compiler)
	TIME=$(TIME) RUNS=$(RUNS) tests/fuzz/run $(TARGET)

lint: ## Check formatting, lints and habits: short functions, no cycles of modules, citations and links that resolve
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items --quiet
	$(CARGO) test --quiet --test library habits::
	@# A program that embeds the library gets no parser of command lines, no handler of signals and no terminal.
	@if $(CARGO) tree --package fortnight --no-default-features --edges normal --prefix none | grep -E '^(clap|signal-hook|ratatui)'; then \
	  echo "the library needs these crates without its default features"; exit 1; fi
	@# It could be published: whatever cargo warns of is a fault.
	@said=$$($(CARGO) package --package fortnight --offline --no-verify --allow-dirty 2>&1) || { echo "$$said"; exit 1; }; \
	case $$said in *warning*) echo "$$said"; exit 1;; esac
	@if rustup target list --installed 2>/dev/null | grep -q '^aarch64-unknown-linux-gnu$$' && \
	  command -v aarch64-linux-gnu-gcc >/dev/null; then \
	  $(CARGO) check --quiet --lib --target aarch64-unknown-linux-gnu; \
	else echo "not checked for processors other than x86-64: rustup target add aarch64-unknown-linux-gnu, and the packages" \
	  "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"; fi

dist: ## Pack static binaries, documents, man pages, unit, alerts and dashboard into dist/, as an archive and a Debian package
	packaging/dist

check-dist: dist ## Check the archive, the Debian package, the Dockerfile and the systemd unit (as root)
	packaging/check-dist
	packaging/check-deb
	packaging/check-unit
	packaging/check-image

image: dist ## Build the container image
	docker build --tag fortnight --file Dockerfile dist/latest

dev-server: dist ## Run the server in a container, on ports 9090, 9099 and 9095 of this machine
	docker compose up --build
