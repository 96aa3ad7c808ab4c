"""Each command is killed before its n-th operation on files, and the same command then completes it."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossfold.platform.workspace.workspace import Workspace
from tests.support.chaos import runs_in_mlflow
from tests.support.factories import TINY_SETTINGS, write_sweep
from tests.support.kill_points import KILLED, KillPoints, kill_points

A_FEW = {"prepare": 4, "run": 4, "search": 3, "report": 2, "sync": 2, "merge": 4, "rescore": 2, "export": 2}
"""Deaths of each command in an ordinary test run; with `--benchmarks`, one before every operation."""
COMMANDS = {
    "prepare": ("prepare", "synthetic", "--root", "{base}/corpus", "-w", "{work}"),
    "run": ("run", "{base}/sweep.yaml", "--workers", "0", "-w", "{work}"),
    "report": ("report", "--no-figures", "--format", "html,csv", "-w", "{work}"),
    "sync": ("mlflow", "sync", "-w", "{work}"),
    "rescore": ("rescore", "{base}/sweep.yaml", "--stress", "none", "--post", "ca2021", "--processes", "1",
                "-w", "{work}"),
    "export": ("export", "{base}/sweep.yaml", "--format", "csv", "--out", "{work}/out/table.csv", "-w", "{work}"),
    "search": ("search", "{base}/search.yaml", "--workers", "0", "-w", "{work}"),
    "merge": ("merge", "{base}/run", "-w", "{work}"),
}  # fmt: skip
BEFORE = {
    "prepare": "", "run": "prepare", "search": "prepare", "merge": "", "report": "run", "sync": "run",
    "rescore": "run", "export": "run",
}  # fmt: skip
"""The command after which the workspace is when this one begins."""
VARIES = ("env.json", "report.html")
"""Files with a time; below, what holds measurements or drawn identities. All else is compared byte by byte."""
VARYING = ("status", "launches", "mlflow", "driver", "forecast", "memory", "optuna", "searches")
SEARCH = {
    "name": "search", "corpus": "synthetic", "recipe": "demo", "system": "concat", "targets": ["valence"],
    "inner_folds": 2, "seeds": [0], "trials": 2, "space": {"recipe.optimizer.lr": {"choice": [0.004]}},
    "winner": {"folds": [0], "seeds": [0]},
}  # fmt: skip
MADE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
"""When a table was made."""


def content(work: Path) -> dict[str, bytes]:
    """What two workspaces must have alike: every file by its path, and of those that vary that they are there."""
    found = {}
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.is_file() and not name.startswith(VARYING):
            found[name] = b"" if path.name in VARIES else MADE.sub(b"", path.read_bytes())
    return found


def hidden(work: Path) -> list[str]:
    return sorted(p.relative_to(work).as_posix() for p in work.rglob(".*") if p.name not in (".prepared",))


@pytest.fixture(scope="module")
def killer(tmp_path_factory) -> Iterator[KillPoints]:
    with kill_points(tmp_path_factory.mktemp("server")) as points:
        yield points


@pytest.fixture(scope="module")
def base(tmp_path_factory, killer) -> Path:
    """A folder with an undisturbed workspace after each command, under the name of the command."""
    from crossfold.datasets.corpora.embedded.synthetic import write_synthetic
    from crossfold.platform.edge.tracking.writer import RunWriter

    base = tmp_path_factory.mktemp("base")
    write_synthetic(base / "corpus", clips=8, frames=60, seed=3)
    settings = TINY_SETTINGS | {"epochs": 1, "stress": "none"}
    # Every trial has the same configuration, so that a search draws it again whenever it is killed.
    (base / "search.yaml").write_text(json.dumps(SEARCH | {"set": settings}))
    write_sweep(base / "sweep.yaml", systems=["concat"], targets=["valence"], seeds=[0, 1], set=settings)
    for name in BEFORE:
        begin(base, name, base / name)
        done = ask(killer, base, name, base / name)
        assert done.status == 0, done.output
        if name == "prepare":
            # Its migrations take seconds, which each death would cost.
            RunWriter(Workspace(base / name)).prepare()
        (base / f"{name}.operations").write_text(str(done.operations))
    return base


def begin(base, name, work):
    """Makes the workspace in which a command begins."""
    if BEFORE[name]:
        shutil.copytree(base / BEFORE[name], work, symlinks=True)
    if name == "sync":
        for path in work.glob("mlflow*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copy(base / "prepare" / "mlflow.db", work)


def ask(killer, base, name, work, at=0):
    arguments = [part.format(base=base, work=work) for part in COMMANDS[name]]
    return killer.run(*arguments, inside=work, at=at)


def problems_of_search(undisturbed, work):
    """What a search that was killed says otherwise than one that was not; an open trial is repeated as another one."""
    theirs, ours = (json.loads((place / "searches" / "search.json").read_text()) for place in (undisturbed, work))
    failed = ours["trials"].pop("failed")
    differing = [key for key in theirs if key not in ("trials", "spent") and ours[key] != theirs[key]]
    complete = {state: count for state, count in theirs["trials"].items() if state != "failed"}
    if ours["trials"] != complete or failed > 1:
        differing.append(f"trials {ours['trials']}, {failed} failed")
    return [f"in the result of the search: {differing}"] if differing else []


def check(killer, base, tmp_path, name, deaths):
    """Kills a command at so many of its operations, spread evenly (None: at each); what was left is in the message."""
    operations = int((base / f"{name}.operations").read_text())
    assert operations > 3, "the command does something"
    steps = (deaths or operations) - 1
    chosen = sorted({1 + round(step * (operations - 1) / steps) for step in range(steps + 1)})
    expected, record, wrong = content(base / name), [], []
    for at in chosen:
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        begin(base, name, work)
        death = ask(killer, base, name, work, at)
        left = hidden(work)
        again = ask(killer, base, name, work)
        if again.status == 0 and name in ("report", "rescore", "export"):
            # The next command that holds the lock.
            again = ask(killer, base, "run", work)
        found = content(work)
        line = f"{name} {at}/{operations} before {death.last.replace(str(work), '')}: left {left}"
        record.append(line)
        problems = [
            *([f"killed: {death.status} {death.output[-500:]}"] if death.status not in (KILLED, 0) else []),
            *([f"again: {again.status} {again.output[-1500:]}"] if again.status else []),
            *(f"differs: {path}" for path in sorted({path for path, _ in expected.items() ^ found.items()})),
            *(f"still there: {path}" for path in hidden(work)),
        ]
        if name in ("run", "sync") and not problems:
            runs = runs_in_mlflow(work, "sweep")
            if runs != dict.fromkeys(sorted(Workspace(work).finished()), 1):
                problems.append(f"in MLflow: {runs}")
        if name == "search" and not problems:
            problems += problems_of_search(base / name, work)
        wrong += [f"{line}: {problem}" for problem in problems]
    (tmp_path / "record.txt").write_text("\n".join(record) + "\n")
    assert not wrong, "\n".join(wrong)
    assert sum("left [" in line for line in record) == len(chosen)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_was_killed_before_an_operation_is_made_good_by_the_same_command(killer, base, tmp_path, name):
    check(killer, base, tmp_path, name, A_FEW[name])


@pytest.mark.benchmark
@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_before_every_operation(killer, base, tmp_path, name):
    check(killer, base, tmp_path, name, None)
