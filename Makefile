PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed

# The stages of dvc.yaml and the kernels that papermill starts must be those of the environment.
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# Every stage starts processes of its own: with compiled modules they are there in a third of the time.
unexport PYTHONDONTWRITEBYTECODE

# Two files of tests at a time, each with one thread: threads that wait for each other take longer than one alone.
TESTS := OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=15 tests

.DEFAULT_GOAL := help
.PHONY: help env export readme outputs test test-slow lint lab repro study published real site sbom coverage clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(INSTALLED) ## create .venv from requirements.txt (PYTHON=python3, 3.10 or newer)

$(INSTALLED): requirements.txt settings.ini setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "make env: Python 3.10 or newer is needed and '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo not there); name another: make env PYTHON=python3.11" >&2; exit 1; }
	@rm -f $@
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the environment into $(VENV) (a few minutes the first time)"
	@$(VENV)/bin/python -m pip install -qq --no-compile --disable-pip-version-check -r requirements.txt
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --use-pep517 -e .
	@$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true # on all cores; else each program does it when it starts
	@touch $@

export: env ## clean the notebooks and write the library from them
	@nbdev_clean
	@nbdev_export

readme: env ## write README.md from nbs/index.ipynb
	@python tests/check_notebooks.py --write-readme

# Also CHAPTERS=nbs/03_scores: only these.
outputs: env ## run the chapters and keep what they print and draw in their notebooks
	@python tests/check_notebooks.py --write-outputs $(CHAPTERS)

test: env ## check and run the notebooks, lint, run the tests that are quick (minutes)
	@echo "== notebooks are clean, the library is their export, README.md is nbs/index.ipynb"
	@python tests/check_notebooks.py
	@echo "== ruff"
	@ruff check --quiet
	@ruff format --check --quiet || { ruff format --check; exit 1; }
	@echo "== mypy"
	@mypy --no-error-summary
	@echo "== the chapters run, and give what they show"
	@python tests/check_notebooks.py --run
	@test -d data/pictures || dvc pull --quiet data
	@echo "== tests"
	@$(TESTS) -m 'not slow'

test-slow: env ## run the other tests: clusters, kills, fresh clones, browsers, whole pipelines
	@test -d data/pictures || dvc pull --quiet data
	@echo "== slow tests"
	@$(TESTS) -m slow

lint: env ## check style and format of notebooks and tests, and the types of the library
	@ruff check
	@ruff format --check
	@mypy

lab: env ## open JupyterLab
	@jupyter lab

repro: env ## train the nano zoo and run its pipeline, offline; a second run takes seconds
	@test -d data/pictures || dvc pull --quiet data
	@dvc repro
	@git diff --quiet dvc.lock 2>/dev/null; test $$? -ne 1 || echo "dvc.lock now describes the results of this" \
	  "machine; \`git checkout dvc.lock\` brings back the committed one"

study: env ## repeat the nano zoo's fine-tunings with several seeds: is it hard to choose among its models?
	@dvc repro study/dvc.yaml

published: env ## run the pipeline of the published records, fetched first (SOURCE=folder: from a copy)
	@test -d zoos/paper-image -a -d zoos/paper-text || \
	  transfergraph zoo get paper-image paper-text $(if $(SOURCE),--from "$(SOURCE)")
	@dvc repro paper/dvc.yaml

# Of the zoos in real/params.yaml those that are here: for another one, DVC would look for tables that are missing.
REAL := import pathlib, yaml; names = yaml.safe_load(open("real/params.yaml"))["zoos"]; \
  print(*(name for name in names if pathlib.Path("zoos", name).is_dir()))

real: env ## how right are the methods on zoos of real models? Those of the catalogue in zoos/; fetches none
	@zoos=$$(python -c '$(REAL)'); test -n "$$zoos" || { echo "make real: zoos/ holds none of the zoos" \
	  "in real/params.yaml; expected some by 'transfergraph zoo get', see docs/zoos.md" >&2; exit 1; }; \
	dvc repro --single-item $$(printf 'real/dvc.yaml:zoo@%s ' $$zoos) real/dvc.yaml:summary

site: env ## make site/, one static site of the reports that are there (fetches those of the repository where none are)
	@ls reports/*/summary.ipynb >/dev/null 2>&1 || dvc pull --quiet
	@transfergraph site

# The same environment gives the same file.
sbom: env ## write sbom.json, a CycloneDX list of everything that is installed in .venv
	@cyclonedx-py environment --output-reproducible --short-PURLs --output-file "$(or $(OUT),sbom.json)" $(BIN)/python
	@echo "$(or $(OUT),sbom.json) lists what is installed in $(VENV)"

coverage: env ## run all tests and say which lines and branches of the library none of them reaches
	@test -d data/pictures || dvc pull --quiet data
	@$(TESTS) --cov --cov-report=term:skip-covered --cov-report=html --cov-fail-under=90

clean: ## remove caches and build leftovers (keeps .venv, zoos, trained models, logs of runs and reports)
	@rm -rf .cache site sbom.json build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	@find nbs tests transfergraph \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
