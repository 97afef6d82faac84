# Everything a newcomer needs is two commands: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test slow check format wheel clean

help:  ## these lines
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Luthier needs Python 3.11 or newer, this is %d.%d; name another: make PYTHON=python3.12" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -e '.[dev]' -c constraints.txt
	touch $(STAMP)

demo: $(STAMP)  ## tune the bundled model, print before and after
	$(BIN)/luthier demo

test: $(STAMP)  ## the tests, slow ones left out
	$(BIN)/python -m pytest -m 'not slow'

slow: $(STAMP)  ## the slow tests alone
	$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## format, lint, types, layers, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_docs.py

format: $(STAMP)  ## write the code as `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(STAMP)  ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean:  ## delete the environment and what was built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
