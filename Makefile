# The front door: `make` prints the verbs. Each is one line; the work is in the Python modules that it names.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo
DATA ?=
KILLS ?= 50
NODES ?= 1
# The stack travels by environment, never through a shell line.
STACK ?= dev
export STACK
YES ?=
DRY ?=
FORCE ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench trials drill doctor preview up destroy lint format lock clean

help: ## print these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/ready ## make .venv with everything in it (the other verbs do this by themselves)

demo: .venv/ready ## the whole line on a drawn corpus, or on your videos: make demo DATA=/videos OUT=runs/mine
	@$(BIN)/python -m trainer demo --out $(OUT) $(if $(DATA),--data "$(DATA)")

test: .venv/ready ## all tests, on the CPU
	@$(BIN)/python -m pytest

bench: .venv/ready ## what manifests, preparing, loading and training cost; a table each
	@for part in manifests prepare loader train processes; do $(BIN)/python tests/bench_$$part.py || exit 1; done

trials: .venv/ready ## four networks, three seeds, equal budget, on drawn faces: what is claimed and what holds
	@$(BIN)/python tests/bench_models.py --work $(OUT)

drill: .venv/ready ## kill training at random moments and compare with an undisturbed run (KILLS=50, NODES=2)
	@$(BIN)/python tests/drill.py --kills $(KILLS) --nodes $(NODES)

doctor: .venv/ready ## is all there that AWS needs? a tick or a cure for each
	@$(BIN)/python -m infra.ops.doctor

preview: .venv/ready ## what `make up` would change
	@$(BIN)/python -m infra.ops.preview

up: .venv/ready ## make the stack in your AWS account; no machine starts (YES=1, DRY=1)
	@$(BIN)/python -m infra.ops.up $(if $(YES),--yes) $(if $(DRY),--dry-run)

destroy: .venv/ready ## take the stack away; says what stays and its price (YES=1, DRY=1, FORCE=1)
	@$(BIN)/python -m infra.ops.destroy $(if $(YES),--yes) $(if $(DRY),--dry-run) $(if $(FORCE),--force)

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
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[ops,train,export,dev]'
	@touch $@
