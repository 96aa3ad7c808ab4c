"""The loss, the schedule, stopping, divergence, and a run that is interrupted anywhere and ends in the same bytes."""

import io
import itertools
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.datasets.batches.source import Batch, BatchSpec, WindowSource
from crossfold.datasets.batches.windows import cut
from crossfold.platform.core.errors import Diverged
from crossfold.platform.core.metrics import ccc
from crossfold.platform.core.outcome import FailureClass, Silent
from crossfold.platform.core.recipe import Loss, Optimizer
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.modeling.emotion_model import build_model
from crossfold.platform.training import checkpoint as checkpoints
from crossfold.platform.training import train as training
from crossfold.platform.training.losses import BatchStatistics
from tests.support.trials import StopAfter, bytes_of


def batch_of(y, valid):
    return Batch(x={}, y=y, valid=valid, real=torch.ones(y.shape[:2], dtype=torch.bool))


def random_batch(seed=0, windows=4, frames=9, targets=2):
    generator = torch.Generator().manual_seed(seed)
    prediction, y = torch.randn(2, windows, frames, targets, generator=generator)
    valid = torch.rand(windows, frames, targets, generator=generator) < 0.7
    valid[-1] = False  # a window without any label
    return prediction, y, valid


def one_ccc(prediction, y, valid):
    return float(ccc(prediction[valid].double().numpy(), y[valid].double().numpy(), np.ones(int(valid.sum()), bool)))


def test_loss_of_windows_is_the_mean_of_their_losses():
    prediction, y, valid = random_batch()
    expected = 0.0
    for t in range(2):
        labelled = [b for b in range(4) if valid[b, :, t].any()]
        expected += np.mean([1 - one_ccc(prediction[b, :, t], y[b, :, t], valid[b, :, t]) for b in labelled])
    assert len(labelled) == 3
    loss = training.loss_of(prediction, batch_of(y, valid), Loss(scope="window"))
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def test_loss_of_a_batch_is_one_ccc_of_all_its_frames():
    prediction, y, valid = random_batch(1)
    expected = sum(1 - one_ccc(prediction[..., t], y[..., t], valid[..., t]) for t in range(2))
    loss = training.loss_of(prediction, batch_of(y, valid), Loss(scope="batch"))
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def test_mse_is_the_mean_over_labelled_frames():
    prediction, y, valid = random_batch(2)
    expected = ((prediction - y)[valid] ** 2).mean()
    assert float(training.loss_of(prediction, batch_of(y, valid), Loss(kind="mse"))) == pytest.approx(float(expected))


LOSSES = [Loss(scope="window"), Loss(scope="batch"), Loss(kind="mse"), Loss(kind="ccc+mse", mse_weight=0.5)]
losses = pytest.mark.parametrize("params", LOSSES, ids=lambda loss: f"{loss.kind}-{loss.scope}")


@losses
def test_unlabelled_frames_change_no_loss_and_get_no_gradient(params):
    prediction, y, valid = random_batch(3)
    expected = training.loss_of(prediction, batch_of(y, valid), params)
    poison = torch.where(valid, prediction, torch.tensor(1e6)).requires_grad_()
    loss = training.loss_of(poison, batch_of(torch.where(valid, y, torch.tensor(-1e6)), valid), params)
    assert float(loss.detach()) == float(expected)
    loss.backward()
    assert not poison.grad[~valid].any()
    assert poison.grad[valid].any()


@losses
def test_the_place_of_a_window_changes_no_loss(params):
    prediction, y, valid = random_batch(4)
    order = torch.tensor([2, 3, 0, 1])
    left = training.loss_of(prediction, batch_of(y, valid), params)
    right = training.loss_of(prediction[order], batch_of(y[order], valid[order]), params)
    assert float(left) == pytest.approx(float(right), rel=1e-6)


@losses
def test_a_batch_without_labels_is_finite(params):
    prediction, y, valid = random_batch(5)
    prediction.requires_grad_()
    loss = training.loss_of(prediction, batch_of(y, torch.zeros_like(valid)), params)
    loss.backward()
    assert torch.isfinite(loss)
    assert not prediction.grad.any()


