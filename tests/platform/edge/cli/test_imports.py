"""What a command imports before it has anything to do; tests/benchmarks/test_startup.py measures the time of it."""

import os
import subprocess
import sys

import pytest

HEAVY = {"numpy", "pandas", "pyarrow", "torch", "ray", "mlflow", "optuna", "rich.progress", "yaml"}


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
