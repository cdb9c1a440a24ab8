# Everything a contributor does, by name. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# Where slow things are kept between runs and checkouts: Kubernetes, Helm, cargo-deny.
CACHE := $(or $(COUNTERSIGN_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/countersign)
# State of `make up`.
DEV := .dev
# What `make up` and `make demo` run.
BINARIES := $(or $(CARGO_TARGET_DIR),target)/debug/examples/dev $(or $(CARGO_TARGET_DIR),target)/debug/countersign

# Two more than there are cores: tests spend much of their time waiting, for the API server and for what has to take its time.
TEST_THREADS := $(shell echo $$(($$(nproc) + 2)))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Compile the operator, the plugin of kubectl and the dev tool
	cargo build --locked --bin countersign --bin kubectl-countersign --example dev

.PHONY: up
up: tools build clients ## Start Kubernetes and the operator in the background
	@tests/dev/control.sh up $(DEV) $(BINARIES)
	@printf '%s\n' 'Kubernetes and the operator run. Next:' \
		'  . $(DEV)/env' \
		'  kubectl get agents -A' \
		'  kubectl countersign check' \
		'  curl --cacert "$$COUNTERSIGN_CA" "$$COUNTERSIGN_URL/.well-known/oauth-authorization-server"' \
		'  make down'

.PHONY: down
down: ## Stop what `up` started
	@tests/dev/control.sh down $(DEV)

.PHONY: demo
demo: tools build clients ## Run the examples from beginning to end
	@tests/dev/demo.sh $(DEV)/demo $(BINARIES)

.PHONY: test
test: tools clients browser ## Run all tests, on a real Kubernetes API server
	cargo test --locked -- --test-threads=$(TEST_THREADS)
	@$(MAKE) --no-print-directory sdk docs fresh

# What checks a part of the SDKs alone: both of them, and each adapter in Python where its framework is.
SDK_ADAPTERS := $(filter-out dev,$(patsubst sdk/python/requirements-%.txt,%,$(wildcard sdk/python/requirements-*.txt)))
SDK_CHECKS := sdk-python sdk-node $(SDK_ADAPTERS:%=sdk-%)

.PHONY: sdk
sdk: tools build clients ## Check and test the SDKs, alone and with a real operator, and run their examples
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(SDK_CHECKS)
	@tests/sdk/run.sh $(BINARIES)
	@tests/sdk/run_examples.sh $(BINARIES)
	@sdk/cells.py

.PHONY: $(SDK_CHECKS)
sdk-python:
	@sdk/python/check.sh
sdk-node:
	@sdk/node/check.sh
$(SDK_ADAPTERS:%=sdk-%): sdk-%:
	@sdk/python/check-framework.sh $*

.PHONY: docs
docs: tools build clients tests/docs/node_modules/.package-lock.json ## Build the manual, check its links and run its blocks
	@docs/check.sh $(DEV)/docs "$(CACHE)/tools" $(BINARIES)

.PHONY: fresh
fresh: ## Follow the README and the quickstart in a fresh clone of what is committed
	@CARGO_TARGET_DIR='$(abspath $(or $(CARGO_TARGET_DIR),target))' docs/fresh.sh $(DEV)/fresh

.PHONY: image
image: ## Make the image of the operator, with its SBOM, and check it
	@image/image.sh $(DEV)/image

.PHONY: e2e
e2e: ## Run the image on a real node, with real pods; needs root
	@tests/dev/prerequisites.sh
	@tests/e2e/e2e.sh $(DEV)/e2e

# Rounds of `kill -9` on each database; `make test` does ten.
KILL_ROUNDS := 200
# How long each fault lasts, and a part of the name of those that are meant; none means all.
FAULT_SECONDS := 30
FAULT :=

.PHONY: faults
faults: tools ## Let everything fail, under load, and check what must hold
	COUNTERSIGN_FAULT_SECONDS=$(FAULT_SECONDS) COUNTERSIGN_FAULT='$(FAULT)' \
		cargo test --locked --test it -- --nocapture faults::
	COUNTERSIGN_KILL_ROUNDS=$(KILL_ROUNDS) cargo test --locked --test it -- --nocapture kill_9_under_load

.PHONY: bench
bench: tools browser ## Run the benchmarks
	cargo bench --locked --bench bench

.PHONY: fmt
fmt: ## Format the code
	cargo fmt
	gofmt -w tests/cluster tests/node

# What is generated and committed: from the Rust types, but for llms.txt, which is from the pages of the manual.
RESOURCES := agents capabilities jitrequests trustedissuers
GENERATED := $(RESOURCES:%=crds/%.yaml) \
	$(RESOURCES:%=charts/countersign/files/crds/%.yaml) \
	charts/countersign/files/admission/validating.yaml \
	charts/countersign/files/admission/mutating.yaml \
	charts/countersign/files/admission/inject.yaml \
	charts/countersign/files/admission/injected.yaml \
	docs/reference-crds.md \
	docs/openapi.json \
	docs/llms.txt

# $(call generate,DIRECTORY): writes all of it below DIRECTORY.
define generate
	mkdir -p $(addprefix $(1)/,$(sort $(dir $(GENERATED))))
	for resource in $(RESOURCES); do cargo run --locked --quiet -- crds $$resource >$(1)/crds/$$resource.yaml; done
	cp $(1)/crds/*.yaml $(1)/charts/countersign/files/crds/
	cargo run --locked --quiet -- admission validating >$(1)/charts/countersign/files/admission/validating.yaml
	cargo run --locked --quiet -- admission mutating >$(1)/charts/countersign/files/admission/mutating.yaml
	cargo run --locked --quiet -- admission inject >$(1)/charts/countersign/files/admission/inject.yaml
	cargo run --locked --quiet -- admission injected >$(1)/charts/countersign/files/admission/injected.yaml
	cargo run --locked --quiet -- reference crds >$(1)/docs/reference-crds.md
	cargo run --locked --quiet -- reference openapi >$(1)/docs/openapi.json
	docs/book.py llms >$(1)/docs/llms.txt
endef

# Into a folder beside, then over, so that a failure leaves the old files whole.
.PHONY: gen
gen: ## Regenerate the definitions, the admission policies and their pages
	@mkdir -p $(DEV)
	rm -rf $(DEV)/gen
	$(call generate,$(DEV)/gen)
	cp -R $(DEV)/gen/. .
	rm -rf $(DEV)/gen

.PHONY: lint
lint: lint-rust lint-deps lint-go lint-shell lint-secrets lint-gen ## Check format, lints, dependencies, generated files

.PHONY: lint-rust
lint-rust:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

.PHONY: lint-deps
lint-deps:
	@if ! PATH="$(CACHE)/tools/bin:$$PATH" command -v cargo-deny >/dev/null && ! { \
		echo 'installing cargo-deny, once per machine' >&2; \
		cargo install --debug --locked --root "$(CACHE)/tools" cargo-deny; }; then \
		echo 'WARNING: dependencies are not checked, cargo-deny cannot be installed' >&2; \
		exit 0; \
	fi; \
	export PATH="$(CACHE)/tools/bin:$$PATH"; \
	cargo deny --locked check --hide-inclusion-graph bans licenses sources; \
	if cargo deny --locked fetch db; then \
		cargo deny --locked check --hide-inclusion-graph advisories; \
	else \
		echo 'WARNING: advisories and yanked crates are not checked, the advisory database cannot be fetched' >&2; \
	fi

.PHONY: lint-go
lint-go:
	@unformatted=$$(gofmt -l tests/cluster tests/node); \
	[ -z "$$unformatted" ] || { echo "gofmt: $$unformatted" >&2; exit 1; }

.PHONY: lint-shell
lint-shell:
	@if command -v shellcheck >/dev/null; then \
		git ls-files -co --exclude-standard '*.sh' .ci/run ':!src/plugin/completion' | xargs shellcheck; \
	else \
		echo 'shell scripts are not checked, there is no shellcheck'; \
	fi

.PHONY: lint-secrets
lint-secrets:
	@PYTHONDONTWRITEBYTECODE=1 image/leaks.py

.PHONY: lint-gen
lint-gen:
	@rm -rf $(DEV)/gen
	$(call generate,$(DEV)/gen)
	@for file in $(GENERATED); do \
		diff -u "$$file" "$(DEV)/gen/$$file" || { echo "$$file is out of date: run 'make gen'" >&2; exit 1; }; \
	done
	@rm -rf $(DEV)/gen

.PHONY: tools
tools: ## Get what the tests need: Kubernetes, Helm 3 and 4, and what checks the chart
	@tests/dev/prerequisites.sh
	@tests/cluster/build.sh >/dev/null
	@tests/tools/helm.sh 3 >/dev/null
	@tests/tools/helm.sh 4 >/dev/null
	@tests/tools/go.sh helm-unittest >/dev/null
	@tests/tools/go.sh kubeconform >/dev/null

# The clients of other people that the tests run against the token service.
.PHONY: clients
clients: $(patsubst %/package-lock.json,%/node_modules/.package-lock.json,$(wildcard tests/clients/package-lock.json))

# The browser of the portal's tests, and what drives it.
.PHONY: browser
browser: tests/portal/node_modules/.package-lock.json
	@tests/dev/prerequisites.sh browser

tests/%/node_modules/.package-lock.json: tests/%/package-lock.json
	cd tests/$* && npm ci --no-audit --no-fund
	touch $@

.PHONY: clean
clean: down ## Stop what runs and remove what was built, but not the cache
	cargo clean
	rm -rf $(DEV) sdk/node/node_modules tests/clients/node_modules tests/docs/node_modules tests/portal/node_modules
