# Two commands do all the set-up on a fresh machine with Python 3.11+:  make run   and   make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1

.PHONY: run test test-long lint bench clean

run: $(VENV)/installed
	$(BIN)/decentral speedup launch/quickstart.yaml

test: $(VENV)/installed lint
	$(BIN)/pytest -n 2 --dist worksteal

# What takes half a minute or more each, and is left out of `make test`.
test-long: $(VENV)/installed
	$(BIN)/pytest -n 2 --dist worksteal -m long

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml launch/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("decentral needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": make PYTHON=python3.11 run") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c launch/constraints.txt -e '.[dev]'
	touch $@

# Every table of the README, into bench/: half an hour, on a quiet machine, as root for the network lab.
STEP := $(BIN)/decentral bench step launch/bench_step.yaml
bench: $(VENV)/installed
	rm -rf bench && mkdir bench
	$(STEP) --out bench/one-host-5M > bench/one-host-5M.txt
	$(STEP) -s 'model.hidden=[2217, 2217, 2217]' -s batch_size=32 --out bench/one-host-10M > bench/one-host-10M.txt
	$(STEP) -s 'model.hidden=[2217, 2217, 2217]' -s batch_size=16 --netlab 4 --rate 1gbit --repetitions 7 \
		--out bench/1gbit-10M > bench/1gbit-10M.txt
	$(STEP) -s 'model.hidden=[1180, 1180, 1180]' -s batch_size=32 --netlab 4 --rate 100mbit --repetitions 3 --steps 2 \
		--out bench/100mbit-3M > bench/100mbit-3M.txt
	$(STEP) -s 'model.hidden=[395, 395, 395]' -s batch_size=32 --netlab 4 --rate 100mbit --latency 10ms --repetitions 5 \
		--out bench/10ms-0.3M > bench/10ms-0.3M.txt
	$(BIN)/decentral speedup launch/slow_links.yaml --netlab 4 --rate 100mbit --out bench/slow-links > bench/slow-links.txt
	$(BIN)/decentral bench compress > bench/compress.txt
	cat bench/*.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
