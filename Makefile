# `make salt` and `make test` need only Python 3.11 or newer and a package
# registry; both first create their environment in VENV.

PYTHON ?= python3
VENV ?= .venv
WORK_DIR ?= runs/salt

PYTEST = $(VENV)/bin/python -m pytest --numprocesses=auto --maxprocesses=4 \
  --dist=worksteal

.PHONY: install salt reproduce evaluate test test-all lint format

install: $(VENV)/installed

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

# Trains a teacher and five students on real text and compares them in
# $(WORK_DIR)/report.html.
salt: install
	$(VENV)/bin/python -m salt_t5x.study --work_dir=$(WORK_DIR)

# Repeats the paper's comparisons in small with three seeds; writes docs/results/.
# On a GPU machine: make reproduce FLAGS='--setting=gpu --workers=1'
reproduce: FLAGS =
reproduce: install
	$(VENV)/bin/python -m salt_t5x.study --study=all --seeds=0,1,2 \
	  --work_dir=runs/reproduce --output_dir=docs/results $(FLAGS)

# Evaluates the models of `make salt` on held-out text and real benchmarks.
evaluate: RUNS = $(WORK_DIR)/seed_0
evaluate: salt
	$(VENV)/bin/python -m salt_t5x.minipile.benchmark_data \
	  --output_dir=$(WORK_DIR)/benchmarks --cache_dir=$(WORK_DIR)/../wheels
	SALT_T5X_DATA=$(WORK_DIR)/data $(VENV)/bin/python -m salt_t5x.evaluate \
	  --gin_file=salt_t5x/gin/recipes/tiny_evaluate.gin \
	  --gin.CHECKPOINTS="{'untrained': None, 'BASELINE': '$(RUNS)/baseline', \
	    'RKD': '$(RUNS)/rkd', 'SALT': '$(RUNS)/salt', \
	    'SALT_DS': '$(RUNS)/salt_ds'}" \
	  --gin.TEACHER_PATH="'$(RUNS)/teacher'" \
	  --gin.BENCHMARK_DATA="'$(WORK_DIR)/benchmarks'" \
	  --gin.OUTPUT_DIR="'$(WORK_DIR)/evaluation'"
	$(VENV)/bin/python -m salt_t5x.difficulty --results=$(WORK_DIR)/evaluation \
	  --teacher=SLM --baseline=BASELINE

# Leaves out the tests marked slow.
test: install
	$(PYTEST) -m 'not slow'

test-all: install
	$(PYTEST)

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: install
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
