"""What shells complete: the names that there are, by the variables through which they ask."""

import os
import subprocess
import sys

import pytest

from crossfold.datasets.corpora.registry import CORPORA
from crossfold.fusion_models.catalogue import system_names
from crossfold.platform.edge.terminal import completion
from crossfold.reports.tables.published import table_ids
from crossfold.sweeps.recipe_files import shipped_recipes
from tests.support.paths import environment


def completed(line: list[str], place=None, shell="complete_bash") -> list[str]:
    """What is offered for the last word of a line, by a process that says what it imported."""
    code = (
        "import sys, atexit\n"
        "slow = {'torch', 'pandas', 'ray', 'yaml'}\n"
        "atexit.register(lambda: print(*sorted(slow & set(sys.modules)), file=sys.stderr))\n"
        "from crossfold.platform.edge.cli.app import main\nmain()"
    )
    asked = {"COMP_WORDS": "\n".join(line), "COMP_CWORD": str(len(line) - 1)}
    if shell == "complete_zsh":
        asked = {"_TYPER_COMPLETE_ARGS": " ".join(line)}
    settings = {"_CROSSFOLD_COMPLETE": shell, **asked}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment(**settings), cwd=place, capture_output=True, text=True, check=True
    )
    assert not ran.stderr.split(), "a key press does not wait for these"
    return ran.stdout.split()


def test_the_names_that_stand_here_are_those_that_there_are():
    assert list(completion.SYSTEMS) == system_names()
    assert sorted(completion.LAYOUTS) == sorted(CORPORA)
    assert list(completion.RECIPES) == shipped_recipes()
    assert list(completion.TABLES) == list(table_ids())


@pytest.mark.parametrize(
    ("line", "some"),
    [
        (["explain", "hgr"], {"hgrjca", "hgrjca_v1"}),
        (["explain", "--recipe", "rjcma2024+"], {"rjcma2024+features", "rjcma2024+released"}),
        (["run", "grjca-t"], {"grjca-t1", "grjca-t2", "grjca-t3"}),
        (["report", "--table", "grjca-t"], {"grjca-t1", "grjca-t2", "grjca-t3"}),
        (["report", "dca-t"], {"dca-t1", "dca-t2"}),
        (["list", "re"], {"recipes"}),
        (["prepare", "aff"], {"affwild2"}),
    ],
)
def test_values_are_completed(line, some):
    found = set(completed(["crossfold", *line]))
    assert some <= found
    assert all(name.startswith(line[-1]) for name in found)


def test_the_workspace_gives_cells_corpora_and_launched_sweeps(tmp_path):
    for name in ("cells/00ff", "cells/.draft", "stores/mine-2-0123abcd", "sweeps"):
        (tmp_path / ".crossfold" / name).mkdir(parents=True)
    (tmp_path / ".crossfold" / "sweeps" / "own.json").touch()
    (tmp_path / "own.yaml").touch()
    assert completed(["crossfold", "why", ""], tmp_path) == ["00ff"]
    assert completed(["crossfold", "predict", "--corpus", "m"], tmp_path) == ["mine-2"]
    assert completed(["crossfold", "status", "ow"], tmp_path) == ["own", "own.yaml"]
    assert completed(["crossfold", "why", "-w", str(tmp_path), ""], tmp_path) == []


def test_conditions_are_completed_in_shells_that_break_words_at_the_equals_sign_and_in_others():
    line = ["crossfold", "run", "demo", "--only"]
    assert completed([*line, "system", "=", "hgrjca"]) == ["hgrjca", "hgrjca_v1"]
    assert completed([*line, "target", "="]) == ["arousal", "valence"]
    assert completed([*line, "target", "=", "valence,"]) == ["valence,arousal"]
    assert completed([*line, "ta"]) == ["target=valence", "target=arousal"]
    assert '"system=hgrjca_v1"' in " ".join(completed([*line, "system=hgrjca_"], shell="complete_zsh"))
    assert "COMP_WORDS" not in os.environ
