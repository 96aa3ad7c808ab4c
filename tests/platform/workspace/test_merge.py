"""Workspaces of several people become one: nothing lost, nothing overwritten, differences named."""

import json
import shutil
from dataclasses import replace

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import utc_now, write_json
from crossfold.platform.core.metrics import ccc
from crossfold.platform.core.outcome import Failure, FailureClass, Silent
from crossfold.platform.edge.cli.app import main
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.workspace.merge import merge
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import sweep_label


@pytest.fixture
def people(tmp_path, new_workspace, tiny_cell):
    """Ann has cells 0 and 1, ben 1 and 2 with a failure of 3; both launched a sweep `s`. Last, their cells."""
    cells = [tiny_cell("concat", seed=seed, epochs=1) for seed in range(4)]
    spaces = []
    for name, mine in (("ann", cells[:2]), ("ben", cells[1:3])):
        made = new_workspace()
        shutil.move(made.root, tmp_path / name)
        space = Workspace(tmp_path / name)
        # A store of its own, as a link to one elsewhere is never taken over.
        for store in list(space.paths.stores.iterdir()):
            whole = store.resolve()
            store.unlink()
            shutil.copytree(whole, store)
        for cell in mine:
            assert attempt_cell(cell, space, reporter=Silent()).status == "done"
        launched = {"name": "s", "corpus": "synthetic", "store": cells[0].store, "recipe": {"epochs": 1}, "protocol": 1}
        launched |= {
            "sweep": {},
            "cells": [c.cell_id for c in mine],
            "labels": {c.cell_id: sweep_label(c) for c in mine},
        }
        write_json(space.paths.sweeps / "s.json", launched)
        spaces.append(space)
    spaces[1].record_failure(Failure(cells[3].cell_id, "x", FailureClass.OOM, 1, "too big", "", utc_now()))
    scored = {"evaluation": {}, "post": None, "stress": None, "spans": None, "gates": None}
    write_json(spaces[1].paths.rescored / "key" / f"{cells[2].cell_id}.json", scored)
    return (*spaces, cells)


def everything(space):
    return {str(path.relative_to(space.root)): path.read_bytes() for path in space.root.rglob("*") if path.is_file()}


def test_what_the_other_has_is_taken_over_and_what_both_have_is_compared(people):
    ann, ben, cells = people
    before = everything(ben)
    merged = merge(ann, [ben])
    assert (merged.cells, merged.same, merged.failures, merged.sweeps, merged.rescored) == (1, 1, 1, 1, 1)
    assert (merged.conflicts, merged.damaged, merged.stores) == ([], [], 0)
    assert ann.finished() == {cell.cell_id for cell in cells[:3]}
    taken = ann.read(cells[2].cell_id)
    assert taken.result == ben.read(cells[2].cell_id).result
    assert [failure.message for failure in ann.failures_of()] == ["too big"]
    launched = json.loads((ann.paths.sweeps / "s.json").read_text())
    assert launched["cells"] == [cell.cell_id for cell in cells[:3]]
    assert everything(ben) == before
    # Never a second name for their file, which they may write to later.
    assert not (taken.path / "result.json").samefile(ben.paths.cell(cells[2].cell_id) / "result.json")


def test_merging_again_changes_nothing(people):
    ann, ben, _ = people
    merge(ann, [ben])
    once = everything(ann)
    again = merge(ann, [ben])
    assert (again.cells, again.same, again.failures, again.sweeps, again.rescored) == (0, 2, 0, 0, 0)
    assert everything(ann) == once


def test_an_empty_workspace_becomes_all_of_them_with_stores(people, tmp_path):
    ann, ben, cells = people
    new = Workspace(tmp_path / "new")
    merged = merge(new, [ann, ben])
    assert (merged.cells, merged.same, merged.stores) == (3, 1, 1)
    assert new.finished() == {cell.cell_id for cell in cells[:3]}
    store = new.find_store("synthetic")
    assert {path.name for path in store.iterdir()} == {path.name for path in ann.find_store("synthetic").iterdir()}
    assert not list(new.root.rglob(".*"))


