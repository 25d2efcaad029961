# The front door: `make` prints the verbs. Each is one line; the work is in the Python modules that it names.
PYTHON ?= python3
BIN := .venv/bin
# What is said to the verbs travels by environment, never through a shell line; and it is text: make expands nothing in
# it, so that not even $(shell ...) means something.
STACK ?= dev
SAID := STACK CONFIG SET NODES SPOT CAP HOURS MANIFEST CLIPS NAME WAIT RUN NOW SRC LOCAL ALL PARTIAL OPEN REGIONS WHERE BASE OUT DATA KILLS REPLAY
$(foreach name,$(SAID),$(eval override $(name) := $$(value $(name))))
export $(SAID)
# A word that nobody reads, such as cap=5 for CAP=5, would cost money in silence.
KNOWN := $(SAID) YES DRY FORCE HELP PYTHON BIN PIP_%
$(foreach name,$(filter-out $(KNOWN),$(.VARIABLES)),$(if $(filter command,$(firstword $(origin $(name)))),\
 $(error nothing reads $(name)=; what can be said: $(KNOWN))))
# Yes or no: YES=1, and YES=0 is no.
yes = $(if $(filter-out 0,$($(1))),$(2))
ASKED = $(call yes,HELP,--help)
AGREED = $(ASKED) $(call yes,YES,--yes) $(call yes,DRY,--dry-run)
FORCED = $(call yes,FORCE,--force)
OPS = @$(BIN)/python -m infra.ops.$@

.DEFAULT_GOAL := help
.PHONY: help setup demo test clean-demo doctor set preview up image data manifest prepare train pipeline resume stop \
 status runs monitor attach logs shell tensorboard download clean destroy rehearse drill bench trials lint format lock

help: # a line that begins with `##` is a heading, what follows `##` behind a verb says what it does
	@test -t 1 && test -z "$$NO_COLOR" && bold=1; awk -v bold="$$bold" -F ':.*## ' '\
	/^## / { printf "%s%s%s%s\n", (heads++ ? "\n" : ""), (bold ? "\033[1m" : ""), substr($$0, 4), (bold ? "\033[0m" : "") } \
	/^[a-z-]+:.*## / { printf "  make %-12s%s\n", $$1, $$2 } \
	END { print "\n`make VERB HELP=1` says what a verb takes, such as NODES=2 or YES=1, and shows examples." }' $(MAKEFILE_LIST)

## On this machine, without an account

demo: .venv/ready ## the whole line on a small drawn corpus; DATA=/videos OUT=runs/mine SET="seed=2 ..."
	@set -f; $(BIN)/python -m trainer demo $(ASKED) $${OUT:+--out "$$OUT"} $${DATA:+--data "$$DATA"} $$SET

test: .venv/ready ## every promise of the README, as tests; about twenty minutes on two cores
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

setup: .venv/ready ## only make .venv with everything in it; the other verbs do this by themselves

clean-demo: ## remove what the demo made; the virtualenv stays
	rm -rf runs/demo

## In your AWS account, once

doctor: .venv/ready ## is all there that AWS needs? a tick or a cure for each
	$(OPS) $(ASKED)

set: .venv/ready ## show the stack's settings, or change them: SET="nodes=2 email=me@example.org"
	$(OPS) $(ASKED)

preview: .venv/ready ## what `make up` would change
	$(OPS) $(ASKED)

up: .venv/ready ## make the stack: bucket, network, roles, a group of no machines; next to no cost
	$(OPS) $(AGREED)

image: .venv/ready ## build and push the CUDA image that machines run; WHERE=aws builds it there
	$(OPS) $(AGREED)

## The data, whenever it changes

data: .venv/ready ## bring a folder of raw videos into the bucket, only what is not there: SRC=DIR
	$(OPS) $(call yes,DRY,--dry-run) $(ASKED)

manifest: .venv/ready ## have a machine verify, name and split the raw videos
	$(OPS) $(AGREED) $(FORCED)

prepare: .venv/ready ## have a machine make a face clip of each video in the manifest
	$(OPS) $(AGREED) $(FORCED)

## A run

train: .venv/ready ## train on a GPU machine; says what it may cost and asks first
	$(OPS) $(AGREED)

pipeline: .venv/ready ## data, manifest, prepare, train and download, each unless it is done: SRC=DIR
	$(OPS) $(AGREED) $(FORCED)

stop: .venv/ready ## save the run, end it and give its machine back
	$(OPS) $(ASKED)

resume: .venv/ready ## go on with a run that was stopped or has failed
	$(OPS) $(AGREED)

## Watching it

status: .venv/ready ## machines, GPUs, disk, run, price; ends with 1 on anything stray
	$(OPS) $(ASKED)

runs: .venv/ready ## every run: outcome, test score, epochs, hours, price
	$(OPS) $(ASKED)

monitor: .venv/ready ## the run as bars and curves that fill the terminal
	$(OPS) $(ASKED)

attach: .venv/ready ## the run's live terminal on its machine; q leaves it
	$(OPS) $(ASKED)

logs: .venv/ready ## what the run prints, line by line, from its machine's boot to its end
	$(OPS) $(ASKED)

tensorboard: .venv/ready ## the run's curves in TensorBoard, followed
	$(OPS) $(ASKED)

shell: .venv/ready ## a login shell on the machine: no key, no open port
	$(OPS) $(ASKED)

## Afterwards

download: .venv/ready ## fetch a run that has ended and open its report
	$(OPS) $(ASKED)

clean: .venv/ready ## remove from the machine what ended runs have left there, once S3 has it
	$(OPS) $(ASKED)

destroy: .venv/ready ## take the stack away; says first what stays and what that costs
	$(OPS) $(AGREED) $(FORCED)

## Proofs and measurements, on this machine

rehearse: .venv/ready ## the whole story of a run in AWS, from up to destroy, at no cost (root, Linux)
	@$(BIN)/python tests/rehearse.py $(ASKED)

drill: .venv/ready ## kill training at random moments, compare with an undisturbed run: KILLS=50 NODES=2
	@$(BIN)/python tests/drill.py $(ASKED) $${KILLS:+--kills "$$KILLS"} $${NODES:+--nodes "$$NODES"}

bench: .venv/ready ## what manifests, preparing, loading and training cost; a table each
	@for part in manifests prepare loader train processes; do $(BIN)/python tests/bench_$$part.py || exit 1; done

trials: .venv/ready ## four networks, three seeds, equal budget, on drawn faces: which claims hold
	@$(BIN)/python tests/bench_models.py $(ASKED) $${OUT:+--work "$$OUT"}

## For those who change the code

lint: .venv/ready ## what CI checks besides the tests: ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: .venv/ready ## let ruff lay out the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: .venv/ready ## renew requirements.lock from pyproject.toml
	@$(BIN)/pip-compile --quiet --all-extras --strip-extras --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.lock pyproject.toml

.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; say make setup PYTHON=python3.11")'
	@test -d .venv || $(PYTHON) -m venv .venv
	@echo "installing torch and the rest into .venv, once: some minutes (on Linux torch brings the CUDA libraries along: 7 GB in all)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[ops,train,export,dev]'
	@touch $@
