# Every target sets up what it needs in .venv; only Python >= 3.11 and make are required.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev

.PHONY: demo test test-slow bench verify verify-full lint format types clean

demo: $(READY)  ## Train, score and show the whole chain on the built-in corpus
	$(BIN)/python -m experiments.run +exp=grid_joint

test: $(DEV_READY)  ## Everything that must hold, in minutes
	$(BIN)/lint-imports --config setup.cfg --no-cache
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(DEV_READY)  ## What takes more than a minute a test
	$(BIN)/python -m pytest -m slow

bench: $(DEV_READY)  ## Speed and memory, as ratios in one process
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=min,median,rounds -p no:xdist

verify: $(READY)  ## Every claimed figure beside its bound; TALKIN_GRID_ROOT and TALKIN_ICT_FACEKIT name the real data
	$(BIN)/python -m experiments.verify

verify-full: $(READY)  ## The same on whole corpora and long videos: an hour
	$(BIN)/python -m experiments.verify --full

lint: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --config setup.cfg --no-cache

format: $(DEV_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV_READY)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; choose one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(READY): $(VENV)/bin/python setup.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