@losses
def test_a_perfect_prediction_costs_nothing(params):
    _, y, valid = random_batch(6)
    assert float(training.loss_of(y, batch_of(y, valid), params)) == 0.0


def test_ccc_and_mse_add_up():
    prediction, y, valid = random_batch(7)
    parts = [training.loss_of(prediction, batch_of(y, valid), Loss(kind=kind)) for kind in ("ccc", "mse")]
    both = training.loss_of(prediction, batch_of(y, valid), Loss(kind="ccc+mse", mse_weight=3.0))
    assert float(both) == pytest.approx(float(parts[0]) + 3.0 * float(parts[1]), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([Loss(), Loss(kind="mse"), Loss(kind="ccc+mse")]))
def test_losses_and_gradients_of_parts_add_up_to_those_of_the_batch(seed, parts, params):
    """However a batch is cut, parts without a label or without a window included."""
    prediction, y, valid = (t.double() if t.is_floating_point() else t for t in random_batch(seed, windows=6))
    whole = prediction.clone().requires_grad_()
    expected = training.loss_of(whole, batch_of(y, valid), params)
    expected.backward()
    edges = np.sort(np.random.default_rng(seed).integers(0, 7, parts - 1))
    cuts = [slice(a, b) for a, b in itertools.pairwise([0, *edges, 6])]
    batches = [batch_of(y[cut], valid[cut]) for cut in cuts]
    total = BatchStatistics.of(batches, 2, torch.device("cpu"))
    apart = prediction.clone().requires_grad_()
    losses = [training.loss_of(apart[cut], part, params, total) for cut, part in zip(cuts, batches, strict=True)]
    sum(losses).backward()
    assert sum(float(loss.detach()) for loss in losses) == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(apart.grad, whole.grad, rtol=1e-10, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(LOSSES), st.integers(1, 5))
def test_padded_frames_change_no_loss(seed, params, padding):
    prediction, y, valid = random_batch(seed)
    expected = training.loss_of(prediction, batch_of(y, valid), params)
    longer = [torch.nn.functional.pad(t, (0, 0, 0, padding), value=fill) for t, fill in ((prediction, 7.0), (y, -7.0))]
    masked = torch.nn.functional.pad(valid, (0, 0, 0, padding), value=False)
    assert float(training.loss_of(longer[0], batch_of(longer[1], masked), params)) == pytest.approx(
        float(expected), rel=1e-6
    )


class Spy(torch.optim.Adam):
    """Adam that remembers the rate of every step."""

    rates: list[float]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        Spy.rates = []

    def step(self, closure=None):
        Spy.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


def widened(batch):
    return Batch(x={m: x.double() for m, x in batch.x.items()}, y=batch.y.double(), valid=batch.valid, real=batch.real)


@pytest.fixture
def run(synthetic_store, tiny_cell, tmp_path):
    """Trains a tiny cell whose validation scores are given, so that the schedule is under the test's control."""

    def go(scores, *, reporter=None, watch=None, system="unimodal_audio", double=False, **changes):
        cell = tiny_cell(system, **({"epochs": len(scores)} | changes))
        torch.manual_seed(0)
        model = build_model(cell, {m: synthetic_store.width(m) for m in synthetic_store.modalities})
        recipe = cell.recipe
        windows = cut(
            synthetic_store, synthetic_store.fold(0).train, length=recipe.window, hop=recipe.hop, invalid=recipe.invalid
        )
        source = WindowSource(synthetic_store, windows, BatchSpec(0, model.fusion.modalities, cell.targets))
        if double:
            model = model.double()
            gathered = source.batch
            source.batch = lambda chosen: widened(gathered(chosen))
        given = iter(scores)

        def validate(candidate):
            if watch is not None:
                watch(candidate)
            return {"valence": next(given)}

        trained = training.train(cell, model, source, validate, reporter or Silent(), tmp_path / "none" / "last.pt")
        return trained, model, math.ceil(len(source) / recipe.batch)

    return go


