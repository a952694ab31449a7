# Two commands do all the set-up on a fresh machine with Python 3.11+:  make run   and   make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1

.PHONY: run test lint clean

run: $(VENV)/installed
	$(BIN)/decentral speedup launch/quickstart.yaml

test: $(VENV)/installed lint
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml launch/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("decentral needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": make PYTHON=python3.11 run") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c launch/constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
