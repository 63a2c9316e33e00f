# What a programmer or a newcomer does with a checkout; `make` alone explains it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# How many tests run at the same time.
WORKERS ?= 2
# More arguments for pytest, the benchmark or the server: make test ARGS="-k late"
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A worker that has nothing left to do takes tests from the other one.
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist worksteal
CODE := dataserver tests bench

.PHONY: help run demo test test-all lint format docs bench failover clean

help: ## Explain the targets
	@echo "make TARGET, where TARGET is:"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

run: .venv/run.stamp ## Run all instances in the foreground, main on data_in/ (Ctrl-C ends them)
	@exec $(BIN)/dataserver --home . up $(ARGS)

demo: .venv/demo.stamp ## Show weeks of made-up data in the console, on a home that goes at the end
	@exec $(BIN)/dataserver demo $(ARGS)

test: .venv/test.stamp ## Run the tests; installs what they need (Debian packages through sudo)
	$(PYTEST) $(ARGS)

test-all: .venv/test.stamp ## Run all tests, with new random ones and all that takes long
	$(PYTEST) --all $(ARGS)

lint: .venv/lint.stamp ## Check style, format, types and layers
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/lint.stamp ## Format the code and mend what can be mended safely
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

docs: .venv/run.stamp ## Write docs/configuration.md anew from the settings
	$(BIN)/dataserver config reference > docs/configuration.md

bench: .venv/test.stamp ## Measure the server against what the machine can do
	$(BIN)/python -m bench $(ARGS)

failover: .venv/test.stamp ## Measure what a pair does when a host fails, in namespaces; as root
	$(BIN)/python -m tests.failover $(ARGS)

clean: ## Remove the environment and everything made by tools; var/ and data_in/ stay
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# Each stamp says: installed, as pyproject.toml wants it. The first two need nothing but Python,
# the third no Debian packages, the last one everything.

.venv/bin/python:
	PYTHON="$(PYTHON)" tools/make-venv

.venv/run.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	@touch $@

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[console]'
	@touch $@

.venv/lint.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[console,graph,test]'
	@touch $@

.venv/test.stamp: pyproject.toml tools/test-packages.txt | .venv/bin/python
	@tools/debian-packages $$(< tools/test-packages.txt)
	$(PIP) --editable '.[console,graph,mysql,test]'
	@touch $@
