# The environment is made once, and again when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo check lint test gpu clean

demo: $(VENV)/.installed
	$(BIN)/srp-exp experiment=demo

# For everyday work: lint, types, and a training of some seconds in a folder that is removed.
check: lint
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && $(BIN)/srp-exp dataset=synthetic dataset.train_size=512 \
	    dataset.test_size=128 dataset.image_size=[16,16] recipe.epochs=1 recipe.batch_size=64 backbone.depth=8 \
	    output_dir=$$folder

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
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
