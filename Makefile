# Everything Jiebang needs is set up by `make setup`, which the other targets call: Python 3.11 and make are enough.
# Paths are relative throughout, so a checkout whose path holds spaces works.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
STAMP := .venv/.installed
PIP := -m pip install --quiet --disable-pip-version-check
# An environment that was moved here with its folder, or whose Python is gone, is no environment: it is built anew.
OURS := 'import jiebang, pathlib, sys; sys.exit(not pathlib.Path(jiebang.__file__).samefile("src/jiebang/__init__.py"))'
# What pip wrote into scripts while the environment stood beside its place.
RENAME := 'import pathlib, sys; old, new = (str(pathlib.Path(each).absolute()).encode() for each in sys.argv[1:]); \
	found = [each for each in pathlib.Path(sys.argv[1], "bin").iterdir() if each.is_file() and not each.is_symlink()]; \
	[each.write_bytes(text.replace(old, new)) for each in found if old in (text := each.read_bytes())]'

# Tests that need no database, in a process a core (more than four only begin later).
PURE := tests/unit tests/sim
# What fuzzes the doors; in the suite too, with a hundredth of the examples.
DOORS := tests/unit/test_decoding.py tests/unit/test_doors.py tests/acceptance/test_doors.py
# The others wait for servers more than they count: two at a time, each with servers of its own.
SERVERS := -n 2 --dist loadfile
PARALLEL := -n auto --maxprocesses 4 --dist worksteal -p no:schemathesis

.PHONY: help setup demo test quick lint sim chaos fuzz bench lock clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/'

# Built beside its place and moved there whole. A sound one is brought up to date where it is, its stamp taken off for
# the time: so what an interrupted or failed setup leaves behind is never used.
ifneq ($(shell $(PY) -c $(OURS) 2>/dev/null && echo sound),sound)
.PHONY: $(STAMP)
endif

setup: $(STAMP) ## Prepare .venv from the lock file (network needed the first time only)

$(STAMP): requirements.lock pyproject.toml
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Jiebang needs Python 3.11 or later / 需要 Python 3.11 以上")'
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python cannot make environments: on Debian and Ubuntu, apt install python3-venv / 此 Python 无法建立虚拟环境:Debian、Ubuntu 上请先执行 apt install python3-venv" >&2; exit 1; }
	@if test -f $(STAMP) && $(PY) -c $(OURS) 2>/dev/null; \
	then set -ex; rm $(STAMP); \
		$(PY) $(PIP) --require-hashes --no-deps -r requirements.lock; \
		$(PY) $(PIP) --no-deps --no-build-isolation --editable .; \
	else set -ex; rm -rf .venv.new; "$(PYTHON)" -m venv .venv.new; \
		.venv.new/bin/python $(PIP) --require-hashes --no-deps -r requirements.lock; \
		.venv.new/bin/python $(PIP) --no-deps --no-build-isolation --editable .; \
		"$(PYTHON)" -c $(RENAME) .venv.new .venv; \
		rm -rf .venv; mv .venv.new .venv; \
	fi
	touch $(STAMP)

demo: setup ## Generate 10,000 people, start everything, tell four stories, then stay up
	$(PY) -m jiebang demo

test: setup lint ## All checks and tests
	$(PY) -m pytest $(PURE) $(PARALLEL)
	$(PY) -m pytest $(PURE:%=--ignore=%) $(SERVERS)

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

fuzz: setup ## An hour or so (FUZZ_TIMES=10: minutes) of hostile bodies, headers, tokens, key sets, peers' answers and files at every door
	$(PY) -m pytest $(DOORS) --hypothesis-profile long --timeout 0 --show-capture=no

bench: setup ## Every measured comparison
	$(PY) -m bench --all

lock: setup ## Pin the dependencies anew (needs uv and the network)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --output-file requirements.lock

clean: ## Forget the environment and the demo's data
	rm -rf .venv .venv.new .jiebang
