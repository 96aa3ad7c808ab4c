"""Backbones inside the graph: what trains when, what a chunk may change, what is refused before work, and resuming."""

import dataclasses
import io
import math
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from crossfold.fusion_models.backbones.catalogue import BACKBONES, Backbone, register
from crossfold.fusion_models.backbones.inputs import PicturePreparation
from crossfold.platform.core.errors import Diverged, UserError
from crossfold.platform.core.outcome import Silent
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.execution.step_profiler import StepProfiler, Work
from crossfold.platform.export.backbone_weights import write_backbones
from crossfold.platform.features.extractors import Origin
from crossfold.platform.features.frozen_backbone import frozen
from crossfold.platform.modeling.frame_encoder import FrameEncoder
from crossfold.platform.modeling.inputs import check_inputs, find_backbone
from crossfold.platform.training import checkpoint as checkpoints
from crossfold.platform.training import train as training
from crossfold.platform.training.cell_data import open_data
from tests.support.factories import make_store
from tests.support.trials import StopAfter, bytes_of

END_TO_END = {
    "backbones": {"visual": "tiny"},
    "weights": "random",
    "backbone_chunk": 7,
    "epochs": 5,
    "optimizer__warmup_epochs": 0,
    "optimizer__plateau_patience": 0,
    "optimizer__min_lr": 0.004,
    "loss__scope": "window",
}
"""The rate of 0.01 is halved by every worse epoch, and one below 0.004 opens the next group."""


def tiny(norm=True):
    """N x 3 x 40 x 40 -> N x 4."""
    middle = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(
        nn.Conv2d(3, 4, 8, stride=8), *middle, nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(4, 4, 5), nn.Flatten()
    )


@pytest.fixture(scope="module", autouse=True)
def backbone():
    """A backbone of two layers, under a name of its own for as long as this file runs."""
    assert "tiny" not in BACKBONES
    made = register(
        Backbone(
            name="tiny",
            title="two layers",
            source="a test",
            modality="visual",
            input="crops48",
            frame_shape=(3, 40, 40),
            width=4,
            build=tiny,
            preparation=PicturePreparation(side=40, flip=True),
            groups=(("4.",), ("1.",), ("0.",)),
            **({"raw_shape": (48, 48, 3)} if "raw_shape" in {f.name for f in dataclasses.fields(Backbone)} else {}),
        )
    )
    yield made
    del BACKBONES._entries["tiny"]


@pytest.fixture(scope="module")
def raw_store(tmp_path_factory):
    """Six clips of 30 frames of pictures whose brightness is the valence, and extracted features of sound."""
    clips = []
    for i in range(6):
        rng = np.random.default_rng(i)
        labels = np.sin(np.linspace(0, 6, 30))[:, None].repeat(2, 1).astype(np.float32) * rng.uniform(0.3, 0.9)
        noise = rng.integers(0, 40, (30, 48, 48, 3))
        pictures = (noise + 100 + 90 * labels[:, :1, None, None]).clip(0, 255).astype(np.uint8)
        sound = rng.standard_normal((30, 3)).astype(np.float32)
        part = "validation" if i > 3 else "train"
        features = {"audio": sound, "visual": pictures}
        about = {"name": f"c{i}", "subject": f"s{i}", "partition": part}
        clips.append({**about, "labels": labels, "features": features})
    stores = tmp_path_factory.mktemp("raw") / "stores"
    return make_store(stores, clips, corpus="raw", inputs={"visual": "crops48"})


@pytest.fixture
def workspace(new_workspace, raw_store):
    return new_workspace(raw_store.path)


@pytest.fixture
def cell_of(tiny_cell, raw_store):
    def make(system="concat", **changes):
        return tiny_cell(system, store=raw_store, window=10, hop=5, **(END_TO_END | changes))

    return make


def test_end_to_end_learns_and_stores_its_backbone(workspace, cell_of):
    cell = cell_of("unimodal_visual", epochs=10, thaw={"at_once": True}, optimizer__plateau_patience=50)
    outcome = attempt_cell(cell, workspace)
    assert outcome.status == "done", outcome.failure
    record = workspace.read(cell.cell_id)
    assert record.curve.train_loss.iloc[-1] < record.curve.train_loss.iloc[0] - 0.2
    from safetensors.torch import load

    state = load((record.path / "best.safetensors").read_bytes())
    assert state["frames.visual.net.4.weight"].shape == (4, 4, 5, 5)


