"""What the command line costs before it works: CPU time of short commands, against Python and Typer alone."""

import resource
import subprocess
import sys
from functools import partial

import pytest

TURNS = 5
CROSSFOLD = (sys.executable, "-m", "crossfold.platform.edge.cli")
RIVALS = {"python -c pass": (sys.executable, "-c", "pass"), "import typer": (sys.executable, "-c", "import typer")}


def cpu_seconds():
    """User and system time of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (("--help",), {"python -c pass": 25, "import typer": 4}),
        (("list", "systems"), {"import typer": 8}),
        (("list", "extractors"), {"import typer": 8}),
        (("list", "corpora"), {"import typer": 12}),
    ],
    ids=["help", "systems", "extractors", "corpora"],
)
def test_a_short_command_costs_little_more_than_typer(arguments, most, tmp_path, monkeypatch, compared, in_turns):
    # Only the first list of an installation imports torch; it keeps the list here.
    monkeypatch.setenv("CROSSFOLD_CACHE", str(tmp_path))
    commands = {"own": (*CROSSFOLD, *arguments), **RIVALS}
    works = {
        name: partial(subprocess.run, command, stdout=subprocess.DEVNULL, check=True)
        for name, command in commands.items()
    }
    taken = in_turns(works, TURNS, cpu_seconds)
    label = f"crossfold {' '.join(arguments)}"
    ratios = {name: compared(label, name, ours=taken["own"], theirs=taken[name]) for name in RIVALS}
    assert {name: 1 / ratios[name] for name, bound in most.items() if 1 / ratios[name] > bound} == {}
