"""`report` and `mlflow sync` on disks that fill up while they write: one sentence, and nothing half-written."""

import re
import shutil
from pathlib import Path

import pytest

from crossfold.platform.edge.cli import app as cli
from crossfold.platform.edge.tracking import sync
from crossfold.platform.edge.tracking.writer import RunWriter
from crossfold.platform.workspace.workspace import Workspace
from tests.support.chaos import runs_in_mlflow
from tests.support.disks import fill, mounted, use_up_files
from tests.support.factories import TINY_SETTINGS, synthetic_workspace, write_sweep

MIB, KIB = 2**20, 2**10
BLOCK = 4096
MADE = re.compile(rb"\d{4}-\d\d-\d\d( \d\d:\d\d UTC)?")
"""When a page or a table was made."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A workspace with the two cells of a sweep, without reports and without MLflow's database."""
    base = tmp_path_factory.mktemp("base")
    work = synthetic_workspace(base, frames=60).root
    settings = TINY_SETTINGS | {"epochs": 1, "stress": "none"}
    sweep = write_sweep(base / "s.yaml", systems=["concat"], targets=["valence"], seeds=[0, 1], set=settings)
    with pytest.raises(SystemExit) as end:
        cli.main(["run", str(sweep), "--workers", "0", "-w", str(work)])
    assert not end.value.code
    for path in work.glob("mlflow*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return work


def size_of(folder: Path) -> int:
    """Bytes that a folder takes on a file system with blocks of 4 KiB."""
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in folder.rglob("*") if path.is_file())


def ends(capsys, *words: object) -> tuple[int, str]:
    """The exit code of a command, and what it writes to standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return end.value.code or 0, " ".join(capsys.readouterr().err.split())


def hidden(work: Path) -> list[Path]:
    return [path for path in work.rglob(".*") if path.name != ".prepared"]


def pages(folder: Path) -> dict[str, bytes]:
    return {path.name: MADE.sub(b"", path.read_bytes()) for path in folder.glob("*")}


def check_refused(said: str, work: Path) -> None:
    assert said.startswith("error: ")
    assert "No space left on device" in said
    assert "free some space" in said
    assert "Traceback" not in said
    assert not hidden(work)


def test_a_report_on_a_full_disk_leaves_every_old_file_and_no_half_of_a_new_one(finished, tmp_path, capsys):
    report = ("report", "--format", "html,csv", "-w")
    assert ends(capsys, *report, finished)[0] == 0
    new = pages(finished / "reports")
    page = size_of(finished / "reports")
    with mounted(tmp_path / "disk", size=size_of(finished) + page + 4 * MIB) as disk:
        work = shutil.copytree(finished, disk / "work")
        for old in (work / "reports").iterdir():
            old.write_bytes(b"old")
        # Half of the page: its draft is cut.
        for free in (8 * KIB, max(map(len, new.values())) // 2):
            filler = fill(disk, left=free)
            code, said = ends(capsys, *report, work)
            filler.unlink()
            found = pages(work / "reports")
            assert found.keys() == new.keys()
            assert all(content in (b"old", new[name]) for name, content in found.items())
            assert code == 1
            check_refused(said, work)
            assert b"old" in found.values()
        assert ends(capsys, *report, work) == (0, "")
        assert pages(work / "reports") == new
    shutil.rmtree(finished / "reports")


def test_a_report_without_free_inodes_says_so_and_leaves_the_old_page(finished, tmp_path, capsys):
    report = ("report", "--no-figures", "--format", "html,csv", "-w")
    with mounted(tmp_path / "disk", size=64 * MIB, files=2000) as disk:
        work = shutil.copytree(finished, disk / "work", ignore=shutil.ignore_patterns("reports"))
        for left in (0, 1):
            empty = use_up_files(disk, left=left)
            code, said = ends(capsys, *report, work)
            assert code == 1
            check_refused(said, work)
            assert re.search(r"\b\d{1,2} more files can be made there and a start needs 32\b", said)
            shutil.rmtree(empty)
        assert ends(capsys, *report, work) == (0, "")


def test_a_sync_with_mlflow_on_a_full_disk_ends_in_one_sentence_and_the_same_command_completes_it(
    finished, tmp_path, capsys, monkeypatch
):
    # What is checked before anything begins, would refuse most of these.
    monkeypatch.setattr(sync, "require_space", lambda place: None)
    with mounted(tmp_path / "disk", size=size_of(finished) + 16 * MIB) as disk:
        for database, free in ((False, 700 * KIB), (True, 8 * KIB), (True, 256 * KIB)):
            work = shutil.copytree(finished, disk / f"work-{free}")
            if database:
                # It is there, and lacks every run.
                RunWriter(Workspace(work)).prepare()
            filler = fill(disk, left=free)
            code, said = ends(capsys, "mlflow", "sync", "-w", work)
            filler.unlink()
            assert code == 1, said
            check_refused(said, work)
            assert ends(capsys, "mlflow", "sync", "-w", work) == (0, "")
            assert runs_in_mlflow(work, "s") == dict.fromkeys(Workspace(work).finished(), 1)
            shutil.rmtree(work)
