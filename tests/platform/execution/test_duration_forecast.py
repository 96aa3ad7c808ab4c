"""How long cells will take: what a probe charges against what a cell does, and what finished cells teach."""

import itertools
import json
import threading

import pytest
import torch

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.execution import cost_history
from crossfold.platform.execution.cost_history import (
    DurationHistory,
    DurationStats,
    cost_key,
    cost_keys,
)
from crossfold.platform.execution.duration_forecast import forecast
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.execution.step_profiler import Costs, PassSize, StepProfiler, Work, released_epochs
from crossfold.platform.modeling.emotion_model import EmotionModel
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.training.cell_data import open_data


@pytest.fixture
def store(workspace):
    return FeatureStore(workspace.find_store("synthetic"))


def keep(workspace, known):
    cost_history.DURATIONS.update(workspace, lambda before: known)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 3, "patience": 3, "optimizer__plateau_patience": 9, "stress": "default"},
        {"selection": "held_out", "stress": "quick", "post": "ca2021"},
        {"clip": {"frames": 2}, "window": 7, "hop": 5},
    ],
)
def test_a_probe_charges_every_window_that_a_cell_trains_on_or_predicts(
    workspace, store, tiny_cell, monkeypatch, changes
):
    cell = tiny_cell("concat", **changes)
    passed = {True: 0, False: 0}
    fuse = EmotionModel.fuse

    def counted(self, encoded, mask_BL, *rest, **named):
        # One window alone is the count of operations, once a cell.
        passed[torch.is_grad_enabled()] += len(mask_BL)
        return fuse(self, encoded, mask_BL, *rest, **named)

    monkeypatch.setattr(EmotionModel, "fuse", counted)
    assert attempt_cell(cell, workspace).status == "done"
    work = Work.of(open_data(cell, store.path, "cpu"))
    assert passed[True] == work.trained
    assert passed[False] == work.predicted.windows + 1


def test_what_is_charged_is_counted_once_and_costs_what_was_measured():
    predicted = PassSize(4, 40).times(3) + PassSize(5, 50).times(3)
    assert predicted == PassSize(3 * 4 + 3 * 5, 3 * 40 + 3 * 50)
    work = Work({1: 2, 2: 1}, PassSize(10, 100), predicted)
    assert work.trained == 30
    ones = Costs(setup=0.0, step=1.0, predict=0.0)
    assert work.seconds(ones) - work.seconds(Costs(0.0, 0.0, 0.0)) == pytest.approx(30)
    frames = Costs(0.0, 0.0, 0.0, predict_frame=0.0, step_frame={1: 1.0, 2: 5.0})
    assert work.seconds(frames) - work.seconds(Costs(0.0, 0.0, 0.0)) == pytest.approx(2 * 100 + 5 * 100)
    passes = Costs(0.0, 0.0, 1.0, predict_frame=0.1)
    assert work.seconds(passes) - work.seconds(Costs(0.0, 0.0, 0.0)) == pytest.approx(27 + 27)


def test_stages_share_the_epochs():
    recipe = Recipe.parse({"epochs": 8, "backbones": {"visual": "resnet50"}, "thaw": {"groups": 3}}, "test")
    assert released_epochs(recipe) == {1: 3, 2: 3, 3: 2}
    assert released_epochs(recipe.model_copy(update={"epochs": 1})) == {1: 1}
    assert released_epochs(Recipe(epochs=8)) == {0: 8}


def test_kinds_are_spelled_alike_one_by_one_and_together(tiny_cell):
    cells = [tiny_cell(system, seed=seed) for seed, system in itertools.product(range(2), ("concat", "jca"))]
    cells += [cell.with_seed(7) for cell in cells[:2]] + [tiny_cell("concat", window=10)]
    assert cost_keys(cells) == {cell.cell_id: cost_key(cell) for cell in cells}
    assert len(set(cost_keys(cells).values())) == 3


