# The environment is made once, and again when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test gpu clean

demo: $(VENV)/.installed
	$(BIN)/srp-exp experiment=demo

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

# On a machine with a CUDA device: the tests that need one, then the figures for docs/benchmarks.md.
gpu: $(VENV)/.installed
	$(BIN)/pytest -n 0 -m cuda
	$(BIN)/python scripts/bench_gpu.py

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