@pytest.fixture(autouse=True)
def no_checkpoints_by_time(monkeypatch):
    """On a busy machine an epoch takes long enough for a checkpoint, which the next test would continue."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", math.inf)


def spied(cell, raw_store, scores, model_of=None):
    """Runs a cell whose validation CCC are given; per epoch, which parameters of the backbone moved."""
    torch.manual_seed(0)
    data = open_data(cell, raw_store.path, "cpu")
    model = data.new_model()
    moved, given = [], iter(scores)
    before = {}

    def remember():
        before.update({n: p.detach().clone() for n, p in model.frames["visual"].net.named_parameters()})

    def validate(candidate):
        now = dict(candidate.frames["visual"].net.named_parameters())
        moved.append({name for name, value in now.items() if not torch.equal(value, before[name])})
        return {"valence": next(given)}

    class Look:
        def epoch(self, cell_id, report):
            remember()

    remember()
    trained = training.train(cell, model, data.training.source, validate, Look(), raw_store.path / "none.pt")
    return moved, trained, model


OUT, MIDDLE, IN = {"4.weight", "4.bias"}, {"1.weight", "1.bias"}, {"0.weight", "0.bias"}


def test_groups_thaw_in_turn_from_the_output(cell_of, raw_store):
    """Two reductions of 0.01 by half fall below 0.004: a stage lasts two worse epochs here."""
    cell = cell_of(epochs=20, patience=20)
    moved, trained, _ = spied(cell, raw_store, [0.5] + [0.1] * 20)
    assert moved == [OUT] * 3 + [OUT | MIDDLE] * 2 + [OUT | MIDDLE | IN] * 2
    assert trained.end == "exhausted"
    rates = [row["learning_rate"] for row in trained.progress.curve]
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.01, 0.005, 0.01, 0.005])


@pytest.mark.parametrize(
    ("thaw", "expected"),
    [
        ({"modalities": ["audio"]}, set()),
        ({"groups": 0}, set()),
        ({"at_once": True}, OUT | MIDDLE | IN),
        ({"modalities": ["visual"]}, OUT),
    ],
    ids=["only sound", "no group", "all at once", "only pictures"],
)
def test_what_trains_in_the_first_epoch(cell_of, raw_store, thaw, expected):
    moved, _, _ = spied(cell_of(epochs=1, thaw=thaw), raw_store, [0.1])
    assert moved == [expected]


@pytest.mark.parametrize(("weights", "kept"), [("pretrained", True), ("random", False)])
def test_batch_normalisation_keeps_pretrained_statistics_only(cell_of, raw_store, weights, kept):
    cell = cell_of(epochs=1, thaw={"at_once": True}, weights=weights)
    _, _, model = spied(cell, raw_store, [0.1])
    assert torch.equal(model.frames["visual"].net[1].running_mean, torch.zeros(4)) == kept


def raw_frames(windows=2, frames=9):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 255, (windows, frames, 48, 48, 3), generator=generator, dtype=torch.uint8)
    mask = torch.arange(frames) < torch.tensor([[frames], [frames - 4]])[:windows]
    return x, mask


def encoder_of(backbone, chunk, dropout=0.0, groups=3):
    torch.manual_seed(1)
    encoder = FrameEncoder(backbone, chunk).double()
    encoder.net[3].p = dropout
    encoder.train()
    encoder.groups = groups
    encoder.train_released(True)
    return encoder


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_change_neither_features_nor_gradients(backbone, chunk):
    x, mask = raw_frames()
    found = []
    for size in (3, chunk):
        encoder = encoder_of(backbone, size)
        y = encoder(x, mask, [5, 6])
        y.square().sum().backward()
        found.append((y, [p.grad for p in encoder.net.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_activations_computed_again_are_the_same_with_dropout(backbone, monkeypatch):
    x, mask = raw_frames()
    grads = []
    for recompute in (True, False):
        encoder = encoder_of(backbone, 4, dropout=0.5)
        if not recompute:
            monkeypatch.setattr(
                "crossfold.platform.modeling.frame_encoder.checkpoint", lambda net, x, use_reentrant: net(x)
            )
        torch.manual_seed(3)
        encoder(x, mask, [5, 6]).square().sum().backward()
        grads.append([p.grad for p in encoder.net.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-12)


def test_padding_and_the_place_of_a_window_change_nothing(backbone):
    x, mask = raw_frames()
    encoder = encoder_of(backbone, 4)
    y = encoder(x, mask, [5, 6])
    assert not y[~mask].any()
    poisoned = torch.where(mask[..., None, None, None], x, torch.tensor(255, dtype=torch.uint8))
    assert torch.equal(encoder(poisoned, mask, [5, 6]), y)
    torch.testing.assert_close(encoder(x.flip(0), mask.flip(0), [6, 5]), y.flip(0), rtol=0, atol=0)


def test_crops_are_random_in_training_only_and_repeat_by_seed(backbone):
    x, mask = raw_frames()
    encoder = encoder_of(backbone, 100)
    a, b, centre = encoder(x, mask, [5, 6]), encoder(x, mask, [7, 8]), encoder(x, mask)
    assert torch.equal(encoder(x, mask, [5, 6]), a)
    assert torch.equal(encoder(x, mask), centre)
    assert not torch.equal(a, b)
    assert not torch.equal(a, centre)


def test_a_frozen_backbone_gets_no_gradient(backbone):
    x, mask = raw_frames()
    encoder = encoder_of(backbone, 4, groups=0)
    assert not encoder(x, mask, [5, 6]).requires_grad


RESUMED = {"epochs": 6, "patience": 20, "optimizer__lr": 0.1, "optimizer__min_lr": 0.06, "reload_best": True}
"""At this rate one of the epochs is far worse than those before, so the run opens a group whatever the rounding."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, raw_store, tiny_cell):
    from crossfold.platform.workspace.workspace import Workspace

    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"))
    workspace.paths.stores.mkdir()
    (workspace.paths.stores / raw_store.path.name).symlink_to(raw_store.path)
    cell = tiny_cell("ca", store=raw_store, window=10, hop=5, seed=3, **(END_TO_END | RESUMED))
    outcome = attempt_cell(cell, workspace)
    assert outcome.status == "done", outcome.failure
    return cell, bytes_of(workspace, cell)


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_stopped_while_thawing_the_run_ends_in_the_same_bytes(undisturbed, workspace, monkeypatch, stop):
    cell, expected = undisturbed
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "CHECKPOINT_PAUSE", 0.0)
    assert attempt_cell(cell, workspace, reporter=StopAfter(stop)).status == "cancelled"
    saved = checkpoints.read(workspace.paths.scratch(cell.cell_id) / "last.pt")
    assert saved["schedule"]["epoch"] == stop
    assert attempt_cell(cell, workspace).status == "done"
    assert bytes_of(workspace, cell) == expected


