# `make` lists the targets. They need Python 3.12 (`make PYTHON=...` names another) and a C++ compiler.
PYTHON ?= python3.12
BIN := .venv/bin
INSTALLED := .venv/.installed
PARALLEL := --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo demo-full demo-paired study test check lint types docs bench bench-data bench-doctor bench-experts bench-features bench-peers bench-policy bench-scaling bench-serve bench-train house suite-page rollout-film faults clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## install everything into .venv, at the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt examples/lerobot_policy_actionprior/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]' ./examples/lerobot_policy_actionprior
	touch $@

demo: install  ## record, pretrain, train with and without the prior, roll out, compare
	$(BIN)/lightning demo

demo-full: install  ## run the demo at its full budget
	$(BIN)/lightning demo --preset full

demo-paired: install  ## run the demo over paired seeds, with the control prior
	$(BIN)/lightning demo --preset paired

study: install  ## run a small study: arms, seeds and demonstrations, with intervals and figures
	$(BIN)/lightning study --config recipes/study/small.yaml

test: lint types  ## check style and types, run every test
	$(BIN)/pytest $(PARALLEL)

check: lint types  ## check style and types, run the quick tests
	$(BIN)/pytest $(PARALLEL) -m "not slow"

lint: install  ## check style, format and the layers of the imports
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/lint-imports

types: install  ## check types with mypy
	$(BIN)/mypy

docs: install  ## build the documentation into build/docs; fail on a broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install  ## measure how long a re-plan takes
	$(BIN)/python -m bench.replan

bench-data: install  ## measure how fast data reach the models, at small and at large size
	$(BIN)/python -m bench.data

bench-doctor: install  ## plant faults into recordings, and update docs/doctor.md with what the doctor finds
	$(BIN)/python -m bench.doctor --page docs/doctor.md

bench-experts: install  ## measure how often the scripted experts succeed
	$(BIN)/python -m bench.experts

bench-features: install  ## measure Stage 2 from cached features of frozen trunks
	$(BIN)/python -m bench.features

bench-peers: install  ## train LeRobot's policies and ours for equal CPU time; takes many hours
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,bench,metaworld,pretrained]'
	test -d outputs/data/metaworld_six || $(BIN)/lightning record --config recipes/metaworld/record_six.yaml
	$(BIN)/python -m bench.peers --minutes '[10, 20, 40, 80]' --policies '[actionprior, act, diffusion, multi_task_dit, act_default, diffusion_default]'
	$(BIN)/python -m bench.peers.page

bench-policy: install  ## measure chunk latency against LeRobot's policies, and the control rate
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m bench.policy

bench-scaling: install  ## check the formulas of large runs, and update docs/scaling.md
	$(BIN)/python -m bench.scaling --page docs/scaling.md

bench-serve: install  ## measure what serving adds to a re-plan, with one and with many clients
	$(BIN)/python -m bench.serve

bench-train: install  ## measure what Lightning adds to a training step, and two processes of DDP
	$(BIN)/python -m bench.train

suite-page: install  ## draw docs/suite.md, the page of the simulated tasks
	$(BIN)/python -m bench.suite_page --out docs/suite.md

rollout-film: install  ## film the policies of `make demo`, into docs/rollout.gif
	$(BIN)/python -m bench.rollout_film --out docs/rollout.gif

house: install  ## count long files, wide signatures and advised-against words
	$(BIN)/python -m bench.house

faults: install  ## kill, signal and damage tiny runs of both stages, and count the survivors
	$(BIN)/python -m tests.faults

clean:  ## remove caches and builds; .venv and outputs stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
