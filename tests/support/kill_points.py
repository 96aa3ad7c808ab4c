"""Runs commands that die just before their n-th operation on files, as a process that is killed does.

Python's audit events report each operation before it happens; `os._exit` there runs no `finally`. A server imports all
that is heavy once and runs each command in a fork of itself, so that hundreds of deaths cost no hundreds of imports.
Files that libraries write in native code (parquet, sqlite) are no events; the operations around them are.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.paths import environment

KILLED = 137
_HEAVY = (
    "torch",
    "torch._dynamo",
    "optuna",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "pyarrow.parquet",
    "crossfold.reports.build",
    "crossfold.platform.edge.cli.app",
    "crossfold.platform.edge.launch.run_sweeps",
    "crossfold.platform.edge.search.run_search",
    "crossfold.platform.edge.tracking.sync",
    "crossfold.platform.evaluation.evaluate",
    "crossfold.platform.execution.run_cell",
    "crossfold.platform.features.prepare",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset(
    {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"}
)


@dataclass(frozen=True)
class Death:
    """How a command ended: its exit status, the operations that it began, and the one before which it was killed."""

    status: int
    operations: int
    last: str
    output: str


class KillPoints:
    """The commands of one server; see `kill_points`."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self._server = server

    def run(self, *arguments: object, inside: Path, at: int = 0) -> Death:
        """Runs `crossfold` with arguments; at: the operation below `inside` before which it dies, 0 for none."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        asked = {"argv": [str(each) for each in arguments], "inside": str(inside), "at": at}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return Death(**json.loads(self._server.stdout.readline()))


@contextmanager
def kill_points(folder: Path) -> Iterator[KillPoints]:
    """Starts a server that keeps the output of commands in `folder`, and ends it."""
    command = [sys.executable, "-m", "tests.support.kill_points", str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as server:
        yield KillPoints(server)
        assert server.stdin is not None
        server.stdin.close()


def _die_at(inside: str, at: int, report: Path) -> Callable[[], None]:
    """Watches this process from now on; returns what writes the report of one that lives."""
    seen, last, over = 0, "", False

    def write() -> None:
        nonlocal over
        over = True
        report.write_text(json.dumps({"operations": seen, "last": last}))

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal seen, last
        if over or not (event in _CHANGES or (event == "open" and _writes(*details))):
            return
        place, folder = details[0], details[-1]
        if not isinstance(place, str | bytes | os.PathLike):
            return
        named = os.fsdecode(place).startswith(inside)
        # `shutil.rmtree` names what it removes from an open folder.
        if not named and not (event in ("os.remove", "os.rmdir") and isinstance(folder, int) and folder >= 0):
            return
        seen += 1
        last = f"{event} {os.fsdecode(place)}"
        if seen == at:
            write()
            os._exit(KILLED)

    sys.addaudithook(hook)
    return write


def _writes(path: object, mode: str | None, flags: int) -> bool:
    return any(letter in mode for letter in "wax+") if mode is not None else bool(flags & _WRITING)


def _run(asked: dict[str, Any], folder: Path) -> None:
    """In the fork: the command, with its output in a file."""
    from crossfold.platform.edge.cli.app import main

    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    write = _die_at(asked["inside"], asked["at"], folder / "report")
    try:
        main(asked["argv"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    write()
    os._exit(status)


def _serve(folder: Path) -> None:
    for name in _HEAVY:
        importlib.import_module(name)
    for line in sys.stdin:
        (folder / "report").write_text(json.dumps({"operations": 0, "last": ""}))
        process = os.fork()
        if process == 0:
            _run(json.loads(line), folder)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        output = (folder / "output").read_text(errors="replace")
        print(json.dumps({"status": status, "output": output, **json.loads((folder / "report").read_text())}))
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