def test_warm_up_ramps_in_each_of_its_epochs(run, monkeypatch):
    """E4: a sawtooth over the steps; then the full rate."""
    monkeypatch.setattr(torch.optim, "Adam", Spy)
    trained, _, steps = run([0.1, 0.2, 0.3], optimizer__warmup_epochs=2, optimizer__lr=0.01)
    ramp = [0.01 * (step + 1) / steps for step in range(steps)]
    assert steps > 2
    assert Spy.rates == pytest.approx([*ramp, *ramp, *[0.01] * steps])
    assert [row["learning_rate"] for row in trained.progress.curve] == pytest.approx([0.01] * 3)


def test_the_rate_falls_on_a_plateau(run):
    """Patience 1: the second epoch in a row without a better score ends at the old rate, the next one is halved."""
    scores = [0.5, 0.4, 0.4, 0.4, 0.4, 0.6, 0.1, 0.1, 0.1]
    trained, _, _ = run(
        scores, optimizer__warmup_epochs=0, optimizer__plateau_patience=1, optimizer__plateau_factor=0.5, patience=50
    )
    rates = [row["learning_rate"] for row in trained.progress.curve]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025, 0.0025, 0.00125])


def test_scores_of_warm_up_epochs_are_not_held_against_the_rate(run):
    scores = [0.9, 0.1, 0.1, 0.1, 0.1]
    trained, _, _ = run(scores, optimizer__warmup_epochs=3, optimizer__plateau_patience=1, patience=50)
    assert [row["learning_rate"] for row in trained.progress.curve] == pytest.approx([0.01] * 5)


def test_the_rate_does_not_fall_below_its_floor(run):
    trained, _, _ = run(
        [0.5] + [0.1] * 7,
        optimizer__warmup_epochs=0,
        optimizer__plateau_patience=0,
        optimizer__plateau_factor=0.1,
        optimizer__min_lr=1e-3,
        patience=50,
    )
    assert trained.progress.curve[-1]["learning_rate"] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([0.5, 0.4, 0.3, 0.2, 0.1], 2, 3, 0),
        ([0.1, 0.2, 0.1, 0.3, 0.2, 0.2, 0.9], 2, 6, 3),
        ([0.1, 0.1, 0.1], 1, 2, 0),  # an equal score is not a better one
        ([0.1, 0.2, 0.3, 0.4], 1, 4, 3),
        ([-0.5, -0.6], 5, 2, 0),
    ],
)
def test_early_stopping(run, scores, patience, epochs, best):
    trained, _, _ = run(scores, patience=patience)
    assert trained.progress.epoch == len(trained.progress.curve) == epochs
    assert trained.progress.best_epoch == best
    assert trained.progress.best_ccc == scores[best]


def states_equal(left, right):
    return all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("reload", [True, False])
def test_the_best_state_is_kept_and_reloaded_if_asked(run, reload):
    """E6: the state that scored best; `reload_best` also puts it back at the end of each epoch."""
    seen, after = [], []
    models = []

    def watch(model):
        models.append(model)
        seen.append({key: value.clone() for key, value in model.state_dict().items()})

    class Look:
        def epoch(self, cell_id, report):
            after.append({key: value.clone() for key, value in models[-1].state_dict().items()})

    trained, _, _ = run([0.1, 0.7, 0.3], watch=watch, reporter=Look(), reload_best=reload, patience=50)
    assert states_equal(trained.best_state, seen[1])
    assert not states_equal(seen[1], seen[2])
    assert states_equal(after[2], seen[1] if reload else seen[2])


def test_every_epoch_is_reported(run):
    reports = []

    class Keep:
        def epoch(self, cell_id, report):
            reports.append((cell_id, report))

    trained, _, _ = run([0.1, 0.4, 0.2], reporter=Keep(), patience=50)
    assert [(r.epoch, r.epochs, r.ccc["valence"], r.best_ccc) for _, r in reports] == [
        (1, 3, 0.1, 0.1),
        (2, 3, 0.4, 0.4),
        (3, 3, 0.2, 0.4),
    ]
    assert [r.train_loss for _, r in reports] == [row["train_loss"] for row in trained.progress.curve]


def test_training_learns_something(run):
    trained, _, _ = run([0.1] * 12, patience=50, system="concat", temporal__width=8)
    losses = [row["train_loss"] for row in trained.progress.curve]
    assert losses[-1] < losses[0] - 0.1