def test_the_resumed_run_did_change_stage(undisturbed):
    """Else the test above would prove less than it says."""
    import pandas as pd

    cell, files = undisturbed
    curve = pd.read_parquet(io.BytesIO(files["curve.parquet"]))
    scores = curve.ccc_valence.tolist()
    assert any(score <= max(scores[:i]) for i, score in enumerate(scores) if i), "some epoch was worse"
    assert cell.recipe.groups_to_thaw() == 3


def test_a_store_without_the_raw_input_is_refused_before_work(cell_of, raw_store, synthetic_store):
    recipe = cell_of().recipe
    check_inputs(recipe, raw_store, ("audio", "visual"))
    with pytest.raises(UserError, match=r"trains backbone tiny on raw crops48.*extracted features") as caught:
        check_inputs(recipe, synthetic_store, ("audio", "visual"))
    assert "--visual raw:crops48" in caught.value.remedy
    assert "+features" in caught.value.remedy
    bare = recipe.model_copy(update={"backbones": {}})
    with pytest.raises(UserError, match=r"is raw crops48, and the recipe has no backbone"):
        check_inputs(bare, raw_store, ("audio", "visual"))
    check_inputs(bare, raw_store, ("audio",))


def test_a_wrong_backbone_is_answered_with_those_of_its_modality():
    with pytest.raises(UserError, match=r"did you mean 'resnet50'"):
        find_backbone("resnet5", "visual")
    with pytest.raises(UserError, match=r"backbones.audio: 'resnet50' is no backbone for audio"):
        find_backbone("resnet50", "audio")


def test_missing_weights_are_named_with_their_place(workspace, cell_of, monkeypatch):
    monkeypatch.delenv("CROSSFOLD_WEIGHTS", raising=False)
    cell = cell_of("unimodal_visual", backbones={"visual": "resnet50"}, weights="pretrained")
    outcome = attempt_cell(cell, workspace)
    assert outcome.failure.kind == "data"
    assert "resnet50-ms-celeb-ferplus" in outcome.failure.message
    assert str(workspace.root / "weights") in outcome.failure.message


