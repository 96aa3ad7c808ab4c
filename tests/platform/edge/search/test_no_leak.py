"""What a search finds does not depend on the clips that its winner reports; where it would, every number says so."""

import json

import numpy as np
import pytest

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.edge.search.run_search import run_search
from crossfold.platform.edge.tracking.records import Records
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.sweep_files import load
from crossfold.sweeps.trials import check_space, seen_clips
from tests.support.factories import TINY_SETTINGS, make_store, synthetic_clips, write_sweep
from tests.support.trials import RecordingTracker

SHORT = ("trials=3", "epochs=2", *(f"{key}={value}" for key, value in TINY_SETTINGS.items() if key != "epochs"))


def clips_of(perturbed=()):
    """Ten clips; features, labels and presence of some are others."""
    clips = synthetic_clips(10, 60)
    for clip in clips:
        if clip["name"] in perturbed:
            rng = np.random.default_rng(9)
            clip["features"] = {
                m: values + 5 * rng.standard_normal(values.shape) for m, values in clip["features"].items()
            }
            clip["labels"] = rng.uniform(-1, 1, clip["labels"].shape)
            clip["present"] = {m: rng.random(len(clip["labels"])) > 0.5 for m in clip["present"]}
    return clips


def store_of(folder, original=None, perturbed=()):
    """A store; of perturbed clips under the hash of the original, as order of batches and names follow from it."""
    store = make_store(folder / "stores", clips_of(perturbed), corpus="puppets")
    if original is None:
        return store
    assert store.content_hash != original.content_hash
    manifest = store.manifest | {"content_hash": original.content_hash}
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    return FeatureStore(store.path.rename(store.path.with_name(original.path.name)))


def found_by(search, store, folder):
    """What a search found, as bytes: parameters, states and values of all trials, and what it ran."""
    space = Workspace(folder)
    found = run_search(search, store, space, FleetOptions(workers=0), tracker=RecordingTracker())
    table = found.trials.drop(columns="seconds")
    return table["value"].to_numpy().tobytes(), table.to_csv(index=False), sorted(space.finished())


def test_other_clips_in_the_folds_of_the_winner_change_nothing_that_the_shipped_search_finds(tmp_path):
    search, store = load("search-demo", SHORT), store_of(tmp_path / "a")
    check_space(search, store)
    reported = {name for fold in search.winner_folds for name in store.fold(fold).validation}
    assert reported
    before = found_by(search, store, tmp_path / "a")
    assert before[1].count("complete") == 3
    assert found_by(search, store_of(tmp_path / "b", store, reported), tmp_path / "b") == before
    # A clip that the search sees does change what it finds, so the test can fail.
    seen = store.fold(search.fold).train[0]
    assert found_by(search, store_of(tmp_path / "c", store, {seen}), tmp_path / "c")[0] != before[0]


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_the_only_clean_fold_of_rolling_folds_is_that_of_the_search(tmp_path, fold):
    store = store_of(tmp_path)
    for winner in range(len(store.folds)):
        asked = load("search-demo", (f"fold={fold}", f"winner={{folds: [{winner}]}}"))
        assert bool(seen_clips(asked, store)) == (winner != fold)


def test_a_winner_on_seen_clips_is_refused_with_their_names_or_labelled_everywhere(crossfold, tmp_path):
    space = tmp_path / "ws"
    store = make_store(space / "stores", synthetic_clips(10, 60))
    search = write_sweep(
        tmp_path / "s.yaml", systems=None, system="rjca", trials=1, inner_folds=2, targets=["valence"], seeds=[0],
        folds=None, space={"iterations": {"int": [1, 2]}}, winner={"folds": [0, 1], "seeds": [0]},
    )  # fmt: skip
    search.write_text("\n".join(line for line in search.read_text().splitlines() if "null" not in line))
    code, _, error = crossfold("search", search, "-w", space, "--workers", 0)
    assert code == 2
    message = " ".join(error.split())
    assert "its winner would report" in message
    assert "in fold 1: " + ", ".join(store.fold(1).validation) in message
    assert "give winner.folds: [0], or allow_seen: true" in message
    assert not (space / "cells").exists()
    code, said, error = crossfold("search", search, "-w", space, "--workers", 0, "--set", "allow_seen=true")
    assert code == 0, error
    assert "numbers of fold 1 are marked seen" in " ".join(said.split())
    records = Records(Workspace(space))
    tags = {r.cell.fold: records.find(r.cell_id).tags for r in Workspace(space).records() if r.cell.inner is None}
    assert {fold: "seen" in found for fold, found in tags.items()} == {0: False, 1: True}
    # A later launch of the same name without the fold takes the label from no number.
    launched = json.loads((space / "sweeps" / "s-winner.json").read_text())
    (seen,) = launched["seen"]
    code, _, error = crossfold(
        "search", search, "-w", space, "--workers", 0, "--set", "winner={folds: [0], seeds: [0]}"
    )
    assert code == 0, error
    again = json.loads((space / "sweeps" / "s-winner.json").read_text())
    assert (again["seen"], seen in again["cells"]) == ([seen], False)
    assert crossfold("report", "leaderboard", "-w", space, "--format", "md", "--out", tmp_path)[0] == 0
    assert "<sup>seen</sup>" in (tmp_path / "leaderboard.md").read_text()
