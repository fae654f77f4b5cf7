# `make` lists the targets. Needed: Python 3.12 (as `python3.12`, or `make PYTHON=...`) and a C++ compiler.
PYTHON ?= python3.12
BIN := .venv/bin
INSTALLED := .venv/.installed
PARALLEL := --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo demo-full demo-paired study test check lint types docs bench bench-data bench-policy bench-serve bench-train faults clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make .venv and install everything into it, at the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt examples/lerobot_policy_actionprior/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]' ./examples/lerobot_policy_actionprior
	touch $@

demo: install  ## record, pretrain, train with and without the prior, roll out, compare
	$(BIN)/lightning demo

demo-full: install  ## the demo at its full budget
	$(BIN)/lightning demo --preset full

demo-paired: install  ## the demo over paired seeds, with the control prior
	$(BIN)/lightning demo --preset paired

study: install  ## the study in small: arms, seeds and demonstrations, with intervals and figures
	$(BIN)/lightning study --config recipes/study_small.yaml

test: lint types  ## lint, types and every test
	$(BIN)/pytest $(PARALLEL)

check: lint types  ## lint, types and the quick tests
	$(BIN)/pytest $(PARALLEL) -m "not slow"

lint: install  ## style, format and the floors of the imports
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/lint-imports

types: install  ## mypy, strict
	$(BIN)/mypy

docs: install  ## build the documentation into build/docs; a broken link fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install  ## measure how long a re-plan takes
	$(BIN)/python -m bench.replan

bench-data: install  ## measure how fast data reach the models, at small and at large size
	$(BIN)/python -m bench.data

bench-policy: install  ## measure chunk latency beside LeRobot's policies, and the control rate
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m bench.policy

bench-serve: install  ## measure what serving a policy adds to a re-plan, and many clients at once
	$(BIN)/python -m bench.serve

bench-train: install  ## measure what Lightning adds to a training step, and two processes of DDP
	$(BIN)/python -m bench.train

faults: install  ## kill, signal and damage tiny runs of both stages, and count what survives
	$(BIN)/python -m tests.faults

clean:  ## remove caches and builds; .venv and outputs stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
