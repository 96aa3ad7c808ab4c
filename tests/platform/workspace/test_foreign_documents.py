"""A file next to the cells that holds something else is named in a sentence, by every command that reads it."""

import json
import sys

import pytest

from crossfold.platform.edge.cli.app import main
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import TINY_SETTINGS, synthetic_workspace, write_sweep

GARBAGE = {
    "nothing": b"",
    "half a file": b'{"members": ["a',
    "null": b"null",
    "a list": b"[1, 2]",
    "a number": b"7",
    "an empty mapping": b"{}",
    "nested lists": b"[" * 100_000,
    "bytes": bytes(range(256)),
    "other types": json.dumps(
        {"members": 3, "metrics": [], "name": 4, "cells": "x", "labels": 2, "evaluation": 1, "post": 5, "cell_id": []}
    ).encode(),
    "metrics of another form": b'{"members": ["a"], "metrics": {"valence": "high"}, "evaluation": {}, "post": []}',
}
PLACES = {"ensembles": "x.json", "rescored": "x/{cell}.json", "sweeps": "other.json", "failures": "x-1.json"}
READERS = {
    "ensembles": (("report", "--format", "md"),),
    "rescored": (("report", "--format", "md"), ("why", "{cell}")),
    "sweeps": (("report", "--format", "md"), ("status",), ("why", "{cell}")),
    "failures": (("report", "--format", "md"), ("status",)),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A workspace with one finished cell of a launched sweep."""
    folder = tmp_path_factory.mktemp("documents")
    space = synthetic_workspace(folder)
    sweep = write_sweep(folder / "one.yaml", systems=["concat"], targets=["valence"], set=TINY_SETTINGS | {"epochs": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["crossfold", "run", str(sweep), "-w", str(space.root), "--workers", "0"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code in (0, None)
    return space.root


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_named_and_nothing_is_a_traceback(lab, monkeypatch, capsys, place, garbage):
    (cell,) = Workspace(lab).finished()
    path = lab / place / PLACES[place].format(cell=cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(GARBAGE[garbage])
    try:
        for command in READERS[place]:
            words = [word.format(cell=cell) for word in command]
            monkeypatch.setattr(sys, "argv", ["crossfold", *words, "-w", str(lab)])
            with pytest.raises(SystemExit) as ended:
                main()
            said = "".join(capsys.readouterr())
            assert ended.value.code == 2, (words, said)
            assert str(path) in said.replace("\n", "") and "delete it" in said and "Traceback" not in said
    finally:
        path.unlink()
