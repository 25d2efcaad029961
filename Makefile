# The front door: `make` prints the verbs. Each is one line; the work is in the Python modules that it names.
PYTHON ?= python3
BIN := .venv/bin
# What is said to the verbs travels by environment, never through a shell line; and it is text: make expands nothing in
# it, so that not even $(shell ...) means something.
STACK ?= dev
SAID := STACK CONFIG SET NODES SPOT CAP HOURS MANIFEST CLIPS NAME WAIT RUN NOW SRC LOCAL ALL PARTIAL OPEN REGIONS WHERE BASE OUT DATA KILLS
$(foreach name,$(SAID),$(eval override $(name) := $$(value $(name))))
export $(SAID)
YES ?=
DRY ?=
FORCE ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench trials drill rehearse doctor preview up image destroy data manifest prepare pipeline download status runs monitor attach logs shell tensorboard train resume stop clean lint format lock clean-demo

help: ## print these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/ready ## make .venv with everything in it (the other verbs do this by themselves)

demo: .venv/ready ## the whole line on a drawn corpus, or on your videos: make demo DATA=/videos OUT=runs/mine
	@$(BIN)/python -m trainer demo $${OUT:+--out "$$OUT"} $${DATA:+--data "$$DATA"}

test: .venv/ready ## all tests, on the CPU, two files at a time
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: .venv/ready ## what manifests, preparing, loading and training cost; a table each
	@for part in manifests prepare loader train processes; do $(BIN)/python tests/bench_$$part.py || exit 1; done

trials: .venv/ready ## four networks, three seeds, equal budget, on drawn faces: what is claimed and what holds
	@$(BIN)/python tests/bench_models.py $${OUT:+--work "$$OUT"}

drill: .venv/ready ## kill training at random moments and compare with an undisturbed run (KILLS=50, NODES=2)
	@$(BIN)/python tests/drill.py $${KILLS:+--kills "$$KILLS"} $${NODES:+--nodes "$$NODES"}

rehearse: .venv/ready ## the whole story of a run in AWS, from up to destroy, on this machine and at no cost (root, Linux)
	@$(BIN)/python tests/rehearse.py

doctor: .venv/ready ## is all there that AWS needs? a tick or a cure for each
	@$(BIN)/python -m infra.ops.doctor

preview: .venv/ready ## what `make up` would change
	@$(BIN)/python -m infra.ops.preview

up: .venv/ready ## make the stack in your AWS account; no machine starts (YES=1, DRY=1)
	@$(BIN)/python -m infra.ops.up $(if $(YES),--yes) $(if $(DRY),--dry-run)

image: .venv/ready ## build the image, push it, and have the next machine use it (WHERE=aws, BASE=, YES=1, DRY=1)
	@$(BIN)/python -m infra.ops.image $(if $(YES),--yes) $(if $(DRY),--dry-run)

destroy: .venv/ready ## take the stack away; says what stays and its price (YES=1, DRY=1, FORCE=1)
	@$(BIN)/python -m infra.ops.destroy $(if $(YES),--yes) $(if $(DRY),--dry-run) $(if $(FORCE),--force)

data: .venv/ready ## bring a folder of raw videos into the bucket, only what is not there (SRC=DIR DRY=1)
	@$(BIN)/python -m infra.ops.data $(if $(DRY),--dry-run)

manifest: .venv/ready ## have a machine verify, name and split the raw videos (NAME=all LOCAL=FILE SPOT= CAP= YES=1 DRY=1 FORCE=1)
	@$(BIN)/python -m infra.ops.manifest $(if $(YES),--yes) $(if $(DRY),--dry-run) $(if $(FORCE),--force)

prepare: .venv/ready ## have a machine make face clips of a manifest's videos (NAME=all SPOT= CAP= YES=1 DRY=1 FORCE=1)
	@$(BIN)/python -m infra.ops.prepare $(if $(YES),--yes) $(if $(DRY),--dry-run) $(if $(FORCE),--force)

pipeline: .venv/ready ## the whole line, each step unless it is done: data to download (SRC=DIR CONFIG= SET= CAP= YES=1 DRY=1)
	@$(BIN)/python -m infra.ops.pipeline $(if $(YES),--yes) $(if $(DRY),--dry-run) $(if $(FORCE),--force)

download: .venv/ready ## fetch a run that has ended and open its report (RUN= OUT=runs ALL=1 PARTIAL=1 OPEN=0)
	@$(BIN)/python -m infra.ops.download

train: .venv/ready ## train on a GPU machine; says the price and asks (CONFIG= SET="a=b c=d" NODES= SPOT= CAP= HOURS= YES=1 DRY=1)
	@$(BIN)/python -m infra.ops.train $(if $(YES),--yes) $(if $(DRY),--dry-run)

resume: .venv/ready ## go on with a run that has ended (RUN= CAP= HOURS= YES=1 DRY=1)
	@$(BIN)/python -m infra.ops.resume $(if $(YES),--yes) $(if $(DRY),--dry-run)

stop: .venv/ready ## save the run, end it and give its machine back; says what is still billed (RUN= NOW=1)
	@$(BIN)/python -m infra.ops.stop

clean: .venv/ready ## remove from the machine what ended runs have left there, once S3 has it (RUN=)
	@$(BIN)/python -m infra.ops.clean

status: .venv/ready ## machines, GPUs, disk, run, price; ends with 1 on anything stray (REGIONS=all)
	@$(BIN)/python -m infra.ops.status

runs: .venv/ready ## every run: outcome, test UAR, epochs, hours, price (ALL=1)
	@$(BIN)/python -m infra.ops.runs

monitor: .venv/ready ## the run as bars and curves that fill the terminal (RUN= REPLAY=1)
	@$(BIN)/python -m infra.ops.monitor $(if $(REPLAY),--replay)

attach: .venv/ready ## the run's live terminal on its machine, through SSM; q detaches (RUN=)
	@$(BIN)/python -m infra.ops.attach

logs: .venv/ready ## what the run prints, from its machine's boot to its end (RUN= ALL=1)
	@$(BIN)/python -m infra.ops.logs $(if $(ALL),--all)

shell: .venv/ready ## a login shell on the machine, through SSM: no key, no open port
	@$(BIN)/python -m infra.ops.shell

tensorboard: .venv/ready ## the run's curves in TensorBoard, followed (RUN=)
	@$(BIN)/python -m infra.ops.tensorboard

lint: .venv/ready ## what CI checks besides the tests: ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: .venv/ready ## let ruff lay out the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: .venv/ready ## renew requirements.lock from pyproject.toml
	@$(BIN)/pip-compile --quiet --all-extras --strip-extras --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.lock pyproject.toml

clean-demo: ## remove what the demo made; the virtualenv stays
	rm -rf runs/demo

.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; say make setup PYTHON=python3.11")'
	@test -d .venv || $(PYTHON) -m venv .venv
	@echo "installing into .venv, a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[ops,train,export,dev]'
	@touch $@
