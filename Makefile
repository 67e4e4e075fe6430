# The two commands: `make demo` and `make test`. Everything they need is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The lowest versions that pyproject.toml declares. Their wheels are for the lowest Python.
LOWEST ?= .venv-lowest
LOWEST_PYTHON ?= python3.11
STAMP := $(VENV)/.installed
WORKERS ?= 2

# Real data for the tests, where it lies beside the project.
ifneq ($(wildcard ../shared/data),)
export PARETOBIT_TEST_DATA ?= $(abspath ../shared/data)
endif
# Parallelism is processes; threads within one only get in each other's way.
export OMP_NUM_THREADS = 1
# Tests start many processes: those that follow read the bytecode that the first one wrote.
export PYTHONDONTWRITEBYTECODE =

.PHONY: setup demo test test-lowest zoo lint bench bench-long docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt src/paretobit/_version.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/paretobit search --config examples/demo.toml

# With COVERAGE=--cov the lines that run are counted; fails below the floor in pyproject.toml.
test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(COVERAGE)

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal

$(LOWEST)/.installed: pyproject.toml .ci/lowest.py src/paretobit/_version.py
	$(LOWEST_PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST_PYTHON) .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt --editable '.[dev]'
	touch $@

# Every architecture of tests/zoo, before and now; the tests take a sample of them.
zoo: setup
	$(BIN)/python tests/zoo/table.py --before tests/zoo/before.json --page docs/zoo.md

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/study_size.py

# Hours: every strategy with 500 trials on 5 seeds.
bench-long: setup
	$(BIN)/python benchmarks/sample_efficiency.py --trials 500 --seeds 0 1 2 3 4

docs: setup
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(LOWEST) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