def test_the_gradient_is_clipped(run, monkeypatch):
    norms = []
    kept = torch.nn.utils.clip_grad_norm_

    def clip(parameters, largest):
        parameters = list(parameters)
        before = kept(parameters, largest)
        norms.append(float(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()))
        return before

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    run([0.1], optimizer__clip_norm=1e-3)
    assert norms
    assert max(norms) <= 1e-3 * 1.001


@pytest.mark.parametrize("params", [Loss(scope="window"), Loss(kind="mse")], ids=lambda loss: loss.kind)
def test_accumulated_parts_train_as_the_whole_batch(run, params):
    exact = {"temporal__dropout": 0.0, "head__dropout": 0.0, "loss": params.model_dump(), "optimizer__clip_norm": 1.0}
    found = []
    for parts in (1, 3):
        trained, model, _ = run([0.1] * 3, accumulate=parts, patience=50, system="hgrjca", double=True, **exact)
        found.append(([row["train_loss"] for row in trained.progress.curve], list(model.parameters())))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("kind", "named"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_the_optimizer_is_the_one_of_the_recipe(kind, named):
    weight = torch.nn.Parameter(torch.ones(3))
    made = training.make_optimizer([weight], Optimizer(kind=kind, lr=0.1, momentum=0.7, weight_decay=0.5))
    assert type(made).__name__ == named
    assert made.param_groups[0]["weight_decay"] == 0.5
    assert made.param_groups[0].get("momentum", 0.7) == 0.7
    frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    training.make_optimizer([weight, frozen], Optimizer(kind=kind)).step()
    assert torch.equal(frozen, torch.ones(3)), "decay does not reach what is frozen"


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_other_optimizers_train_too(run, kind):
    trained, _, _ = run([0.1] * 8, patience=50, system="concat", optimizer__kind=kind, optimizer__lr=0.03)
    losses = [row["train_loss"] for row in trained.progress.curve]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("system", ["rjca+dca", "lstm", "leader_follower"])
def test_bf16_trains_with_wide_weights_and_losses(run, system):
    trained, model, _ = run([0.1] * 2, patience=50, system=system, precision="bf16", head__batch_norm=True)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    wide, _, _ = run([0.1] * 2, patience=50, system=system, head__batch_norm=True)
    losses = [[row["train_loss"] for row in each.progress.curve] for each in (trained, wide)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)


def test_an_exploding_loss_is_diverged_while_it_is_finite(run):
    changes = {"loss": {"kind": "mse"}, "head__output": "linear", "optimizer__lr": 3e3, "optimizer__warmup_epochs": 0}
    with pytest.raises(Diverged, match=r"epoch \d+, step \d+: the loss is [\d.e+]+, beyond 1e\+06; the prediction"):
        run([0.1] * 40, system="concat", patience=50, **changes)


def test_an_infinite_gradient_is_named_before_it_spoils_the_weights(run):
    def poison(model):
        model.heads[0].layers[0].bias.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(
        Diverged, match=r"epoch 2, step 1: the gradient is not finite; that of heads\.0\.layers\.0\.bias"
    ):
        run([0.1] * 3, watch=poison, precision="bf16")


def test_divergence_names_epoch_step_and_tensor(run):
    with pytest.raises(Diverged, match=r"epoch \d+, step \d+: the loss is not finite; .*(weight|prediction)"):
        run([0.1] * 3, optimizer__lr=1e30, optimizer__warmup_epochs=0, system="rjca+dca")


def test_a_weight_that_is_not_finite_is_named(run):
    def poison(model):
        with torch.no_grad():
            model.heads[0].layers[0].bias[0] = float("nan")

    with pytest.raises(Diverged, match=r"epoch 2, step 1.*weight heads\.0\.layers\.0\.bias \(4,\) is the first"):
        run([0.1] * 3, watch=poison)


@pytest.mark.parametrize(
    "changes", [{"epochs": 3}, {"epochs": 1, "batch": 1000}, {"epochs": 2, "batch": 1000}], ids=str
)
def test_a_diverging_cell_is_a_failure_of_that_class(workspace, tiny_cell, changes):
    """Also where the last step of the last epoch is the one that leaves the numbers."""
    cell = tiny_cell("rjca+dca", optimizer__lr=1e30, optimizer__warmup_epochs=0, **changes)
    outcome = attempt_cell(cell, workspace)
    assert outcome.status == "failed"
    assert outcome.failure.kind == FailureClass.DIVERGED, outcome.failure.message
    assert "epoch" in outcome.failure.message
    assert workspace.finished() == set()
    assert workspace.failures_of(cell.cell_id) == [outcome.failure]


EPOCHS = 4
RECIPE = {"epochs": EPOCHS, "optimizer__plateau_patience": 0, "temporal__dropout": 0.3, "reload_best": True}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, synthetic_store, tiny_cell):
    """The bytes of the cell below, run through without a checkpoint."""
    from crossfold.platform.workspace.workspace import Workspace

    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"))
    workspace.paths.stores.mkdir()
    (workspace.paths.stores / synthetic_store.path.name).symlink_to(synthetic_store.path)
    cell = tiny_cell("rjca+dca", **RECIPE)
    assert attempt_cell(cell, workspace).status == "done"
    return cell, bytes_of(workspace, cell)


