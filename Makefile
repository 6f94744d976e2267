# `make demo` and `make test` set up everything that they need. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ENV := source scripts/env.sh &&
# Tests flush many files: where memory is large enough, their folders are in it.
TEMP := $(shell [ "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 6000000 ] 2>/dev/null && echo /dev/shm || echo /tmp)
# Compiled tests are kept, also where PYTHONDONTWRITEBYTECODE is set: else each process compiles all of them again.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 PYTEST_DEBUG_TEMPROOT=$(TEMP) python -m pytest -q
CORE := tests/policy tests/training tests/sim tests/docs tests/fuzz tests/api tests/packaging
# pytest-xdist: as many processes as there are cores, four at most. Each begins with a share of whole files, so that few
# fixtures are made twice, and takes tests from the others when it has none left.
PARALLEL := -n logical --maxprocesses 4 --dist worksteal
FILES := --dist loadfile --no-loadscope-reorder  # whole files, in the order of tests/conftest.py

.PHONY: help setup demo teach check test test-core test-ros test-nodes test-timing coverage lint format docs docs-serve reference clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## make .venv with all packages and build the ROS 2 workspace; quick when nothing changed
	@scripts/setup.sh

demo: setup  ## collect demonstrations, learn two tasks in sequence, run both over ROS 2; writes runs/demo/report.html
	@$(ENV) m2distill demo

RUN ?= runs/demo/m2distill
teach: setup  ## after `make demo`: record, learn, verify and run one more task over ROS 2, on a copy of its run (RUN=...)
	@$(ENV) M2DISTILL_LEARNED_RUN=$(RUN) python -m pytest -q -s tests/ros/test_teach.py tests/ros/test_teach_page.py

check: lint  ## style, types and the quick tests, for every change: 1 to 2 minutes
	@$(ENV) $(PYTEST) $(PARALLEL) -m "not slow and not ros and not sim" $(CORE)

test: lint  ## style, types and all tests
	@echo "tests with and without ROS 2 run side by side; each part is shown when it ends"
	@$(MAKE) --no-print-directory -j 2 -k -O BEHIND="nice -n 19 env" test-nodes test-core
	@$(MAKE) --no-print-directory test-timing

test-core: setup  ## tests that need no running ROS 2
	@$(ENV) $(BEHIND) $(PYTEST) $(PARALLEL) $(CORE)

test-ros: test-nodes test-timing  ## tests over real ROS 2

test-nodes: setup  ## those of them that measure no times; they wait most of the time, and leave it to test-core
	@$(ENV) $(PYTEST) -n 4 $(FILES) -m "not timing" tests/ros tests/e2e

test-timing: setup  ## those of them that measure times, alone
	@$(ENV) $(PYTEST) -n 3 $(FILES) -m timing tests/ros

coverage: setup  ## line coverage of the tests that need no running ROS 2
	@$(ENV) $(PYTEST) $(PARALLEL) --cov --cov-report=term $(CORE)

lint: setup  ## style, format, word list and types
	@$(ENV) python -m ruff check . && python -m ruff format --check . && python scripts/check_words.py && python -m mypy

format: setup  ## format the code and fix what ruff can fix
	@$(ENV) python -m ruff check --fix . && python -m ruff format .

docs: setup  ## the documentation site in site/; fails on a warning
	@$(ENV) NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

docs-serve: setup  ## the documentation site at http://127.0.0.1:8000, rebuilt on changes
	@$(ENV) NO_MKDOCS_2_WARNING=1 python -m mkdocs serve

reference: setup  ## write docs/reference from the code
	@$(ENV) python scripts/reference.py

clean:  ## remove .venv, built workspaces and the site; data and runs stay
	rm -rf .venv site ros2_ws/build ros2_ws/install ros2_ws/log
