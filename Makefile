# make demo    the whole line on a real shop, ending in an outbox and a report
# make test    all tests, on real servers
# make check   format, lint, types, layout
# make bench   the numbers of the README
# The first of them makes .venv; it needs Python 3.11 or newer, and nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: demo test check bench
.DELETE_ON_ERROR:

demo: .venv/.demo
	$(BIN)/python -m reco demo $(ARGS)

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: .venv/.dev
	$(BIN)/python -m reco bench $(ARGS)

# The demo needs none of the development tools, and does not wait for them.
.venv/.demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "reco needs Python 3.11 or newer"'
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[demo]'
	touch $@

.venv/.dev: .venv/.demo
	$(PIP) -e '.[demo,dev]'
	touch $@