@pytest.fixture
def checkpoint_always(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "CHECKPOINT_PAUSE", 0.0)


def test_two_runs_are_the_same_bytes(undisturbed, new_workspace):
    cell, expected = undisturbed
    torch.manual_seed(99)
    torch.rand(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        workspace = new_workspace()
        assert attempt_cell(cell, workspace, attempt=2).status == "done"
    finally:
        torch.set_num_threads(threads)
    assert bytes_of(workspace, cell) == expected


def test_a_run_leaves_the_process_as_it_was(tiny_cell, workspace):
    torch.manual_seed(5)
    state, deterministic, threads = (
        torch.get_rng_state(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    )
    assert attempt_cell(tiny_cell("ca"), workspace).status == "done"
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.get_num_threads() == threads


def test_fast_keeps_the_threads_and_is_on_record(new_workspace, tiny_cell):
    during = []

    class Look:
        def epoch(self, cell_id, report):
            during.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))

    found = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for kind in ("strict", "fast"):
            workspace, cell = new_workspace(), tiny_cell("ca", determinism=kind)
            assert attempt_cell(cell, workspace, reporter=Look()).status == "done"
            found[kind] = workspace.read(cell.cell_id)
    finally:
        torch.set_num_threads(threads)
    assert during == [(1, True)] * 2 + [(2, False)] * 2
    assert {kind: record.env["determinism"] for kind, record in found.items()} == {"strict": "strict", "fast": "fast"}
    assert found["strict"].cell_id != found["fast"].cell_id
    for column in ("train_loss", "ccc_valence"):
        assert found["fast"].curve[column].tolist() == pytest.approx(found["strict"].curve[column].tolist(), abs=1e-3)


@pytest.mark.parametrize("stop", range(1, EPOCHS + 1))
def test_stopped_after_any_epoch_the_run_ends_in_the_same_bytes(undisturbed, new_workspace, checkpoint_always, stop):
    cell, expected = undisturbed
    workspace = new_workspace()
    assert attempt_cell(cell, workspace, reporter=StopAfter(stop)).status == "cancelled"
    assert workspace.finished() == set()
    assert workspace.failures_of() == []
    assert (workspace.paths.scratch(cell.cell_id) / "last.pt").is_file()
    reports = []

    class Keep:
        def epoch(self, cell_id, report):
            reports.append(report.epoch)

    assert attempt_cell(cell, workspace, reporter=Keep()).status == "done"
    assert reports == list(range(stop + 1, EPOCHS + 1)), "finished epochs are not trained again"
    assert bytes_of(workspace, cell) == expected
    assert not workspace.paths.scratch(cell.cell_id).exists()


def test_stopped_after_every_epoch(undisturbed, new_workspace, checkpoint_always):
    cell, expected = undisturbed
    workspace = new_workspace()
    for stop in range(1, EPOCHS + 1):
        assert attempt_cell(cell, workspace, reporter=StopAfter(stop)).status == "cancelled"
    assert attempt_cell(cell, workspace).status == "done"
    assert bytes_of(workspace, cell) == expected


