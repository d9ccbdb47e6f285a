# make run   the terminal application on the embedded storyteller
# make test  every test
# make check what CI runs: lint, types, import contracts, tests
# make bench tokens a second of the embedded storyteller on this machine

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
C_SOURCES := $(wildcard native/*.c native/*.h native/*.py)
PACKAGES  := -p fireside.app -p fireside.engine -m fireside.assets

.PHONY: run install test lint types contracts check bench screenshots clean

run: $(VENV)/.run
	@$(BIN)/fireside $(ARGS)

install: $(VENV)/.run

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Type checkers and import-linter cannot follow an editable install's import hook: they look at
# the same folders through links.
build/typing/fireside:
	mkdir -p $@
	for part in app engine assets; do ln -sfn ../../../$$part $@/$$part; done

types: $(VENV)/.dev build/typing/fireside
	MYPYPATH=build/typing $(BIN)/mypy $(PACKAGES)

contracts: $(VENV)/.dev build/typing/fireside
	PYTHONPATH=build/typing $(BIN)/lint-imports

check: lint types contracts test

bench: $(VENV)/.run
	@$(BIN)/fireside bench $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml setup.py $(C_SOURCES)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml setup.py $(C_SOURCES)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,lint]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
