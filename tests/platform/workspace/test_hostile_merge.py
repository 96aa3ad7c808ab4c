"""Workspaces made to do harm, given to `merge`: what is refused is listed, and nothing of it is in ours."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from crossfold.platform.core.files import write_json
from crossfold.platform.core.outcome import Silent
from crossfold.platform.edge.cli.app import main
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.workspace.merge import merge
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.prepared import prepare_cells, read_sweep
from tests.support.factories import sweep_label

SECRET = "a secret of this user"


@pytest.fixture(scope="module")
def sound(tmp_path_factory, synthetic_store, tiny_cell):
    """A workspace with a store, one finished cell and a launched sweep; with the cell."""
    root = tmp_path_factory.mktemp("sound") / "theirs"
    space = Workspace(root)
    shutil.copytree(synthetic_store.path, space.paths.stores / synthetic_store.path.name)
    cell = tiny_cell("concat", epochs=1)
    assert attempt_cell(cell, space, reporter=Silent()).status == "done"
    launched = {"name": "s", "corpus": "synthetic", "store": cell.store, "recipe": {}, "protocol": 2, "sweep": {}}
    write_json(
        space.paths.sweeps / "s.json", launched | {"cells": [cell.cell_id], "labels": {cell.cell_id: sweep_label(cell)}}
    )
    return space, cell


@pytest.fixture
def theirs(sound, tmp_path):
    """A copy of the sound workspace to be spoilt, the folder of its cell, and a secret outside."""
    space, cell = sound
    shutil.copytree(space.root, tmp_path / "theirs")
    (tmp_path / "secret.txt").write_text(SECRET)
    theirs = Workspace(tmp_path / "theirs")
    return theirs, theirs.paths.cell(cell.cell_id), tmp_path / "secret.txt"


def recorded(folder, name):
    """Writes the present size and hash of a spoilt file down, as a careful attacker does."""
    env = json.loads((folder / "env.json").read_text())
    env["files"][name] = (folder / name).stat().st_size
    env["files"]["sha256"] = hashlib.sha256((folder / "result.json").read_bytes()).hexdigest()
    write_json(folder / "env.json", env)


def link_to(folder, secret, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)


def changed_result(folder, change):
    result = json.loads((folder / "result.json").read_text())
    change(result)
    write_json(folder / "result.json", result)


def packed(folder, **arrays):
    """Replaces arrays of the predictions."""
    with np.load(folder / "predictions.npz") as data:
        kept = {name: data[name] for name in data.files}
    np.savez_compressed(folder / "predictions.npz", **(kept | arrays))
    recorded(folder, "predictions.npz")


def sparse(path, size):
    path.unlink()
    with path.open("wb") as file:
        file.truncate(size)


def pickled(folder):
    with zipfile.ZipFile(folder / "predictions.npz", "a") as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        archive.writestr("gate:x:y.npy", buffer.getvalue())
    recorded(folder, "predictions.npz")


def bomb(folder):
    with zipfile.ZipFile(folder / "predictions.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("gate:x:z.npy", bytes(2**26))
    recorded(folder, "predictions.npz")


CELLS = {
    "a link to a secret": lambda f, s: link_to(f, s, "env.json"),
    "weights that are a link": lambda f, s: link_to(f, s, "best.safetensors"),
    "predictions that are a link to themselves": lambda f, s: link_to(f, f / "predictions.npz", "predictions.npz"),
    "a link that leads nowhere": lambda f, s: link_to(f, "/no/such", "curve.parquet"),
    "a folder that is a link": lambda f, s: (f / "more").symlink_to(s.parent),
    "a folder": lambda f, s: (f / "more").mkdir(),
    "a pipe": lambda f, s: os.mkfifo(f / "more"),
    "a pipe in place of a file": lambda f, s: ((f / "result.json").unlink(), os.mkfifo(f / "result.json")),
    "a cell that is a link": lambda f, s: (f.rename(s.parent / "elsewhere"), f.symlink_to(s.parent / "elsewhere")),
    "a cell that is a file": lambda f, s: (shutil.rmtree(f), f.write_text("x")),
    "a cell that is a pipe": lambda f, s: (shutil.rmtree(f), os.mkfifo(f)),
    "another identity": lambda f, s: f.rename(f.with_name("0123456789abcdef")),
    "a name that is no identity": lambda f, s: f.rename(f.with_name("results")),
    "a tampered result": lambda f, s: changed_result(f, lambda r: r["metrics"]["valence"].update(ccc=0.9)),
    "a tampered result with its hash": lambda f, s: (
        changed_result(f, lambda r: r["metrics"]["valence"].update(ccc=0.9)),
        recorded(f, "result.json"),
    ),
    "a score that is no number": lambda f, s: (
        (f / "result.json").write_text((f / "result.json").read_text().replace('"ccc": ', '"ccc": NaN, "x": ')),
        recorded(f, "result.json"),
    ),
    "a result without scores": lambda f, s: (changed_result(f, lambda r: r.pop("metrics")), recorded(f, "result.json")),
    "a result nested deeply": lambda f, s: ((f / "result.json").write_text("[" * 10**5), recorded(f, "result.json")),
    "truncated predictions": lambda f, s: (f / "predictions.npz").write_bytes(b"PK\x03\x04half"),
    "truncated predictions with their size": lambda f, s: (
        (f / "predictions.npz").write_bytes(b"PK\x03\x04half"),
        recorded(f, "predictions.npz"),
    ),
    "a clip that is a path": lambda f, s: packed(f, clips=np.array(["/tmp/x", "b", "c"])[: clips(f)]),
    "a clip that climbs": lambda f, s: packed(f, clips=np.array(["../../x", "b", "c"])[: clips(f)]),
    "offsets beyond the rows": lambda f, s: packed(f, offsets=np.arange(clips(f) + 1) * 10**9),
    "predictions of another shape": lambda f, s: packed(f, prediction=np.zeros((3, 1), np.float32)),
    "predictions that hold objects": lambda f, s: pickled(f),
    "predictions that unpack to too much": lambda f, s: bomb(f),
    "weights of no bytes": lambda f, s: ((f / "best.safetensors").write_bytes(b""), recorded(f, "best.safetensors")),
    "weights without tensors": lambda f, s: (
        (f / "best.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}"),
        recorded(f, "best.safetensors"),
    ),
    "weights that are text": lambda f, s: (
        (f / "best.safetensors").write_text("x" * 100),
        recorded(f, "best.safetensors"),
    ),
    "60 GB of nothing as weights": lambda f, s: (
        sparse(f / "best.safetensors", 60 * 10**9),
        recorded(f, "best.safetensors"),
    ),
    "60 GB of nothing as cell.json": lambda f, s: sparse(f / "cell.json", 60 * 10**9),
    "a curve that is text": lambda f, s: ((f / "curve.parquet").write_text("PAR1"), recorded(f, "curve.parquet")),
    "an env.json that is a list": lambda f, s: (f / "env.json").write_text("[]"),
    "a missing file": lambda f, s: (f / "curve.parquet").unlink(),
    "a cell.json that is a list": lambda f, s: ((f / "cell.json").write_text("[]"), recorded(f, "cell.json")),
}  # fmt: skip


def clips(folder):
    with np.load(folder / "predictions.npz") as data:
        return len(data["clips"])


def everything_in(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


@pytest.mark.parametrize("kind", CELLS)
def test_a_spoilt_cell_stays_where_it_is_and_is_listed(theirs, tmp_path, monkeypatch, kind):
    from crossfold.platform.workspace import foreign

    if kind == "predictions that unpack to too much":
        monkeypatch.setattr(foreign, "MOST_UNPACKED_BYTES", 2**20)
    space, folder, secret = theirs
    CELLS[kind](folder, secret)
    shutil.rmtree(space.paths.stores)
    ours = Workspace(tmp_path / "ours")
    merged = merge(ours, [space])
    assert (merged.cells, merged.conflicts) == (0, [])
    assert len(merged.damaged) == 1
    assert str(space.paths.cells) in merged.damaged[0]
    assert everything_in(ours.root) == {"sweeps/s.json"}
    # The same again, where we have a sound cell: ours stays as it is.
    whole = Workspace(tmp_path / "whole")
    shutil.copytree(tmp_path / "theirs", whole.root, symlinks=True, ignore=shutil.ignore_patterns("cells"))
    assert merge(whole, [space]).cells == 0


def test_a_sound_workspace_is_taken_whole(theirs, tmp_path):
    space, folder, _ = theirs
    (folder / ".DS_Store").write_text("of a Mac")
    ours = Workspace(tmp_path / "ours")
    merged = merge(ours, [space])
    assert (merged.cells, merged.stores, merged.sweeps, merged.damaged) == (1, 1, 1, [])
    assert not (ours.paths.cell(folder.name) / ".DS_Store").exists()


def test_a_file_that_no_cell_has_is_left_and_listed(theirs, tmp_path):
    space, folder, _ = theirs
    (folder / "extra.py").write_text("import os")
    ours = Workspace(tmp_path / "ours")
    merged = merge(ours, [space])
    assert merged.cells == 1
    assert [line for line in merged.damaged if "extra.py" in line]
    assert not (ours.paths.cell(folder.name) / "extra.py").exists()


def test_what_they_write_later_is_not_in_ours(theirs, tmp_path):
    space, folder, _ = theirs
    # Their file has a second name already.
    os.link(folder / "result.json", tmp_path / "second")
    ours = Workspace(tmp_path / "ours")
    assert merge(ours, [space]).cells == 1
    before = (ours.paths.cell(folder.name) / "result.json").read_bytes()
    (tmp_path / "second").write_text("changed later")
    assert (ours.paths.cell(folder.name) / "result.json").read_bytes() == before


def store_of(space):
    (store,) = space.paths.stores.iterdir()
    return store


def edited_manifest(store, **changes):
    manifest = json.loads((store / "manifest.json").read_text())
    write_json(store / "manifest.json", manifest | changes)


STORES = {
    "a poisoned array": lambda s, secret: flipped(s / "labels.npy"),
    "a link out": lambda s, secret: (s.rename(secret.parent / "away"), s.symlink_to(secret.parent / "away")),
    "an array that is a link": lambda s, secret: link_to(s, secret, "labels.npy"),
    "a pipe": lambda s, secret: os.mkfifo(s / "more.npy"),
    "a folder": lambda s, secret: (s / "more").mkdir(),
    "another name": lambda s, secret: s.rename(s.with_name("synthetic-0000000000000000")),
    "another corpus": lambda s, secret: edited_manifest(s, corpus="../../x"),
    "a manifest that is a list": lambda s, secret: (s / "manifest.json").write_text("[]"),
    "a manifest nested deeply": lambda s, secret: (s / "manifest.json").write_text("[" * 10**5),
    "no manifest": lambda s, secret: (s / "manifest.json").unlink(),
    "modalities that are paths": lambda s, secret: edited_manifest(s, modalities=["../../secret"]),
    "one file more": lambda s, secret: (s / "more.npy").write_bytes(b"x"),
    "more than the disk holds": lambda s, secret: sparse(s / "labels.npy", 10**13),
}  # fmt: skip


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", STORES)
def test_a_spoilt_store_stays_where_it_is_and_is_listed(theirs, tmp_path, kind):
    space, _, secret = theirs
    STORES[kind](store_of(space), secret)
    ours = Workspace(tmp_path / "ours")
    merged = merge(ours, [space])
    assert (merged.stores, merged.cells) == (0, 1)
    assert len(merged.damaged) == 1
    assert "stores" in merged.damaged[0]
    assert not [path for path in everything_in(ours.root) if path.startswith("stores")]


SWEEPS = {
    "absolute": {"name": "/tmp/x"}, "climbing": {"name": "../x"}, "another": {"name": "t"}, "number": {"name": 3},
    "no cells": {"cells": None}, "cells that are paths": {"cells": ["../../etc"]}, "labels": {"labels": []},
    "labels of paths": {"labels": {"../x": {}}}, "corpus": {"corpus": ["x"]}, "store": {"store": None},
    "not finite": {"recipe": {"lr": float("inf")}},
}  # fmt: skip


@pytest.mark.parametrize("kind", SWEEPS)
@pytest.mark.parametrize("there", [False, True])
def test_a_spoilt_sweep_is_listed(theirs, tmp_path, kind, there):
    space, _, _ = theirs
    ours = Workspace(tmp_path / "ours")
    path = space.paths.sweeps / "s.json"
    if there:
        assert merge(ours, [space]).sweeps == 1
    path.write_text(json.dumps(json.loads(path.read_text()) | SWEEPS[kind]))
    before = everything_in(ours.root)
    merged = merge(ours, [space])
    assert merged.sweeps == 0
    assert [line for line in merged.damaged if "s.json" in line]
    assert {name for name in everything_in(ours.root) if name.startswith("sweeps")} == (
        {name for name in before if name.startswith("sweeps")}
    )
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("text", ["null", "[]", "3", "", "[" * 10**5, '{"name": "s"', "\x00", '{"name": NaN}'])
@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_a_sweep_that_cannot_be_read_is_listed_whoever_has_it(theirs, tmp_path, text, whose):
    space, _, _ = theirs
    ours = Workspace(tmp_path / "ours")
    merge(ours, [space])
    place = {"theirs": space, "ours": ours}[whose].paths.sweeps / "s.json"
    place.write_text(text)
    merged = merge(ours, [space])
    assert [line for line in merged.damaged if "s.json" in line]


@pytest.mark.parametrize("folder", ["failures", "rescored/0123456789abcdef", "ensembles", "rescored"])
@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"a": 1}', "x", "[" * 10**5, '{"members": 3, "metrics": 4}',
    '{"members": ["../x"], "metrics": {"valence": {"ccc": 0.5}}}', '{"members": [], "metrics": {"v": {"ccc": "x"}}}',
    '{"evaluation": {}, "post": 7, "stress": 8, "spans": 9, "gates": 10}'])  # fmt: skip
def test_garbage_among_failures_and_scores_is_listed_and_the_report_is_written(theirs, tmp_path, folder, text):
    space, cell, _ = theirs
    place = space.root / folder / f"{cell.name}-1.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    ours = Workspace(tmp_path / "ours")
    merged = merge(ours, [space])
    assert (merged.failures, merged.rescored) == (0, 0)
    assert [line for line in merged.damaged if place.name in line]
    assert not (ours.root / folder / place.name).exists()


@pytest.fixture(scope="module")
def submitted(tmp_path_factory, synthetic_store):
    """A workspace with the finished cells of a sweep, as `crossfold run` leaves it, and the file of the sweep."""
    root = tmp_path_factory.mktemp("submitted")
    space, sweep = Workspace(root / "theirs"), root / "tiny.yaml"
    shutil.copytree(synthetic_store.path, space.paths.stores / synthetic_store.path.name)
    asked = {"name": "tiny", "corpus": "synthetic", "recipe": "demo", "set": {"epochs": 1}, "systems": ["concat"]}
    sweep.write_text(json.dumps(asked | {"seeds": [0]}))
    for cell in prepare_cells(read_sweep(str(sweep), None), space).plan.cells:
        assert attempt_cell(cell, space, reporter=Silent()).status == "done"
    return space, sweep


@pytest.mark.parametrize("clip", ["", "{outside}", "../../outside", ".hidden"])
def test_merged_cells_are_exported_and_never_outside(submitted, tmp_path, capsys, clip):
    """The whole way by its commands; clip: what a careful attacker names the first clip of the predictions."""
    space, sweep = Workspace(shutil.copytree(submitted[0].root, tmp_path / "theirs")), submitted[1]
    for folder in space.paths.cells.iterdir() if clip else ():
        with np.load(folder / "predictions.npz") as data:
            names = [clip.format(outside=tmp_path / "outside"), *data["clips"].tolist()[1:]]
        packed(folder, clips=np.array(names))
    mine = Workspace(tmp_path / "mine")
    out = tmp_path / "out"
    for command in (
        ["merge", space.root, "--workspace", mine.root],
        ["export", sweep, "--format", "abaw", "--out", out, "--workspace", mine.root],
        ["export", sweep, "--format", "abaw", "--out", tmp_path / "direct", "--workspace", space.root],
    ):
        with suppress(SystemExit):  # refused
            main([str(argument) for argument in command])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    if clip:
        assert "cannot name a file" in said.err
        assert {path.name for path in tmp_path.iterdir()} == {"theirs", "mine"}
    else:
        assert "2 cells joined" in said.out
        assert (out / "predictions.txt").read_bytes() == (tmp_path / "direct" / "predictions.txt").read_bytes()
        assert len(list((out / "clips").iterdir())) == len((out / "predictions.txt").read_text().splitlines()) // 90


def test_an_export_never_leaves_its_folder(theirs, tmp_path):
    from crossfold.platform.core.errors import UserError
    from crossfold.platform.export.abaw import write_abaw
    from crossfold.platform.export.tracks import Track

    values = np.zeros((3, 2), np.float32)
    for clip in (f"{tmp_path}/outside", "../outside", "a/../../outside", ".hidden", "", "a\x00b", "a//b", "x" * 300):
        with pytest.raises(UserError, match="cannot name a file"):
            write_abaw(tmp_path / "out", [Track("sound", values, 0), Track(clip, values, 0)])
        assert not (tmp_path / "out").exists()
    assert replace(Track("sound", values, 0), clip="session/clip").clip == "session/clip"
    write_abaw(tmp_path / "out", [Track("session/clip", values, 0)])
    assert (tmp_path / "out" / "clips" / "session" / "clip.txt").is_file()
