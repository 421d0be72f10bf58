# Everything runs in .venv, which the first target that needs it makes. PYTHON may name another interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

# A process for every core, each with one thread: two busy torch processes on the same cores wait for one another.
TESTS := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test lint check bench gpu clean

demo: .venv/installed
	$(BIN)/avignon run demo

test: .venv/installed-dev
	$(TESTS)

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(TESTS) -m "not slow"

# Some of them alone: make bench BENCHMARKS="benchmarks/train.py benchmarks/catalog.py"
BENCHMARKS ?= $(filter-out benchmarks/__init__.py benchmarks/gpu.py,$(wildcard benchmarks/*.py))

bench: demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[benchmarks]"
	for benchmark in $(BENCHMARKS); do $(BIN)/python $$benchmark || exit 1; done

# What a graphics card must prove, in 8 minutes (docs/GPU.md). Without one: make gpu GPU=--rehearse
GPU ?=

gpu: .venv/installed
	$(BIN)/python benchmarks/gpu.py $(GPU)

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'avignon needs Python 3.11 or newer; name one: make PYTHON=python3.12 …')"
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@
