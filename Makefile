# Everything starts here; each target sets up what it needs and is safe to run again.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests setup-real quickstart real test test-all lint format bench lock clean

RUN := . scripts/env.sh && PATH="$$PWD/.venv/bin:$$PATH"

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## create .venv with what runs need (1 to 2 minutes, 4 GB; at once when nothing changed)
	@bash scripts/setup.sh

setup-tests:  ## the same, and what the tests need
	@bash scripts/setup.sh tests

quickstart: setup  ## the main job on this machine: a tiny model, its head, RL with drafts, the report
	@$(RUN) openrlhf-mtp quickstart

setup-real:
	@bash scripts/setup.sh examples/smollm2_cpu

real: setup-real  ## a real language model on this machine: SmolLM2-135M, its head, RL with drafts, the figures
	@$(RUN) python examples/smollm2_cpu/run.py

test: setup-tests  ## lint, types, import rules and every tier of tests, but for what runs nightly
	@$(RUN) bash scripts/test.sh

test-all: setup-tests  ## the same with the nightly tests: studies, long faults, the last combinations
	@$(RUN) bash scripts/test.sh --nightly

lint: setup-tests  ## ruff, codespell, mypy, import-linter
	@$(RUN) bash scripts/lint.sh

format: setup-tests  ## format the code
	@$(RUN) ruff format . && ruff check --fix .

bench: setup  ## tokens per second with and without drafts
	@$(RUN) openrlhf-mtp bench rollout

lock: setup-tests  ## rewrite requirements/*.txt from the .in files and .venv
	@$(RUN) python scripts/lock.py

clean:  ## remove caches and build outputs, keep .venv and runs
	rm -rf .cache build dist ./*.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
