# `make salt` and `make test` need nothing but Python 3.11 or newer and a package
# registry; both make their environment in VENV first.

PYTHON ?= python3
VENV ?= .venv
WORK_DIR ?= runs/salt

.PHONY: install salt test lint format

install: $(VENV)/installed

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

# Trains a teacher and four students on real text and compares them.
salt: install
	$(VENV)/bin/python -m salt_t5x.compare --work_dir=$(WORK_DIR)

test: install
	$(VENV)/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: install
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
