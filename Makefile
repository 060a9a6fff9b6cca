# Each target sets itself up: a .venv from constraints.txt, made again when the pins or the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PROCESSOR := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64-cpu,x86-cpu)

.PHONY: demo test lint

# Teacher, search, distillation, INT8 and latency on scikit-learn's digits: about two minutes, cached the second time.
demo: $(INSTALLED)
	$(BIN)/edgekd compress examples/quickstart.yaml --target $(PROCESSOR) --out runs/quickstart

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
