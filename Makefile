# The only way to build, test and lint. `make help` lists the targets.
#
# PYTHON chooses the interpreter (3.11 or newer) for a new .venv; CI=true turns missing test
# dependencies into failures.

PYTHON ?= python3
# Tests run in two processes at once: most of them wait for processes of their own. 0: in this one.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
PACKAGES := host plugins protocol sdk

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint types package conformance bench docs site format lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(VENV)/.runtime ## the whole way once: a file encrypted, the key rotated, the driver killed, nothing lost
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev $(VENV)/.system $(VENV)/.kryoptic ## set up what the tests need and run them all
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

soak: $(VENV)/.dev ## what takes long: chaos for a minute, 200 restarts, fuzzers for minutes, floods, an outage of 30 s
	@KMSPLUG_SOAK=1 $(BIN)/python -m pytest -o faulthandler_timeout=600 \
	tests/process/test_pkcs11_process.py tests/process/test_pkcs11_rotation.py \
	tests/process/test_kept_shims.py tests/process/test_destruction.py \
	tests/chaos tests/conformance tests/fuzz tests/zoo tests/process/test_resilience_provider.py \
	tests/unit/host/test_envelope_properties.py tests/cli/test_envelope_large.py tests/live/test_vault_conformance.py \
	tests/backends/test_aws_conformance.py

lint: $(VENV)/.dev ## style and import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/.dev ## static types, strict
	@$(BIN)/mypy

package: $(VENV)/.dev ## build the wheel, check its file list, try it in an environment of its own
	@$(BIN)/python tests/package/check_wheel.py

conformance: $(VENV)/.runtime ## run the conformance core on the drivers that need no provider: mock, local
	@$(BIN)/kmsplug conformance --timeout 120 -- $(BIN)/python -m kmsplug_plugins.mock
	@tmp=$$(mktemp -d) && printf 'path = "%s/store"\n' "$$tmp" > "$$tmp/local.toml" && \
	$(BIN)/kmsplug conformance --config "$$tmp/local.toml" -- $(BIN)/python -m kmsplug_plugins.local; \
	status=$$?; rm -rf "$$tmp"; exit $$status

bench: $(VENV)/.bench $(VENV)/.dev ## what a call and an envelope cost, beside others that do the same (an environment of its own)
	@$(BIN)/python -m compileall -q $(PACKAGES)
	@$(VENV)/bench/bin/python benchmarks/bench.py $(BENCH)
	@$(VENV)/bench/bin/python benchmarks/recovery.py
	@$(VENV)/bench/bin/python benchmarks/envelope.py
	@$(VENV)/bench/bin/python benchmarks/aws.py
	@$(BIN)/python benchmarks/starts.py

docs: $(VENV)/.dev ## write what is generated: schemas, OpenRPC, tables of SPEC.md, errors.md, the asynchronous methods
	@$(BIN)/python -m kmsplug_protocol.schema protocol
	@$(BIN)/python -m kmsplug_protocol.spec_tables protocol/SPEC.md
	@$(BIN)/python -m kmsplug_protocol.error_docs docs/errors.md
	@$(BIN)/python host/write_async.py
	@KMSPLUG_WRITE_TABLES=1 $(BIN)/python -m pytest -q tests/process/test_isolation_levels.py tests/process/test_orphans.py \
	tests/docs/test_drivers_table.py

site: $(VENV)/.dev ## the documentation site, into build/site; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: $(VENV)/.dev ## format the code
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

# --no-emit-index-url and --no-header: a lock must not tell where the packages came from.
COMPILE := compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate
lock: $(VENV)/.uv ## resolve the dependencies anew
	@$(UV) pip $(COMPILE) pyproject.toml --upgrade --output-file requirements/runtime.txt
	@$(UV) pip $(COMPILE) pyproject.toml --group dev --group servers --group docs --constraint requirements/runtime.txt --upgrade --output-file requirements/dev.txt
	@$(UV) pip $(COMPILE) pyproject.toml --group bench --constraint requirements/runtime.txt --upgrade --output-file requirements/bench.txt
	@PYTHONPATH=tests $(BIN)/python -m support.kryoptic lock

clean: ## remove what the targets made
	@rm -rf $(VENV) build dist .kmsplug .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit("kmsplug needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

# Bytecode is compiled at once: a driver's start would pay for it otherwise, where it may not be written later.
INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python
$(VENV)/.runtime: $(VENV)/.uv requirements/runtime.txt pyproject.toml
	@echo "installing kmsplug and what it needs"
	@$(INSTALL) --require-hashes --requirement requirements/runtime.txt
	@$(INSTALL) --no-deps --editable .
	@$(BIN)/python -m compileall -q $(PACKAGES)
	@touch $@

$(VENV)/.bench: $(VENV)/.runtime requirements/bench.txt
	@echo "installing what the benchmarks compare with"
	@$(BIN)/python -m venv $(VENV)/bench
	@$(UV) pip install --quiet --compile-bytecode --python $(VENV)/bench/bin/python --require-hashes --requirement requirements/bench.txt
	@$(UV) pip install --quiet --python $(VENV)/bench/bin/python --no-deps --editable .
	@touch $@

# What pip cannot install. Where it is missing and cannot be had, its tests are skipped, and say so. In groups, so that
# one that cannot be had keeps no other one away.
SYSTEM := bubblewrap postgresql softhsm2 opensc libnss3 libnss3-tools opencryptoki libopencryptoki0
WATCHING := chromium chromium-driver prometheus
COMPILING := gcc libc6-dev make perl pkg-config libclang-dev libsqlite3-dev
$(VENV)/.system: Makefile
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then export DEBIAN_FRONTEND=noninteractive; \
	install="apt-get install --quiet --yes --no-install-recommends"; \
	for group in "$(SYSTEM)" "$(WATCHING)" "$(COMPILING)"; do dpkg-query --show $$group >/dev/null 2>&1 || { \
	echo "installing $$group"; \
	$$install $$group >/dev/null 2>&1 || { apt-get update --quiet >/dev/null && $$install $$group >/dev/null; } || true; }; \
	done; fi
	@touch $@

# A token that is built from its source, into the user's cache. Where it cannot be, this says why, and is tried again.
$(VENV)/.kryoptic: $(VENV)/.dev $(VENV)/.system $(wildcard tests/pkcs11/kryoptic/*)
	@PYTHONPATH=tests $(BIN)/python -m support.kryoptic && touch $@ || true

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@echo "installing what the tests need"
	@$(INSTALL) --require-hashes --requirement requirements/dev.txt
	@touch $@
