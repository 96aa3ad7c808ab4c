"""What a command imports before it has anything to do; tests/benchmarks/test_startup.py measures the time of it."""

import os
import subprocess
import sys

import pytest

HEAVY = {"numpy", "pandas", "pyarrow", "torch", "ray", "mlflow", "optuna", "rich.progress", "yaml"}


SLOW = {"pandas", "scipy", "torch", "ray", "mlflow", "optuna"}
"""Each takes longer to import than a listing takes to print."""


def imported(*arguments, cache):
    """The modules that a command has imported when it ends."""
    code = (
        "import sys\nfrom crossfold.platform.edge.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    env = {**os.environ, "CROSSFOLD_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("command", [(), ("run",), ("corpus", "puppets"), ("explain",)])
def test_help_imports_nothing_that_computes(command, tmp_path):
    assert imported(*command, "--help", cache=tmp_path) & HEAVY == set()


def test_a_list_of_systems_imports_nothing_that_computes(tmp_path):
    assert "torch" in imported("list", "systems", cache=tmp_path)
    assert imported("list", "systems", cache=tmp_path) & HEAVY == set()


@pytest.mark.parametrize("listed", ["corpora", "recipes", "sweeps", "tables", "weights", "extractors", "backbones"])
def test_lists_import_nothing_slow(listed, tmp_path):
    if listed in ("extractors", "backbones"):
        assert "torch" in imported("list", listed, cache=tmp_path)
    assert imported("list", listed, "--workspace", str(tmp_path / "workspace"), cache=tmp_path) & SLOW == set()


def test_a_plan_and_a_status_import_nothing_slow(workspace, tmp_path):
    changes = ("corpus=synthetic", "systems=[ca+dca]", "folds=[0]", "targets=[valence]", "seeds=[0]")
    plan = ("plan", "demo", "--workspace", str(workspace), *(each for change in changes for each in ("--set", change)))
    # The first times some steps of each variant, and keeps what it learned of the systems.
    assert "torch" in imported(*plan, cache=tmp_path)
    assert imported(*plan, cache=tmp_path) & SLOW == set()
    assert imported("status", "--workspace", str(workspace), cache=tmp_path) & SLOW == set()
