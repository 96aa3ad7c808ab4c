"""The options of `crossfold report` that print instead of building everything."""

import pytest

from crossfold.platform.edge import cli
from crossfold.platform.workspace.workspace import Workspace
from tests.support import lab


@pytest.fixture(scope="module")
def spaces(tmp_path_factory):
    """Two workspaces with the same finished cells."""
    found = []
    for name in ("one", "two"):
        workspace = Workspace(tmp_path_factory.mktemp(name))
        store = lab.make_store(workspace.root)
        for cell, noise in lab.cells_of(store, lab.VARIANTS[:3], folds=(0,)):
            lab.finish(workspace, store, cell, noise)
        found.append(str(workspace.root))
    return found


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(["report", *arguments])
    printed = capsys.readouterr()
    return end.value.code or 0, printed.out, printed.err


def test_one_table_is_printed_with_the_columns_asked_for(spaces, capsys):
    code, out, _ = said(capsys, "-w", spaces[0], "--table", "leaderboard", "--columns", "System,95% interval")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[-4:]] == ["System", "Concatenation", "Visual", "Audio"]
    code, out, _ = said(capsys, "-w", spaces[0], "--table", "leaderboard", "--format", "tex")
    assert code == 0
    assert out.startswith("% needs")
    code, _, err = said(capsys, "-w", spaces[0], "--columns", "System")
    assert code != 0
    assert "add --table NAME" in err


def test_workspaces_are_compared_and_joined(spaces, tmp_path, capsys):
    code, out, _ = said(capsys, "-w", spaces[0], "--diff", spaces[1], "--out", str(tmp_path))
    assert code == 0
    assert "Of 9 rows: 9 the same numbers." in out
    assert (tmp_path / "difference.html").is_file()
    code, out, _ = said(capsys, "--join", *spaces, "--out", str(tmp_path))
    assert code == 0
    assert out.count("6 of 6 cells") == 3
    assert (tmp_path / "joined.html").is_file()
    code, _, err = said(capsys, "--join", spaces[0])
    assert code != 0
    assert "two or more" in err
