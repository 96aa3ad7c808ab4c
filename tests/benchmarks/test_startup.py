"""What the command line costs before it works: CPU time of short commands, against Python and Typer alone."""

import resource
import subprocess
import sys

import pytest

REPEATS = 5
CROSSFOLD = (sys.executable, "-m", "crossfold.platform.edge.cli")
RIVALS = {"python -c pass": (sys.executable, "-c", "pass"), "import typer": (sys.executable, "-c", "import typer")}


def cpu_seconds(command):
    """The least user and system time of several runs of a command."""

    def once():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    return min(once() for _ in range(REPEATS))


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("arguments", "most"),
    [(("--help",), {"python -c pass": 25, "import typer": 4}), (("list", "systems"), {"import typer": 8})],
    ids=["help", "list"],
)
def test_a_short_command_costs_little_more_than_typer(arguments, most, tmp_path, monkeypatch, capsys):
    # Only the first `list systems` of an installation imports torch; it keeps the list here.
    monkeypatch.setenv("CROSSFOLD_CACHE", str(tmp_path))
    own = cpu_seconds((*CROSSFOLD, *arguments))
    measured = {name: cpu_seconds(command) for name, command in RIVALS.items()}
    ratios = {name: own / seconds for name, seconds in measured.items()}
    with capsys.disabled():
        listed = ", ".join(f"x{ratios[name]:.1f} of `{name}` ({seconds:.3f} s)" for name, seconds in measured.items())
        print(f"\ncrossfold {' '.join(arguments)}: {own:.3f} s of CPU, {listed}")
    assert {name: ratios[name] for name, bound in most.items() if ratios[name] > bound} == {}
