# teachkit: `make lab` opens the course, `make test` proves it. Nothing but Python >= 3.11, git and make is assumed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
PYTHON_OLD   ?= python3.11
PYTHON_NEW   ?= python3.13
LOCK_LESSONS ?= 00_start_here.ipynb 01_noise_and_denoising.ipynb 06_high_dimensions.ipynb
# On every core, one thread for each process: with more they wait for each other.
PYTEST := OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -q -n auto
LESSONS = $(wildcard notebooks/*.ipynb)
# In a container one is usually root, which Jupyter refuses unless told.
ROOT_OK := $(if $(filter 0,$(shell id -u)),--allow-root)
# The order of sets of strings must not change what a notebook prints.
export PYTHONHASHSEED ?= 0
# Threads that wait give way to what else the machine does (teachkit/__init__.py sets it too, if torch comes later).
export GOMP_SPINCOUNT ?= 1000
# Who starts a hundred processes does not compile every module for each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: lab run test quick peers locks mutants lint format notebooks data html bench clean help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "teachkit needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv "$(VENV)"

# A stamp per extra: set-up is repeated only when pyproject.toml changes.
$(VENV)/.stamp-lab: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --editable '.[lab]'
	@touch "$@"

$(VENV)/.stamp-docs: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --editable '.[docs]'
	@touch "$@"

$(VENV)/.stamp-test: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --editable '.[test]'
	@touch "$@" "$(VENV)/.stamp-lab" "$(VENV)/.stamp-docs"

# Peers add packages and replace none of those that the comparison stands on. k-diffusion asks for training tools
# (wandb, clip, ...) that sampling does not use.
$(VENV)/.stamp-peers: $(VENV)/.stamp-test
	"$(BIN)/python" -m pip freeze --exclude-editable | grep -E '^(torch|torchvision|numpy|scipy|jupyterlab)==' > "$(VENV)/kept.txt"
	"$(BIN)/python" -m pip install --quiet --constraint "$(VENV)/kept.txt" --editable '.[test,peers,fid,nbgrader,sources]'
	"$(BIN)/python" -m pip install --quiet --no-deps k-diffusion
	@touch "$@"

lab: $(VENV)/.stamp-lab  ## open the course in JupyterLab (ARGS="--no-browser --port=8888" passes through)
	"$(BIN)/python" -m jupyterlab --notebook-dir=notebooks $(ROOT_OK) $(ARGS)

run: $(VENV)/.stamp-lab  ## run every lesson without a browser; results in build/course/
	"$(BIN)/python" tools/run_course.py $(ARGS)

test: lint  ## every test that needs no other project: lint, types, unit tests, notebooks
	$(PYTEST) --dist loadfile --nbval -m "not peers" $(ARGS) tests/browser $(LESSONS) tests/test_site.py tests  # the longest first

quick: $(VENV)/.stamp-test  ## the unit tests that take seconds
	$(PYTEST) -m "not slow and not peers" $(ARGS) tests

peers: $(VENV)/.stamp-peers  ## install the projects that teachkit is compared with, and compare (minutes)
	$(PYTEST) -m peers --no-skips $(ARGS) tests

# Two environments of their own, in build/locks: several GB each, kept until `make clean`.
locks:  ## the fast tests with the oldest and with the newest packages allowed (PYTHON_OLD=python3.11 PYTHON_NEW=python3.13)
	$(call with_lock,oldest,$(PYTHON_OLD))
	$(call with_lock,newest,$(PYTHON_NEW))

define with_lock
	$(2) -m venv "build/locks/$(1)"
	"build/locks/$(1)/bin/python" -m pip install --quiet --requirement locks/$(1).txt
	"build/locks/$(1)/bin/python" -m pip install --quiet --no-deps --editable .
	OMP_NUM_THREADS=1 "build/locks/$(1)/bin/python" -m pytest -q -n auto -m "not slow and not peers" $(ARGS) tests
	"build/locks/$(1)/bin/python" -m pytest -q --nbval $(addprefix notebooks/,$(LOCK_LESSONS))
endef

mutants: $(VENV)/.stamp-test  ## grade every right and wrong solution of the assignments (minutes)
	$(PYTEST) --dist loadfile -m mutants $(ARGS) tests/assignments tests/test_assignments.py

lint: $(VENV)/.stamp-test  ## ruff, mypy, and the rules on which module may import which
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports" --no-cache

format: $(VENV)/.stamp-test  ## rewrite the code in the house style
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

notebooks: $(VENV)/.stamp-test  ## execute the lessons in place and store their outputs
	"$(BIN)/python" tools/run_course.py --in-place $(ARGS)

html: $(VENV)/.stamp-docs  ## the course as a web site: build/html/index.html (ARGS="--repository https://github.com/...")
	"$(BIN)/python" tools/build_site.py $(ARGS)

bench: $(VENV)/.stamp-peers  ## measure speed against peers
	"$(BIN)/python" -m benchmarks $(ARGS)

clean:  ## remove what was built (not the environment)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
