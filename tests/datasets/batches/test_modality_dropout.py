"""Modality dropout: which windows lose a modality, what a system then sees, and what stays as it was without it."""

import numpy as np
import pytest
import torch

from crossfold.datasets.batches.modality_dropout import dropped_windows, without
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.modeling.inputs import check_inputs
from crossfold.platform.training import train as training
from crossfold.platform.training.cell_data import open_data
from crossfold.sweeps.plan import expand
from crossfold.sweeps.sweep_files import load

BOTH = ("audio", "visual")


def test_each_modality_is_lost_with_its_probability_and_never_all_at_once(tiny_cell):
    cell = tiny_cell("concat", modality_dropout={"audio": 0.4, "visual": 0.25})
    lost = dropped_windows(cell, BOTH, 20_000, 0)
    # A window that would lose both, a share of 0.4 x 0.25, keeps both; a standard error is below 0.004.
    assert lost["audio"].mean() == pytest.approx(0.4 - 0.1, abs=0.015)
    assert lost["visual"].mean() == pytest.approx(0.25 - 0.1, abs=0.015)
    assert not (lost["audio"] & lost["visual"]).any()


def test_the_draws_depend_on_epoch_and_seed_alone(tiny_cell):
    share = {"modality_dropout": {"audio": 0.5}}
    first = dropped_windows(tiny_cell("concat", **share), BOTH, 200, 3)["audio"]
    np.testing.assert_array_equal(dropped_windows(tiny_cell("rjca", **share), BOTH, 200, 3)["audio"], first)
    assert (dropped_windows(tiny_cell("concat", **share), BOTH, 200, 4)["audio"] != first).any()
    assert (dropped_windows(tiny_cell("concat", seed=1, **share), BOTH, 200, 3)["audio"] != first).any()
    # A system that reads the audio alone would have nothing left.
    assert not dropped_windows(tiny_cell("unimodal_audio", **share), ("audio",), 200, 3)["audio"].any()


def test_a_lost_modality_is_zero_as_one_that_is_missing_at_test(tiny_cell, synthetic_store):
    cell = tiny_cell("concat", modality_dropout={"audio": 0.5})
    source = open_data(cell, synthetic_store.path, "cpu").training.source
    chosen = np.arange(4)
    clean = source.batch(chosen)
    lost = {"audio": np.array([True, False, True, False]), "visual": np.zeros(4, np.bool_)}
    damaged = without(source.batch(chosen), lost)
    assert not damaged.x["audio"][[0, 2]].any()
    torch.testing.assert_close(damaged.x["audio"][[1, 3]], clean.x["audio"][[1, 3]], rtol=0, atol=0)
    torch.testing.assert_close(damaged.x["visual"], clean.x["visual"], rtol=0, atol=0)
    absent = source.with_frames(
        "audio", synthetic_store.features("audio", 0), np.zeros(synthetic_store.frames, np.bool_)
    )
    assert not absent.batch(chosen).x["audio"].any()


def test_recipes_without_it_keep_their_identity(tiny_cell):
    plain = tiny_cell("concat")
    assert "modality_dropout" not in plain.recipe.identity()
    assert tiny_cell("concat", modality_dropout={"audio": 0, "visual": 0.0}).cell_id == plain.cell_id
    assert tiny_cell("concat", modality_dropout={"audio": 0.1}).cell_id != plain.cell_id


def test_training_sees_the_dropped_windows_and_scoring_does_not(tiny_cell, workspace, synthetic_store, monkeypatch):
    """The share of windows without audio in training is that of the recipe; predictions are of whole windows."""
    seen = {True: [], False: []}
    plain = training.EmotionModel.forward

    def watched(self, x, *args, **kwargs):
        seen[self.training] += [bool(window.any()) for window in x["audio"]]
        return plain(self, x, *args, **kwargs)

    monkeypatch.setattr(training.EmotionModel, "forward", watched)
    cell = tiny_cell("concat", modality_dropout={"audio": 0.5}, epochs=4, stress=())
    assert attempt_cell(cell, workspace).status == "done"
    windows = len(open_data(cell, synthetic_store.path, "cpu").training.source)
    expected = [~dropped_windows(cell, BOTH, windows, epoch)["audio"] for epoch in range(4)]
    assert sum(seen[True][: 4 * windows]) == np.concatenate(expected).sum()
    assert 0 < sum(seen[True][: 4 * windows]) < 4 * windows
    assert all(seen[False])


@pytest.mark.parametrize(
    ("given", "words"),
    [({"audio": 1.0}, "less than 1"), ({"audio": -0.1}, "greater than or equal to 0"), ({"sound": 0.1}, "sound")],
)
def test_an_impossible_probability_is_refused(given, words):
    with pytest.raises(UserError, match=words):
        Recipe.parse({"modality_dropout": given}, "recipe")


def test_a_modality_that_the_store_lacks_is_refused(synthetic_store):
    with pytest.raises(UserError, match=r"modality_dropout names text, and store .* has audio, visual"):
        check_inputs(Recipe(modality_dropout={"text": 0.2}), synthetic_store, BOTH)


def test_the_shipped_sweep_has_every_cell_with_and_without(synthetic_store):
    cells = expand(load("modality-dropout", []), synthetic_store).cells
    names = {cell.recipe.name for cell in cells}
    assert names == {"demo", "demo+modality_dropout"}
    assert len({cell.cell_id for cell in cells}) == len(cells) == 48
    assert sum(bool(cell.recipe.modality_dropout) for cell in cells) == 24
