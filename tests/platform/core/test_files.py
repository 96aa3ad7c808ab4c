"""Files and folders appear whole, with the mode of the umask, and nothing is left when the disk refuses."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from crossfold.platform.core import files
from crossfold.platform.core.files import (
    MOST_NAME_BYTES,
    owner_tag,
    remove_drafts,
    temporary_folder,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
)

UMASKS = (0o022, 0o002, 0o077)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def by_library(path: Path) -> None:
    with whole_file(path) as draft:
        save_file({"a": torch.zeros(3)}, draft)


WRITERS = {
    "a.bin": lambda path: write_bytes(path, b"new"),
    "a.json": lambda path: write_json(path, {"b": 1}),
    "a.safetensors": by_library,
}


@pytest.mark.parametrize("mask", UMASKS)
@pytest.mark.parametrize("name", WRITERS)
def test_the_umask_decides_who_may_read(tmp_path, umask, name, mask):
    umask(mask)
    path = tmp_path / "below" / name
    for _ in range(2):
        WRITERS[name](path)
        assert mode_of(path) == 0o666 & ~mask
    assert list(path.parent.iterdir()) == [path]
    with whole_folder(tmp_path / "folder") as draft:
        (draft / "inside").touch()
    assert mode_of(tmp_path / "folder") == 0o777 & ~mask


def refuse_to_flush(monkeypatch, number=errno.ENOSPC):
    def fsync(file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_the_old_file_stays_and_the_error_names_it(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    refuse_to_flush(monkeypatch)
    with pytest.raises(OSError, match="No space left") as error:
        WRITERS[name](path)
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_no_folder_appears(tmp_path, monkeypatch):
    refuse_to_flush(monkeypatch)
    with pytest.raises(OSError, match="No space left") as error, whole_folder(tmp_path / "folder") as draft:
        (draft / "inside").write_bytes(b"new")
    assert error.value.filename == str(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_on_a_disk_that_is_really_full_nothing_is_left(small_disk):
    path = small_disk / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(OSError, match="No space left") as error:
        write_bytes(path, bytes(8 * 2**20))
    assert error.value.filename == str(path)
    with pytest.raises(OSError, match="No space left"), whole_file(small_disk / "table.csv") as draft:
        pd.DataFrame({"a": range(2**21)}).to_csv(draft)
    with pytest.raises(OSError, match="No space left"), whole_folder(small_disk / "folder") as folder:
        (folder / "inside").write_bytes(bytes(8 * 2**20))
    assert list(small_disk.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_the_old_file_stays_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.bin", []
    path.write_bytes(b"old")
    flush = os.fsync

    def watch(file):
        seen.append((path.read_bytes(), os.fstat(file).st_size))
        flush(file)

    monkeypatch.setattr(os, "fsync", watch)
    write_bytes(path, b"newer")
    assert seen == [(b"old", 5)]
    assert path.read_bytes() == b"newer"


def test_a_library_that_fails_leaves_neither_its_file_nor_those_next_to_it(tmp_path):
    def fail() -> None:
        with whole_file(tmp_path / "a.db") as draft:
            assert draft.suffix == ".db"
            draft.with_name(f"{draft.name}-wal").write_bytes(b"half")
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_source_keeps_its_name_in_the_error(tmp_path):
    with pytest.raises(FileNotFoundError) as error, whole_file(tmp_path / "target") as draft:
        draft.write_bytes((tmp_path / "source").read_bytes())
    assert Path(error.value.filename) == tmp_path / "source"


def test_a_folder_that_holds_something_is_never_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "theirs").touch()
    with pytest.raises(FileExistsError), whole_folder(tmp_path / "folder") as draft:
        (draft / "ours").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_links_are_followed_and_devices_are_written_to(tmp_path, capfd):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "report.html"
    link.symlink_to(tmp_path / "elsewhere" / "page.html")
    write_bytes(link, b"page")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "page.html").read_bytes() == b"page"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_json(pipe, {"b": 1})
    assert json.loads(os.read(reader, 100)) == {"b": 1}
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_mount_that_cannot_flush_is_written_to_all_the_same(tmp_path, monkeypatch):
    refuse_to_flush(monkeypatch, errno.EINVAL)
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_json_is_sorted_has_no_nan_and_a_failed_one_changes_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": "é", "a": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "a": [\n  1\n ],\n "b": "é"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert files.json_bytes(json.loads(path.read_bytes())) == path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("killed", ["os.replace", "os.fsync"])
def test_what_a_killed_process_leaves_is_removed_and_what_a_living_one_writes_stays(tmp_path, killed):
    """`os._exit` in place of one operation: no `finally` is run, as with SIGKILL."""
    names = {"os.replace": "pathlib.Path.replace", "os.fsync": "os.fsync"}
    module, _, name = names[killed].rpartition(".")
    code = (
        "import importlib, os, pathlib, sys\n"
        "from crossfold.platform.core.files import whole_folder, write_bytes\n"
        f"setattr({module}, {name!r}, lambda *a, **k: os._exit(9))\n"
        "with whole_folder(pathlib.Path(sys.argv[1]) / 'deep' / 'folder') as draft:\n"
        "    (draft / 'a').touch()\n"
        "    write_bytes(pathlib.Path(sys.argv[1]) / 'a.json', b'new')\n"
    )
    (tmp_path / "a.json").write_text("old")
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    assert (tmp_path / "a.json").read_text() == "old"
    assert len(list(tmp_path.glob(".*"))) == 1
    # The first file that is written next to it removes it: the folder may be one that nothing else would look into.
    with temporary_folder(tmp_path, "mine") as mine, whole_file(tmp_path / "b.db") as draft:
        assert remove_drafts(tmp_path) == 0
        assert set(tmp_path.iterdir()) == {tmp_path / "a.json", tmp_path / "deep", mine, draft}
        assert remove_drafts(tmp_path, recursive=True) == 1
        assert not list((tmp_path / "deep").iterdir())
    assert remove_drafts(tmp_path / "absent") == 0


def test_the_longest_name_has_a_draft_that_file_systems_take(tmp_path):
    path = tmp_path / ("ä" * (MOST_NAME_BYTES // 2 - 3) + ".json")
    with whole_file(path) as draft:
        assert owner_tag() in draft.name
        draft.write_text("x")
    assert list(tmp_path.iterdir()) == [path]
