# The front door: `make` prints the verbs. Each is one line; the work is in the Python modules that it names.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench lint format lock clean

help: ## print these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/ready ## make .venv with everything in it (the other verbs do this by themselves)

demo: .venv/ready ## the whole line on a drawn corpus, or on your videos: make demo DATA=/videos OUT=runs/mine
	@$(BIN)/python -m trainer demo --out $(OUT) $(if $(DATA),--data "$(DATA)")

test: .venv/ready ## all tests, on the CPU
	@$(BIN)/python -m pytest

bench: .venv/ready ## manifests at 10k, 100k and 1M rows, and what preparing costs; one table each
	@$(BIN)/python tests/bench_manifests.py && $(BIN)/python tests/bench_prepare.py

lint: .venv/ready ## what CI checks besides the tests: ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: .venv/ready ## let ruff lay out the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: .venv/ready ## renew requirements.lock from pyproject.toml
	@$(BIN)/pip-compile --quiet --all-extras --strip-extras --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.lock pyproject.toml

clean: ## remove what the demo made; the virtualenv stays
	rm -rf runs/demo

.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; say make setup PYTHON=python3.11")'
	@test -d .venv || $(PYTHON) -m venv .venv
	@echo "installing into .venv, a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[train,dev]'
	@touch $@