def test_a_probe_is_kept_and_made_once(workspace, store, tiny_cell, monkeypatch):
    cells = [tiny_cell("concat", seed=seed) for seed in range(2)]
    made = []

    class Counted(StepProfiler):
        def seconds(self, cell, path):
            made.append(cell.cell_id)
            return super().seconds(cell, path)

    monkeypatch.setattr("crossfold.platform.execution.step_profiler.StepProfiler", Counted)
    first = forecast(cells, workspace, store)
    assert len(made) == 1
    assert first[cells[0].cell_id] == first[cells[1].cell_id] > 0
    assert forecast(cells, workspace, store) == first
    assert len(made) == 1


def test_each_probe_is_written_down_before_the_next_one_so_that_a_kill_loses_none(
    workspace, store, tiny_cell, monkeypatch
):
    cells = [tiny_cell("concat"), tiny_cell("jca")]

    class Killed(StepProfiler):
        def seconds(self, cell, path):
            if cell.system == "jca":
                raise KeyboardInterrupt
            return super().seconds(cell, path)

    monkeypatch.setattr("crossfold.platform.execution.step_profiler.StepProfiler", Killed)
    with pytest.raises(KeyboardInterrupt):
        forecast(cells, workspace, store)
    kept = json.loads((workspace.root / "forecast.json").read_text())
    assert list(kept) == [cost_key(cells[0])]
    assert kept[cost_key(cells[0])]["probed"] > 0


def test_a_system_that_cannot_run_gets_the_mean_of_the_others(workspace, store, tiny_cell, caplog):
    good = tiny_cell("concat")
    bad = good.model_copy(update={"system": "nothing"})
    found = forecast([good, bad], workspace, store)
    assert found[bad.cell_id] == found[good.cell_id] > 0
    assert "no prediction for nothing" in caplog.text


def test_finished_cells_replace_a_probe_and_correct_those_of_other_systems(workspace, store, tiny_cell):
    concat, jca, other = tiny_cell("concat"), tiny_cell("jca"), tiny_cell("jca", window=10)
    keep(workspace, {cost_key(cell): DurationStats(probed=10.0) for cell in (concat, jca, other)})
    history = DurationHistory(workspace)
    for seconds in (4.0, 6.0):
        history.finished(concat, seconds)
    history.save()
    found = forecast([concat, jca, other], workspace, store, probe=False)
    assert found == {
        concat.cell_id: pytest.approx(5.0),
        jca.cell_id: pytest.approx(10.0 * 5 / 10),
        other.cell_id: 10.0,
    }, "another recipe says nothing about how far these probes are off"
    history.finished(concat, 8.0)
    history.save()
    assert forecast([concat], workspace, store, probe=False)[concat.cell_id] == pytest.approx(6.0)


def test_a_launch_learns_while_it_runs(workspace, store, tiny_cell, monkeypatch):
    cells = [tiny_cell("concat", seed=seed) for seed in range(3)]
    monkeypatch.setattr(cost_history, "SAVE_SECONDS", -1.0)
    history, seen = DurationHistory(workspace), []

    def heard(cell, seconds):
        history.finished(cell, seconds)
        seen.append(json.loads((workspace.root / "forecast.json").read_text())[cost_key(cell)])

    assert run_cells(cells, workspace, FleetOptions(workers=0), finished=heard).done == 3
    assert [kept["cells"] for kept in seen] == [1, 2, 3], "a launch that is killed has told what its cells took"
    assert forecast(cells, workspace, store)[cells[0].cell_id] == pytest.approx(seen[-1]["measured"])


def test_what_several_processes_learn_is_kept_together(workspace, tiny_cell, store):
    cells = [tiny_cell("concat", window=10 + place) for place in range(6)]
    ready = threading.Barrier(6)

    def learn(place):
        history = DurationHistory(workspace)
        ready.wait()
        for _ in range(3):
            history.finished(cells[place], float(1 + place))
            history.save()

    threads = [threading.Thread(target=learn, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = forecast(cells, workspace, store, probe=False)
    assert [found[cell.cell_id] for cell in cells] == pytest.approx([1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": "b"}', '{"a": 3.5}'])
def test_damaged_predictions_are_made_anew(workspace, store, tiny_cell, content):
    (workspace.root / "forecast.json").write_text(content)
    cell = tiny_cell("concat")
    assert forecast([cell], workspace, store, probe=False) == {cell.cell_id: 0.0}
    assert forecast([cell], workspace, store)[cell.cell_id] > 0
