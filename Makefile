# Two commands: `make demo` shows the main job at work, `make test` runs every check.
# Both bootstrap .venv from a plain python3 and install again only when a lock or pyproject.toml changes.
.DEFAULT_GOAL := help
.PHONY: help demo test fuzz browser check format lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet --upgrade \
	--exclude-newer "$$(date -u -d '7 days ago' +%F)"  # a release gets a week to be found out

help: ## Show the commands.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY) ## Start everything on this machine and onboard 25 customers (ARGS=--exit ends it afterwards).
	@$(BIN)/gangway demo $(ARGS)

test: check ## Run all checks: format, lint, types, tests (ARGS goes to pytest).
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

browser: $(READY) ## Connect an account in headless Chromium, which has to be here (see docs/connect.md).
	@$(BIN)/python -m pytest tests/e2e/connect/in_chromium.py $(ARGS)

fuzz: $(READY) ## Try the engine with all that its OpenAPI allows, for an hour or two (FUZZ_EXAMPLES=200 of each).
	@FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),200) $(BIN)/python -m pytest -s tests/engine/contract/test_schemathesis.py $(ARGS)

check: $(READY)
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

format: $(READY) ## Format the code and mend what the linter can mend.
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

lock: $(READY) ## Resolve the dependencies again, with hashes and without naming an index.
	@$(UV) pyproject.toml -o requirements/runtime.txt
	@$(UV) --extra dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt
	@$(UV) --extra benchmarks -c requirements/runtime.txt pyproject.toml -o requirements/benchmarks.txt

clean: ## Remove what can be made again: virtual environment, caches, the demo's state. Never data of `gangway up`.
	rm -rf $(VENV) .gangway/demo .mypy_cache .pytest_cache .ruff_cache

$(READY): requirements/dev.txt pyproject.toml
	@echo "Installing into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
