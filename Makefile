# Every target works in a new checkout: it installs what it needs in .venv, and only when that has changed.

.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
WORKFLOWS := $(wildcard .github/workflows/*.yml)
COMPOSE := $(wildcard docker-compose*.yml)
# With the extras in the pins: where hashes are checked, the pip of Debian 12 refuses coverage== for coverage[toml].
UV_COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-header \
	--no-strip-extras
# Packages that the API's image leaves out.
DECODERS := cykooz-resizer kornia-rs numpy pillow
# Extras that contain the decoder of a format, which container images get with the build argument EXTRA_FORMATS.
FORMAT_EXTRAS := heic jxl
# What the requirements of an extra leave out, as it is in requirements.txt.
PINNED = $(shell sed -n 's/^\([a-z0-9-]*\)[^ ]*==.*/\1/p' requirements.txt)
# Options for the program, the tests or the benchmarks: make test ARGS="-k upload"
ARGS ?=
# Tests at a time. Most tests wait for a server or a timer, so use more of them than processors.
JOBS ?= $(shell n=$$(nproc); echo $$((n > 4 ? 2 * n : 3 * n)))
# The Python for .venv: make run PYTHON=python3.12
PYTHON ?=
export PYTHON
# Marks of what is installed. Another PYTHON has other marks, so that everything is installed again.
RUN := .venv/.installed-run$(subst /,-,$(PYTHON))
DEV := .venv/.installed-dev$(subst /,-,$(PYTHON))
BENCH := .venv-bench/.installed$(subst /,-,$(PYTHON))
K8S := .venv-k8s/.installed$(subst /,-,$(PYTHON))
OVERLAYS := $(patsubst k8s/overlays/%/kustomization.yaml,%,$(wildcard k8s/overlays/*/kustomization.yaml))
RENDERED := $(OVERLAYS:%=build/k8s/%.yaml)

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

.PHONY: run
run: $(RUN) ## Start the whole service in one process, without other servers (options in ARGS)
	@exec $(BIN)/image-service standalone $(ARGS)

.PHONY: test
test: export PYTHONDONTWRITEBYTECODE :=
test: $(DEV) test-servers ## Run all tests on real servers and list the 20 slowest (options for pytest in ARGS)
	@# Compile the tests once, in two halves; otherwise each of the processes that run them would, at the same time.
	@$(if $(ARGS),,for half in tests/unit "tests/[!u_]*/"; do \
		$(BIN)/python -m pytest --collect-only --quiet --quiet $$half >/dev/null 2>&1 & done; wait)
	@sh scripts/with-test-servers $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --durations=20 $(if $(ARGS),$(ARGS),--cov --cov-report=term)

.PHONY: test-servers
test-servers: ## Install the servers and the browser of the tests (PostgreSQL, PgBouncer, RabbitMQ, Prometheus, Azurite, Chromium) where they are missing
	@sh scripts/install-test-servers

.PHONY: colours
colours: $(DEV) test-servers ## Show how thumbnails and Chromium differ in every colour signal and format (options in ARGS)
	@$(BIN)/python -m tests.browser $(ARGS)

.PHONY: faults
faults: $(DEV) test-servers ## Run the service under random faults for a minute and check its invariants (SEED=… repeats a run; SECONDS=…; BESIDE=… adds a worker of that commit)
	@sh scripts/with-test-servers $(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(BESIDE),--beside $(BESIDE))

.PHONY: faults-long
faults-long: $(DEV) ## The same with five seeds, for ten minutes in all
	@for run in 1 2 3 4 5; do $(MAKE) --no-print-directory faults SEED= SECONDS=95 || exit; done

.PHONY: faults-mutants
faults-mutants: $(DEV) test-servers ## Check that the invariants detect defects: run the scenarios on mutated copies of the service (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m tests.faults.mutants $(ARGS)

.PHONY: lint
lint: $(DEV) ## Check style, formatting, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: check
check: lint ## Run all checks that need no server: lint, requirements, compose files and workflows
	$(BIN)/python scripts/check_requirements.py
	$(BIN)/python -m pip check
	$(if $(COMPOSE),$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec $(COMPOSE))
	$(if $(WORKFLOWS),$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS))
	$(if $(WORKFLOWS),$(BIN)/zizmor --offline --quiet .github/workflows)

.PHONY: check-commands
check-commands: $(DEV) ## Run the pip, pytest and alembic commands of README in new virtual environments
	@sh scripts/check-commands $(BIN)/python

.PHONY: k8s-check
k8s-check: $(DEV) $(K8S) ## Render k8s/ and validate it strictly, without a cluster
	@mkdir -p build/k8s
	@$(foreach overlay,$(OVERLAYS),$(BIN)/kubectl kustomize k8s/overlays/$(overlay) --output build/k8s/$(overlay).yaml &&) true
	.venv-k8s/bin/python scripts/check_k8s.py $(RENDERED)
	.venv-k8s/bin/checkov --config-file k8s/checkov.yaml --file $(RENDERED)

.PHONY: format
format: $(DEV) ## Format the code and apply automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: $(DEV) ## Write docs/settings.md, and README's speed figures from docs/performance.md
	@$(BIN)/python scripts/settings_docs.py
	@$(BIN)/python -m benchmarks.figures

.PHONY: bench
bench: $(DEV) test-servers ## Measure the whole service under load, and its bare renderer (options in ARGS; --publish)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.service $(ARGS)

.PHONY: bench-flame
bench-flame: $(DEV) $(BENCH) test-servers ## Draw the processor time of an image by function, as a flame graph (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.service.flame $(ARGS)

.PHONY: bench-imaging
bench-imaging: $(DEV) $(BENCH) ## Compare the renderer with other libraries, installed in .venv-bench (options in ARGS)
	@sh scripts/install-bench-peers build/bench-imaging
	@.venv-bench/bin/python -m benchmarks.imaging $(ARGS)

.PHONY: bench-backfill
bench-backfill: $(DEV) test-servers ## Measure the effect of a back-fill on new uploads (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.backfill $(ARGS)

.PHONY: bench-growth
bench-growth: $(DEV) test-servers ## Measure the effect of a million images in the table and 100,000 in the queue (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.growth $(ARGS)

.PHONY: bench-waiting
bench-waiting: $(DEV) test-servers ## Measure requests that wait for an image: queries, memory, how late the answers are (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.waiting $(ARGS)

.PHONY: bench-scale
bench-scale: $(DEV) test-servers ## Measure the throughput of several workers, and what limits it (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.scale_out $(ARGS)

.PHONY: bench-publish
bench-publish: ## Measure and write all figures of docs/performance.md and README; needs an idle machine
	@$(MAKE) --no-print-directory bench ARGS=--publish
	@$(MAKE) --no-print-directory bench-growth ARGS=--publish
	@$(MAKE) --no-print-directory bench-scale ARGS=--publish

.PHONY: bench-storage
bench-storage: $(DEV) test-servers ## Measure the memory of API and worker with files on an S3 server (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.object_storage $(ARGS)

.PHONY: bench-slow-clients
bench-slow-clients: $(DEV) ## Measure good uploads beside 900 slow and idle connections (options in ARGS: --nginx)
	@$(BIN)/python -m benchmarks.operations.slow_clients $(ARGS)

.PHONY: bench-webhooks
bench-webhooks: $(DEV) test-servers ## Send events to good, dead, hanging and failing endpoints, and show what was sent when (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.webhooks $(ARGS)

.PHONY: bench-events
bench-events: $(DEV) test-servers ## Follow all events with a client that is cut, and measure idle streams (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.event_streams $(ARGS)

.PHONY: plans
plans: $(DEV) test-servers ## Show how PostgreSQL runs every query on a million images (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.plans $(ARGS)

.PHONY: soak
soak: $(DEV) test-servers ## Upload 10,000 images while the broker and workers are killed each minute (options in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.soak $(ARGS)

.PHONY: trace
trace: $(DEV) test-servers ## Show one upload's trace, from the request to DONE, with times (an image file in ARGS)
	@sh scripts/with-test-servers $(BIN)/python -m benchmarks.operations.trace $(ARGS)

.PHONY: requirements
requirements: $(DEV) ## Pin the dependencies in pyproject.toml; pins that still fit keep their version
	$(UV_COMPILE) pyproject.toml --output-file requirements.txt
	$(UV_COMPILE) pyproject.toml --constraint requirements.txt $(DECODERS:%=--no-emit-package %) --output-file requirements-api.txt
	$(UV_COMPILE) pyproject.toml --all-extras --group dev --constraint requirements.txt --output-file requirements-dev.txt
	$(foreach extra,$(FORMAT_EXTRAS),$(UV_COMPILE) pyproject.toml --extra $(extra) --constraint requirements-dev.txt \
		$(PINNED:%=--no-emit-package %) --output-file requirements-$(extra).txt &&) true
	$(UV_COMPILE) --group build --constraint requirements-dev.txt --output-file requirements-build.txt
	$(UV_COMPILE) --group bench --constraint requirements-dev.txt --output-file requirements-bench.txt
	$(UV_COMPILE) --group k8s --output-file requirements-k8s.txt

.PHONY: clean
clean: ## Remove virtual environments, caches and build results; stored images stay
	rm -rf .venv .venv-bench .venv-k8s .azurite .azurite.new .standardwebhooks .standardwebhooks.new build .coverage .coverage.* htmlcov dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .schemathesis
	find src tests harness migrations benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# The development requirements contain those of the program, with the same versions.
$(RUN): pyproject.toml requirements.txt requirements-build.txt scripts/make-venv
	@test -e $(DEV) || sh scripts/make-venv .venv requirements.txt
	@test ! -e $(DEV) || $(MAKE) --no-print-directory $(DEV)
	@touch $@

$(DEV): pyproject.toml requirements-dev.txt requirements-build.txt scripts/make-venv
	@sh scripts/make-venv .venv requirements-dev.txt
	@touch $@

# The libraries for the comparison are kept apart, so that the program never depends on them.
$(BENCH): requirements-bench.txt requirements-build.txt scripts/make-venv
	@sh scripts/make-venv .venv-bench requirements-bench.txt
	@touch $@

$(K8S): requirements-k8s.txt requirements-build.txt scripts/make-venv
	@sh scripts/make-venv .venv-k8s requirements-k8s.txt
	@touch $@
