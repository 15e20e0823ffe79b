# The front door. `make help` lists every target.

CARGO ?= cargo
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test lint

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and run the server (ARGS='--event-timeout-ms 500 …')
	$(CARGO) run --release --quiet -- $(ARGS)

test: ## Test everything
	$(CARGO) test --workspace

lint: ## Check formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items --quiet
