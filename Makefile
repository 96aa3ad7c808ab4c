# Everything runs in .venv, built from requirements.lock by uv, which is itself bootstrapped through pip.
PYTHON ?= python3
BIN := .venv/bin
# Some machines forbid bytecode, which doubles the time of every import (torch, ray, mlflow).
export PYTHONDONTWRITEBYTECODE =
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: venv demo test lint format bench lock clean

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

demo: venv  ## corpus -> store -> sweep -> report, on this machine
	$(BIN)/crossfold demo

# Three parts side by side: all that computes, and the engine's tests in two, as they mostly wait for Ray and servers.
COMPUTE := $(addprefix tests/platform/,features/test_extraction.py training/test_fine_tuning.py workspace/remote/test_workspace_urls.py)
WAIT := $(addprefix tests/platform/edge/,search/test_run_search.py fleet/test_job_submission.py fleet/test_cluster_files.py fleet/test_multi_device.py fleet/test_ray_fleet.py)
OTHERS := $(filter-out tests/platform/ tests/__pycache__/ tests/support/,$(wildcard tests/*/)) $(wildcard tests/test_*.py)
PYTEST := $(BIN)/python -m pytest -q
test: venv  ## every test that needs no GPU
	@$(PYTEST) -p no:cacheprovider tests/platform $(addprefix --ignore=,$(COMPUTE) $(WAIT)) >.test-platform.log 2>&1 & platform=$$!; \
	$(PYTEST) -p no:cacheprovider $(WAIT) >.test-wait.log 2>&1 & waiting=$$!; \
	$(PYTEST) $(OTHERS) $(COMPUTE); rest=$$?; \
	wait $$platform; one=$$?; wait $$waiting; two=$$?; \
	for part in platform wait; do echo "== tests/platform, .test-$$part.log"; cat .test-$$part.log; done; \
	exit $$((rest ? rest : one ? one : two))

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv  ## ratios against stated rivals, in one run
	$(BIN)/python -m pytest -q -s tests/benchmarks --benchmarks

lock: .uv/bin/uv  ## renew requirements.lock from pyproject.toml
	.uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --extra media --extra text --extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv .uv build dist .pkg/*.egg-info .pytest_cache .mypy_cache .ruff_cache
