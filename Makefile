# Everything Jiebang needs is set up by `make setup`, which the other targets call: Python 3.11 and make are enough.
# Paths are relative throughout, so a checkout whose path holds spaces works.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
STAMP := .venv/.installed

# Tests that need no database, in a process a core (more than four only begin later).
PURE := tests/unit tests/sim
PARALLEL := -n auto --maxprocesses 4 --dist worksteal -p no:schemathesis

.PHONY: help setup demo test quick lint sim chaos bench lock clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/'

setup: $(STAMP) ## Prepare .venv from the lock file (network needed the first time only)

$(STAMP): requirements.lock pyproject.toml
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Jiebang needs Python 3.11 or later / 需要 Python 3.11 以上")'
	test -x $(PY) || "$(PYTHON)" -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

demo: setup ## Generate 10,000 people, start everything, tell four stories, then stay up
	$(PY) -m jiebang demo

test: setup lint ## All checks and tests
	$(PY) -m pytest $(PURE) $(PARALLEL)
	$(PY) -m pytest $(PURE:%=--ignore=%)

quick: setup ## In seconds, while working: lint, and the pure tests with a few examples of each property
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	.venv/bin/lint-imports
	PYTHONDONTWRITEBYTECODE= $(PY) -m pytest tests/unit tests/sim/test_auditor.py $(PARALLEL) --hypothesis-profile quick

lint: setup ## Style, types and the order of the rooms
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	.venv/bin/lint-imports

sim: setup ## 100,000 simulated worlds on all cores, and every interleaving of small ones
	$(PY) -m sim --seeds 100000
	$(PY) -m sim explore

chaos: setup ## Minutes of everything breaking under load: kills, cuts, a data centre gone, full disks, lying networks
	CHAOS=long $(PY) -m pytest tests/chaos/test_chaos.py -s

bench: setup ## Every measured comparison
	$(PY) -m bench --all

lock: setup ## Pin the dependencies anew (needs uv and the network)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --output-file requirements.lock

clean: ## Forget the environment and the demo's data
	rm -rf .venv .jiebang