def test_killed_long_after_a_checkpoint(undisturbed, new_workspace, monkeypatch):
    """The epochs since the checkpoint are trained again, and come out as they were."""
    cell, expected = undisturbed
    workspace = new_workspace()
    for seconds, stop in ((-1.0, 1), (1e9, 3)):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
        assert attempt_cell(cell, workspace, reporter=StopAfter(stop)).status == "cancelled"
    assert attempt_cell(cell, workspace).status == "done"
    assert bytes_of(workspace, cell) == expected


@pytest.mark.parametrize(("pause", "written"), [(0.0, 3), (1e12, 1)])
def test_a_checkpoint_that_takes_long_is_written_less_often(
    checkpoint_always, tiny_cell, workspace, monkeypatch, pause, written
):
    """And none after the last epoch, when only the scores are missing."""
    saved = []
    monkeypatch.setattr(training, "CHECKPOINT_PAUSE", pause)
    monkeypatch.setattr(training._Run, "save", lambda run, path: saved.append(run.progress.epoch))
    assert attempt_cell(tiny_cell("rjca", epochs=4), workspace).status == "done"
    assert saved == list(range(1, written + 1))


class Crash:
    def epoch(self, cell_id, report):
        if report.epoch == 2:
            raise KeyboardInterrupt


def test_without_a_checkpoint_the_run_starts_over(undisturbed, new_workspace):
    """A short cell that is killed has written none; that costs its few seconds, never its numbers."""
    cell, expected = undisturbed
    workspace = new_workspace()
    with pytest.raises(KeyboardInterrupt):
        attempt_cell(cell, workspace, reporter=Crash())
    assert not (workspace.paths.scratch(cell.cell_id) / "last.pt").exists()
    assert attempt_cell(cell, workspace).status == "done"
    assert bytes_of(workspace, cell) == expected


def damage_half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def damage_bits(path):
    data = bytearray(path.read_bytes())
    for place in range(200, len(data), 97):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))


def damage_one_byte(path):
    """Somewhere in the middle of a tensor, where only a checksum notices."""
    data = bytearray(path.read_bytes())
    weight = torch.load(io.BytesIO(checkpoints.unseal(bytes(data))), weights_only=True)["model"][
        "fusion.attend.blocks.1.w.w_c.audio.w"
    ]
    data[data.index(weight.numpy().tobytes()) + 403] ^= 0x40
    path.write_bytes(bytes(data))


def reopened(path):
    return torch.load(io.BytesIO(checkpoints.unseal(path.read_bytes())), weights_only=True)


def resealed(path, saved):
    held = io.BytesIO()
    torch.save(saved, held)
    path.write_bytes(checkpoints.seal(held.getvalue()))


def damage_content(path):
    saved = reopened(path)
    del saved["progress"]
    resealed(path, saved)


def damage_shapes(path):
    """A checkpoint of an older version of the code, whose layers were of another size."""
    saved = reopened(path)
    saved["model"] = {key: value[..., :1] for key, value in saved["model"].items()}
    resealed(path, saved)


@pytest.mark.parametrize(
    "damage",
    [damage_half, damage_bits, damage_one_byte, lambda path: path.write_bytes(b""), damage_content, damage_shapes],
    ids=["half", "bits", "byte", "empty", "content", "shapes"],
)
def test_a_damaged_checkpoint_starts_over(undisturbed, new_workspace, checkpoint_always, caplog, damage):
    cell, expected = undisturbed
    workspace = new_workspace()
    assert attempt_cell(cell, workspace, reporter=StopAfter(2)).status == "cancelled"
    damage(workspace.paths.scratch(cell.cell_id) / "last.pt")
    with caplog.at_level(logging.WARNING, logger="crossfold"):
        outcome = attempt_cell(cell, workspace)
    assert outcome.status == "done", outcome.failure and outcome.failure.message
    assert "starting over" in caplog.text
    assert bytes_of(workspace, cell) == expected
