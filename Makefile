# Needs Python >= 3.10 with venv and pip, and make. Everything else is installed into $(VENV).
#
#   make demo [DATA=path]  draw a picture of a data set, simulated if none is given
#   make test              all that continuous integration checks
#   make nightly           tests that need a machine that is not busy
#   make acceptance        packages by others that build on this library, in a venv of its own
#   make docs              documentation in docs/_build/html
#   make bench             measure the speed of this machine
#   make clean             remove all that was made here

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= --numprocesses auto

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

CODE := conftest.py src tests benchmarks docs examples
# Importing it raises, which is all that it is for.
NO_DOCTESTS := src/libertem/udf/holography.py
# Not in $(VENV): what these packages need must not decide what this library is tested with.
ACCEPTANCE_VENV := .venv-acceptance
MAKE_DOCS := $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

.PHONY: demo test nightly acceptance run-acceptance docs bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/demo.stamp
	$(BIN)/python -m libertem.contrib.demo $(if $(DATA),--data "$(DATA)")

test: $(VENV)/test.stamp
	$(BIN)/ruff check --output-format concise $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules src/libertem $(addprefix --ignore ,$(NO_DOCTESTS))
	$(BIN)/python -m pytest -m "not timing" --cov --cov-report=term:skip-covered $(PYTEST_ARGS)
	$(MAKE_DOCS)

nightly: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m timing

acceptance:
	$(MAKE) VENV=$(ACCEPTANCE_VENV) run-acceptance

# Called by `acceptance`, which names the venv.
run-acceptance: $(VENV)/acceptance.stamp
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall .
	$(BIN)/python -m pip check
	$(BIN)/python -m pytest tests/acceptance

docs: $(VENV)/test.stamp
	$(MAKE_DOCS)

bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(ACCEPTANCE_VENV) build dist docs/_build docs/_figures docs/api/generated demo-output htmlcov .coverage
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/pyvenv.cfg:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or later is needed, set PYTHON")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --editable '.[matplotlib]'
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	touch $@

# Together, so that pip sees whether one of them asks for another `libertem`.
$(VENV)/acceptance.stamp: pyproject.toml tests/acceptance/requirements.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet . --requirement tests/acceptance/requirements.txt
	touch $@
