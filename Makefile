# The commands of the project. `make check` runs all that CI runs.
PYTHON ?= python3.11
# Any other torch pulls gigabytes of CUDA libraries, so it is pinned and installed first.
TORCH  ?= torch==2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
STAMP  := $(VENV)/.ready
PACKAGES := scheduler checkpointing jobs cluster benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup test check lint format tidy demo clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with everything in it (quick when nothing changed)

# The stamp is touched last: an install that broke half-way is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11)' 2>/dev/null || { \
	  echo "cause: '$(PYTHON)' is not a Python 3.11."; \
	  echo "remedy: apt-get install python3.11 python3.11-venv, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; \
	  exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "cause: this Python has no venv module."; \
	  echo "remedy: apt-get install python3.11-venv"; \
	  exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about 3 minutes the first time."
	@$(PIP) install '$(TORCH)'
	@$(PIP) install -c constraints.txt -e '.[all,dev,peers]'
	@touch $@

test: setup  ## run the tests (not those marked slow or benchmark)
	$(BIN)/python -m pytest -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES) tests
	$(BIN)/lint-imports --no-logo

tidy: setup
	$(BIN)/python -m pytest -q tests/test_tidy.py

check: lint test  ## all that CI runs: ruff, mypy, import contracts, tidiness, tests

format: setup  ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: setup  ## show the whole path on this machine, in about three minutes
	$(BIN)/lowtide demo

clean:  ## remove .venv and every cache
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
