# make demo    the quickstart, in its own virtual environment
# make test    the whole test suite
# make check   tests, lint and types
# make chaos   the long versions of the tests that inject faults, and their figures into docs/reliability.md: half
#              an hour; `make chaos SEED=123` replays one
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard aiotune tests examples benchmarks)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

CHAOS_REPORT := .chaos/report.json
# What measures comes first: while it does, let the machine do nothing else.
MEASURING := tests/chaos/test_long_run.py tests/chaos/test_store_stress.py
CHAOS_TESTS := $(MEASURING) $(filter-out $(MEASURING),$(wildcard tests/chaos/test_*.py))

.PHONY: demo test lint types check chaos clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo-installed
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python examples/quickstart.py

test: $(VENV)/.test-installed
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m pytest

lint: $(VENV)/.lint-installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.lint-installed
	$(BIN)/mypy

check: test lint types

# If a test fails, the second command does not run: the page keeps the figures that it has.
chaos: $(VENV)/.test-installed
	$(BIN)/python -m pytest $(CHAOS_TESTS) --chaos --chaos-report=$(CHAOS_REPORT) $(if $(SEED),--chaos-seed=$(SEED))
	$(BIN)/python benchmarks/reliability.py $(CHAOS_REPORT)

clean:
	rm -rf .demo .chaos .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# Each set is installed again only when pyproject.toml has changed.
$(VENV)/.demo-installed: pyproject.toml | $(BIN)/python
	@echo "installing aiotune with TensorFlow and scikit-learn: some minutes, once"
	$(PIP) -e '.[tensorflow,sklearn]'
	@touch $@

$(VENV)/.test-installed: pyproject.toml | $(BIN)/python
	@echo "installing aiotune with TensorFlow, JAX, PyTorch and the test tools: some minutes, once"
	$(PIP) -e '.[tensorflow,sklearn,test]'
	@touch $@

$(VENV)/.lint-installed: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[lint]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "aiotune needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
