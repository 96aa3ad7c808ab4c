# Everything runs in .venv, built from requirements.lock by uv, which is itself bootstrapped through pip.
PYTHON ?= python3
BIN := .venv/bin
# Some machines forbid bytecode, which doubles the time of every import (torch, ray, mlflow).
export PYTHONDONTWRITEBYTECODE =
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: venv venv-light docs pictures demo test coverage lint format bench lock clean

venv: .venv/.installed

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'

.venv/.installed: requirements.lock pyproject.toml | .uv/bin/uv
	@echo "== installing into .venv (about a minute with a warm network)"
	test -x $(BIN)/python || .uv/bin/uv venv --quiet --python $(PYTHON) .venv
	.uv/bin/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	.uv/bin/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# The versions of requirements.lock without hashes: builds of torch for CPUs have other ones.
TORCH ?= cpu
venv-light: .uv/bin/uv  ## a quarter of the size: torch for CPUs, and nothing that only developers need
	sed -n '/^[a-z]/s/ \\$$//p' requirements.lock > .uv/versions.txt
	test -x $(BIN)/python || .uv/bin/uv venv --quiet --python $(PYTHON) .venv
	.uv/bin/uv pip install --python $(BIN)/python --torch-backend $(TORCH) --constraint .uv/versions.txt --compile-bytecode --editable '.[train,media]'
	touch .venv/.installed

docs: venv  ## the documentation as a site in site/; every link and every example's form is checked
	$(BIN)/python -m mkdocs build --strict

pictures: venv  ## the pictures of README and docs, from what docs/first-report.md says; needs Chromium
	$(BIN)/python -m tests.support.pictures

demo: venv  ## corpus -> store -> sweep -> report, on this machine
	$(BIN)/crossfold demo

# Processes that share the tests: more than there are cores, as tests that start clusters of Ray mostly wait for them.
TEST_PROCESSES ?= 4
# Which tests stay together, and in which order they begin, is in tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder
test: venv  ## every test that needs no GPU
	$(PYTEST)

coverage: venv  ## the same, and which lines no test ran
	$(PYTEST) --cov --cov-report=term:skip-covered

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv  ## ratios against stated rivals, in one run, kept as dated JSON
	$(BIN)/crossfold bench

lock: .uv/bin/uv  ## renew requirements.lock from pyproject.toml
	.uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --extra media --extra text --extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv .uv build dist site .pkg/*.egg-info .pytest_cache .mypy_cache .ruff_cache
