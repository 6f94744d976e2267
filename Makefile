# `make demo` and `make test` set up all they need. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ENV := source scripts/env.sh &&

.PHONY: help setup demo teach test test-core test-ros lint reference clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## .venv with everything in it, and the built ROS 2 workspace; quick when there is nothing to do
	@scripts/setup.sh

demo: setup  ## collect demos, learn two tasks one after the other, obey instructions over ROS 2; ends in runs/demo/report.html
	@$(ENV) m2distill demo

RUN ?= runs/demo/m2distill
teach: setup  ## after `make demo`: record, learn, prove and obey one more task over ROS 2, on a copy of its run (RUN=...)
	@$(ENV) M2DISTILL_LEARNED_RUN=$(RUN) python -m pytest -q -s tests/ros/test_teach.py

test: lint test-core test-ros  ## style and types, then all tests

test-core: setup  ## tests that need no ROS
	@$(ENV) OMP_NUM_THREADS=1 python -m pytest -q -n logical --maxprocesses 4 tests/policy tests/training tests/sim tests/docs tests/fuzz

test-ros: setup  ## tests over real ROS 2
	@$(ENV) python -m pytest -q tests/ros tests/e2e

lint: setup  ## style and types
	@$(ENV) ruff check . && mypy

reference: setup  ## docs/reference from the code
	@$(ENV) python scripts/reference.py

clean:  ## remove what setup and builds made; data and runs stay
	rm -rf .venv ros2_ws/build ros2_ws/install ros2_ws/log
