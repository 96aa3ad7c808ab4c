"""Folders of Ray that killed launches leave: the next launch removes them, and no other one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from crossfold.platform.core.files import owner_tag
from crossfold.platform.edge.fleet import session_folder as sessions
from crossfold.platform.edge.fleet.session_folder import KEEP_SECONDS, OWNER, remove_sessions, session_folder
from tests.support.paths import environment
from tests.support.waiting import wait_for


@pytest.fixture
def dead() -> str:
    """The owner tag of a process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return f"{owner_tag().rpartition('-')[0]}-{process.pid}"


@pytest.fixture
def make(tmp_path):
    def folder(name: str, owner: str | None, *, mode: int = 0o700, age: float = 0.0) -> Path:
        made = tmp_path / name
        (made / "r" / "session").mkdir(parents=True)
        (made / "r" / "session" / "log").write_text("log")
        if owner is not None:
            (made / OWNER).write_text(owner)
        made.chmod(mode)
        for path in (*made.rglob("*"), made):
            os.utime(path, (time.time() - age,) * 2)
        return made

    return folder


def test_only_what_a_killed_launch_of_this_user_left_is_removed(make, dead, tmp_path):
    killed, also_killed = make("ray-killed", dead), make("ray-killed2", dead, age=KEEP_SECONDS)
    forgotten = make("ray-forgotten", None, age=KEEP_SECONDS + 60)
    living = make("ray-living", owner_tag(), age=KEEP_SECONDS + 60)
    elsewhere = make("ray-elsewhere", "01234567-1", age=KEEP_SECONDS + 60)
    recent = make("ray-recent", None, age=KEEP_SECONDS - 60)
    other_name = make("rays", dead)
    open_to_others = make("ray-open", dead, mode=0o755)
    more = make("ray-more", dead)
    (more / "thesis.txt").write_text("mine")
    garbage = make("ray-garbage", None)
    (garbage / OWNER).write_bytes(b"\xff\xfe")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "ray-link"
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "ray-file").write_text("")
    before = set(tmp_path.iterdir())

    removed = set(remove_sessions(tmp_path))
    assert removed == {killed, also_killed, forgotten}
    assert set(tmp_path.iterdir()) == before - removed
    assert all((kept / "r" / "session" / "log").exists() for kept in (living, elsewhere, recent, other_name, more))
    assert (open_to_others / "r").exists()
    assert link.is_symlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder of another user")
def test_the_folder_of_another_user_stays(make, dead, tmp_path):
    theirs = make("ray-theirs", dead)
    os.chown(theirs, 12345, 12345)
    assert remove_sessions(tmp_path) == []
    assert (theirs / "r" / "session" / "log").exists()


def test_a_folder_whose_ray_processes_still_run_stays_until_they_end(make, dead, tmp_path):
    folder = make("ray-busy", dead)
    code = "import sys; print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, f"--log_dir={folder}/r/session/logs"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert remove_sessions(tmp_path) == []
        process.stdin.close()
    assert remove_sessions(tmp_path) == [folder]


def test_logs_stay_after_an_error_and_nothing_stays_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "session_place", lambda: tmp_path)
    with session_folder() as place:
        assert place.parent.stat().st_mode & 0o777 == 0o700
        assert (place.parent / OWNER).read_text() == owner_tag()
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), session_folder():
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError), session_folder() as place:
        place.mkdir()
        raise RuntimeError
    assert remove_sessions(tmp_path) == []
    assert list(tmp_path.iterdir()) == [place.parent]


def runs(process: psutil.Process) -> bool:
    try:
        return process.name() in ("gcs_server", "raylet") and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


CONNECT = """
import contextlib, sys
from crossfold.platform.edge.fleet.ray_connection import connect
with contextlib.ExitStack() as opened:
    connect(None, opened, cpus=1)
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_the_launch_after_one_that_was_killed_removes_its_folder():
    """Real processes of Ray."""
    short = Path("/tmp") / f"cf{os.getpid()}"
    short.mkdir()
    settings = environment(RAY_TMPDIR=str(short))
    settings.pop("RAY_ADDRESS", None)

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", CONNECT], env=settings, text=True, **pipes)

    try:
        with start() as killed:
            assert killed.stdout.readline() == "up\n"
            (left,) = short.iterdir()
            family = psutil.Process(killed.pid).children(recursive=True)
            assert any(map(runs, family))
            with start() as other:
                assert other.stdout.readline() == "up\n"
                assert left.is_dir(), "that of a living launch stays"
                (theirs,) = set(short.iterdir()) - {left}
                killed.send_signal(signal.SIGKILL)
                killed.wait()
                wait_for(lambda: not any(map(runs, family)), 60)
                assert left.is_dir()
                with start() as following:
                    assert following.stdout.readline() == "up\n"
                    assert not left.exists()
                    assert theirs.is_dir()
                    following.stdin.close()
                other.stdin.close()
        assert not list(short.iterdir())
    finally:
        shutil.rmtree(short, ignore_errors=True)
