# Everything a newcomer types. Needs python3 (3.11 or later), python3-venv and make; the rest goes into .venv.
# Another interpreter: make PYTHON=python3.13 test. More for pytest: make test ARGS="-k smtp -x".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test quick interop lint bench clean
.NOTPARALLEL:  # two pips in one venv tread on each other

help:  ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1 - /p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

run: $(VENV)/.stamp-run  ## start a demonstration server (mail and settings in var/demo)
	$(BIN)/mailsuite demo --directory var/demo

test: $(VENV)/.stamp-test  ## run all tests but those that need real peers
	$(BIN)/pytest -m "not interop" $(ARGS)

quick: $(VENV)/.stamp-test  ## run the tests that are fast, on all cores; under a minute
	$(BIN)/pytest -m "not interop and not slow" -n auto -q $(ARGS)

interop: $(VENV)/.stamp-test  ## run the tests against real peers; those not installed are skipped, with the reason
	$(BIN)/pytest -m interop $(ARGS)

lint: $(VENV)/.stamp-dev  ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.stamp-bench  ## measure, beside Postfix where it is installed
	$(BIN)/python -m bench $(ARGS)

clean:  ## remove what builds and tests leave; keeps .venv and var
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	rm -f twisted/plugins/dropin.cache
	find mailsuite tests twisted bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# A venv without python3-venv comes out half made; it is removed, so that the next try does not believe in it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mailsuite needs Python 3.11 or later; try: make PYTHON=python3.13 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# One stamp for each set of extras: pip runs again only when the metadata have changed.
$(VENV)/.stamp-run: EXTRAS =
$(VENV)/.stamp-test: EXTRAS = [test]
$(VENV)/.stamp-dev: EXTRAS = [dev]
$(VENV)/.stamp-bench: EXTRAS = [bench]
$(VENV)/.stamp-%: pyproject.toml setup.cfg | $(BIN)/python
	@echo "installing mailsuite$(EXTRAS) into $(VENV) ..."
	$(PIP) --editable '.$(EXTRAS)'
	@touch $@