def test_a_backbone_that_leaves_the_numbers_is_diverged_by_name(cell_of, raw_store):
    cell = cell_of(epochs=2)
    data = open_data(cell, raw_store.path, "cpu")
    model = data.new_model()
    with torch.no_grad():
        model.frames["visual"].net[4].weight[0] = float("nan")
    run = partial(training.train, cell, model, data.training.source, lambda m: {"valence": 0.1}, Silent())
    with pytest.raises(Diverged, match=r"epoch 1, step 1.*weight frames\.visual\.net\.4\.weight"):
        run(raw_store.path / "none.pt")


def test_a_gradient_that_leaves_the_numbers_is_named_while_the_loss_is_finite(cell_of, raw_store):
    cell = cell_of("unimodal_visual", epochs=2)
    data = open_data(cell, raw_store.path, "cpu")
    model = data.new_model()
    model.frames["visual"].net[4].bias.requires_grad_(True).register_hook(lambda gradient: gradient * float("inf"))
    run = partial(training.train, cell, model, data.training.source, lambda m: {"valence": 0.1}, Silent())
    with pytest.raises(Diverged, match=r"the gradient is not finite; that of frames\.visual\.net\.4\.bias"):
        run(raw_store.path / "none.pt")


def test_a_trained_backbone_leaves_its_cell_and_encodes_as_it_did(workspace, cell_of, raw_store, tmp_path, backbone):
    cell = cell_of("unimodal_visual", epochs=2)
    assert attempt_cell(cell, workspace).status == "done"
    record = workspace.read(cell.cell_id)
    (path,) = write_backbones(record, tmp_path / "weights")
    assert path.name == "tiny.safetensors"
    assert write_backbones(record, tmp_path / "weights") == (path,), "the same weights again are no trouble"

    frozen.cache_clear()
    encoder = frozen("tiny", Origin(folder=str(tmp_path / "weights"), seed=None), "cpu")
    pictures = np.array(raw_store.features("visual", 0)[:5])
    with torch.random.fork_rng():
        data = open_data(cell, raw_store.path, "cpu")
        model = data.new_model()
    model.load_state_dict(load_file(record.path / "best.safetensors"))
    model.eval()
    with torch.no_grad():
        inside = model.frames["visual"](torch.from_numpy(pictures)[None], torch.ones(1, 5, dtype=torch.bool))[0]
    np.testing.assert_allclose(encoder.encode(pictures), inside.numpy(), atol=1e-5)

    other = cell_of("unimodal_visual", epochs=2, fold=1)
    assert attempt_cell(other, workspace).status == "done"
    with pytest.raises(UserError, match="holds other weights"):
        write_backbones(workspace.read(other.cell_id), tmp_path / "weights")
    assert [found.name for found in (tmp_path / "weights").iterdir()] == ["tiny.safetensors"]


def test_a_cell_on_ready_features_has_no_backbone_to_leave(new_workspace, synthetic_store, tiny_cell, tmp_path):
    space = new_workspace(synthetic_store.path)
    cell = tiny_cell("concat")
    assert attempt_cell(cell, space).status == "done"
    with pytest.raises(UserError, match="trains on extracted features"):
        write_backbones(space.read(cell.cell_id), tmp_path)


def test_a_forecast_charges_every_frame_that_passes_a_backbone(workspace, raw_store, cell_of, monkeypatch):
    cell = cell_of("concat", epochs=3, thaw={"at_once": True}, optimizer__plateau_patience=50, stress="quick")
    passed = {True: 0, False: 0}
    through = FrameEncoder._pass

    def counted(self, x_NF):
        passed[torch.is_grad_enabled()] += len(x_NF)
        return through(self, x_NF)

    monkeypatch.setattr(FrameEncoder, "_pass", counted)
    assert attempt_cell(cell, workspace).status == "done"
    data = open_data(cell, raw_store.path, "cpu")
    work = Work.of(data)
    assert passed[True] == sum(work.epochs.values()) * work.training.frames
    counted_window = int(data.reported.source.windows.real[0].sum())
    assert passed[False] == work.predicted.frames + counted_window
    assert StepProfiler().seconds(cell, raw_store.path) > 0
