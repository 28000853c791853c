# `make run` and `make test` set up everything they need in .venv, from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test lint format setup test-vllm test-browser test-kube dist clean bench

run: $(READY)  ## the main job: the standard profile against the embedded simulator
	$(BIN)/kvswarm run --profile standard

test: $(READY)  ## the tests, without the slower real-thing ones
	$(BIN)/pytest

lint: $(READY)  ## ruff (lint and format), mypy --strict, the arrows between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-vllm: $(READY)  ## the profiles against real vLLM on the CPU, in a venv of its own
	tests/vllm/run

test-browser: $(READY)  ## the web UI in a real browser
	tests/browser/run

test-kube: $(READY)  ## the manifests against a real API server, which KUBEBUILDER_ASSETS has
	$(BIN)/pytest -m kube tests/kserve

dist: $(READY)  ## wheel and sdist
	$(BIN)/python -m build

bench: $(READY)  ## truth under load, against a C server and a C client
	$(BIN)/python benchmarks/truth.py

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kvswarm needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

clean:
	rm -rf $(VENV) .venv-* dist build