def other_numbers(space, cell):
    """Commits a finished cell again with half its predictions, as another machine may have computed it."""
    record = space.read_exactly(cell.cell_id)
    half = replace(record.predictions, prediction=record.predictions.prediction / 2)
    found = float(ccc(half.prediction[:, 0], half.label[:, 0], half.valid[:, 0]))
    result = json.loads(json.dumps(record.result))
    result["metrics"]["valence"]["ccc"] = found
    parts = {"curve": record.curve, "env": record.env, "weights": record.file("best.safetensors").read_bytes()}
    shutil.rmtree(record.path)
    assert space.commit(cell, result=result, predictions=half, **parts)
    return result


def test_a_cell_that_differs_is_kept_aside_and_named(people):
    ann, ben, cells = people
    name = cells[1].cell_id
    result = other_numbers(ben, cells[1])
    ours = everything(ann)
    merged = merge(ann, [ben])
    (conflict,) = merged.conflicts
    assert (conflict.what, conflict.name, conflict.workspace) == ("cell", name, "ben")
    assert conflict.differs == ("result.json", "predictions.npz")
    assert conflict.values["valence"].endswith(f"{result['metrics']['valence']['ccc']:.6f} there")
    kept = ann.root / conflict.kept
    assert json.loads((kept / "result.json").read_text()) == result
    assert everything(ann)[f"cells/{name}/result.json"] == ours[f"cells/{name}/result.json"]
    assert merge(ann, [ben]).conflicts == [conflict]


def test_another_sweep_of_the_same_name_gets_the_name_of_its_workspace(people):
    ann, ben, cells = people
    theirs = json.loads((ben.paths.sweeps / "s.json").read_text()) | {"recipe": {"epochs": 2}}
    write_json(ben.paths.sweeps / "s.json", theirs)
    (conflict,) = merge(ann, [ben]).conflicts
    assert (conflict.what, conflict.differs, conflict.kept) == ("sweep", ("recipe",), "sweeps/s-ben.json")
    assert json.loads((ann.paths.sweeps / "s-ben.json").read_text())["name"] == "s-ben"
    assert json.loads((ann.paths.sweeps / "s.json").read_text())["cells"] == [cell.cell_id for cell in cells[:2]]


@pytest.mark.parametrize("damage", ["file", "json", "identity"])
def test_a_damaged_cell_stays_where_it_is(people, damage):
    ann, ben, cells = people
    folder = ben.paths.cell(cells[2].cell_id)
    if damage == "file":
        (folder / "predictions.npz").unlink()
    elif damage == "json":
        (folder / "result.json").write_text("{")
    else:
        folder.rename(folder.with_name("0" * 16))
    merged = merge(ann, [ben])
    assert merged.cells == 0
    (line,) = merged.damaged
    assert {"file": "predictions.npz is missing", "json": "cannot be read", "identity": cells[2].cell_id}[
        damage
    ] in line
    assert len(ann.finished()) == 2


def test_what_is_no_workspace_is_refused_before_anything(people, tmp_path):
    ann, ben, _ = people
    before = everything(ann)
    for wrong, problem in ((ann, "joined to itself"), (Workspace(tmp_path / "nowhere"), "is no workspace")):
        with pytest.raises(UserError, match=problem):
            merge(ann, [ben, wrong])
    assert everything(ann) == before


def test_the_command_says_what_it_did_and_what_comes_next(people, capsys):
    ann, ben, cells = people
    with pytest.raises(SystemExit) as ended:
        main(["merge", str(ben.root), "--workspace", str(ann.root)])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "1 cell joined, 1 already here" in said
    assert "mlflow sync" in said
    other_numbers(ben, cells[1])
    with pytest.raises(SystemExit) as ended:
        main(["merge", str(ben.root), "--workspace", str(ann.root)])
    assert ended.value.code == 1
    assert "conflicts/" in capsys.readouterr().out.replace("\n", "")
