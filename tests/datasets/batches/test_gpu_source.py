"""Features that stay on a device: the same batches bit for bit, and nothing but indices moves with each of them."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from crossfold.datasets.batches import gpu_source as residents
from crossfold.datasets.batches.clip_source import window_source
from crossfold.datasets.batches.corruptions import damaged_frames
from crossfold.datasets.batches.gpu_source import forget, place
from crossfold.datasets.batches.windows import WindowSource
from crossfold.datasets.store.normalisation import statistics_of
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.training.cell_data import open_data

MODALITIES = ("audio", "visual")


@pytest.fixture(autouse=True)
def nothing_kept():
    forget()
    residents._TOLD.clear()
    yield
    forget()


def plenty(device):
    return 2**40


def both_ways(cell, store, device="cpu", free=plenty):
    """The windows of the training clips as the host gathers them, and as the device does."""
    clips = store.fold(cell.fold).train
    lying = place(store, cell.fold, MODALITIES, cell.targets, device, free=free)
    host = window_source(cell, store, clips, MODALITIES)
    return host, window_source(cell, store, clips, MODALITIES, device=device, resident=lying)


def equal(one, other, chosen):
    mine, theirs = one.batch(chosen), other.batch(chosen)
    assert mine.x.keys() == theirs.x.keys()
    pairs = [(mine.x[m], theirs.x[m]) for m in mine.x]
    for a, b in (*pairs, (mine.y, theirs.y), (mine.valid, theirs.valid), (mine.real, theirs.real)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(a, b)


@pytest.mark.parametrize("invalid", ["mask", "drop"])
@pytest.mark.parametrize("window", [20, 200])
def test_a_device_gathers_what_the_host_does(synthetic_store, tiny_cell, monkeypatch, invalid, window):
    """Windows of 200 frames are padded: the clips have 90."""
    monkeypatch.setattr(residents, "PIECE_BYTES", 1000)
    cell = tiny_cell("ca", targets=("valence", "arousal"), window=window, invalid=invalid)
    host, device = both_ways(cell, synthetic_store)
    for chosen in (np.arange(len(host)), np.array([3, 0, 3])):
        equal(host, device, chosen)


@pytest.mark.parametrize("feature", ["mean", "last", "middle"])
def test_clips_that_share_a_prediction_too(synthetic_store, tiny_cell, feature):
    cell = tiny_cell("ca", window=6, hop=3, clip={"frames": 4, "feature": feature, "label": "last"})
    host, device = both_ways(cell, synthetic_store)
    equal(host, device, np.arange(len(host)))


def test_other_statistics_and_damaged_frames_reach_the_device(synthetic_store, tiny_cell):
    store, cell = synthetic_store, tiny_cell("ca")
    host, device = both_ways(cell, store)
    fewer = store.fold(0).train[:2]
    statistics = {m: statistics_of(store, m, 0, fewer) for m in MODALITIES}
    frames = damaged_frames(store, "missing", 0.5, modality="audio", fold=0, clips=store.fold(0).train)
    every = np.arange(len(host))
    clean = device.batch(every).x["audio"]
    for one, other in (
        (host.with_statistics(statistics), device.with_statistics(statistics)),
        (host.with_frames("audio", frames, frames.present), device.with_frames("audio", frames, frames.present)),
        (
            host.with_statistics(statistics).with_frames("audio", frames, frames.present),
            device.with_statistics(statistics).with_frames("audio", frames, frames.present),
        ),
    ):
        equal(one, other, every)
        assert not torch.equal(other.batch(every).x["audio"], clean)
    equal(host, device, every)


def raw_store(folder, kind, shape, dtype):
    from crossfold.datasets.corpora.clips import ClipArrays, ClipInfo
    from crossfold.datasets.store.feature_store import FeatureStore, write_store

    rng = np.random.default_rng(0)
    infos = [
        ClipInfo(
            name=f"clip{n}",
            video=f"clip{n}",
            subject=f"s{n}",
            partition="train" if n else "validation",
            fps=5.0,
            frames=9 + n,
        )
        for n in range(3)
    ]

    def arrays(info):
        return ClipArrays(
            {"visual": rng.integers(0, 255, (info.frames, *shape)).astype(dtype)},
            {"visual": rng.random(info.frames) > 0.2},
            rng.uniform(-1, 1, (info.frames, 2)).astype(np.float32),
            (),
        )

    made = write_store(
        folder,
        corpus="raw",
        layout="t",
        targets=("valence", "arousal"),
        clips=infos,
        arrays=arrays,
        origin={},
        inputs={"visual": kind},
    )
    return FeatureStore(made)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "wanted"),
    [
        ("crops48", (48, 48, 3), "uint8", None),
        ("crops112", (112, 112, 3), "uint8", "clips4/2@112"),
        ("mel64x107", (64, 107), "float16", None),
    ],
)
def test_raw_input_keeps_its_type(tmp_path, tiny_cell, kind, shape, dtype, wanted):
    store = raw_store(tmp_path, kind, shape, dtype)
    cell = tiny_cell("unimodal_visual", store=store, window=4, hop=2)
    inputs = {"visual": wanted} if wanted else None
    clips = tuple(clip.name for clip in store.clips)
    lying = place(store, 0, ("visual",), cell.targets, "cpu", free=plenty)
    host = window_source(cell, store, clips, ("visual",), inputs=inputs)
    device = window_source(cell, store, clips, ("visual",), inputs=inputs, resident=lying)
    equal(host, device, np.arange(len(host)))
    assert device.batch(np.arange(2)).x["visual"].dtype == getattr(torch, dtype)


class Moves(TorchFunctionMode):
    """Notes the bytes that leave the host for the device `meta`, which stands for a GPU: it computes shapes only."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to and args[0].device.type == "cpu" and "meta" in map(str, args[1:]):
            self.sizes.append(args[0].nbytes)
        return func(*args, **(kwargs or {}))


def test_a_batch_moves_its_indices_and_nothing_else(synthetic_store, tiny_cell):
    cell = tiny_cell("ca")
    lying = place(synthetic_store, 0, MODALITIES, cell.targets, "meta", free=plenty)
    clips = synthetic_store.fold(0).train
    chosen = np.arange(5)
    moved = {}
    for way, there in (("host", None), ("device", lying)):
        source = window_source(cell, synthetic_store, clips, MODALITIES, device="meta", resident=there)
        with Moves() as moves:
            batch = source.batch(chosen)
        assert {str(x.device) for x in (*batch.x.values(), batch.y, batch.valid, batch.real)} == {"meta"}
        moved[way] = moves.sizes
    assert moved["device"] == [chosen.nbytes]
    assert len(moved["host"]) == 5
    assert sum(moved["host"]) > 10 * chosen.nbytes


def test_what_does_not_fit_is_gathered_by_the_host_and_said_once(synthetic_store, tiny_cell, caplog):
    """Audio has 5 numbers a frame and visual 6: between the two lies the room."""
    sizes = {m: synthetic_store.features(m, 0).nbytes for m in MODALITIES}
    assert sizes["audio"] < sizes["visual"]

    def room(device):
        return int((sizes["visual"] - 1) / residents.SHARE)

    cell = tiny_cell("ca")
    with caplog.at_level(logging.WARNING, logger="crossfold"):
        for _ in range(2):
            forget()
            host, device = both_ways(cell, synthetic_store, free=room)
    (line,) = caplog.messages
    assert line.startswith("visual of store")
    assert set(device._resident.features) == {"audio"}
    assert isinstance(device._from_host["visual"], WindowSource)
    equal(host, device, np.arange(len(host)))
    fewer = {m: statistics_of(synthetic_store, m, 0, synthetic_store.fold(0).train[:1]) for m in MODALITIES}
    equal(host.with_statistics(fewer), device.with_statistics(fewer), np.arange(len(host)))


def test_the_next_cell_finds_its_features_there(synthetic_store):
    first = place(synthetic_store, 0, MODALITIES, ("valence",), "cpu", free=plenty)
    again = place(synthetic_store, 0, MODALITIES, ("arousal",), "cpu", free=lambda device: 0)
    assert all(again.features[m] is first.features[m] for m in MODALITIES), "no room is needed for what lies there"
    alone = place(synthetic_store, 0, ("audio",), ("valence",), "cpu", free=lambda device: 0)
    assert alone.features["audio"] is first.features["audio"]
    assert place(synthetic_store, 0, MODALITIES, ("valence",), "cpu", free=lambda device: 0).features.keys() == {
        "audio"
    }, "what a cell did not need was let go"


def test_a_cell_trains_to_the_same_bytes_either_way(new_workspace, tiny_cell, monkeypatch):
    """The whole cell, stress battery included, with the CPU in the place of a GPU."""
    from crossfold.platform.training import cell_data

    cell, found = tiny_cell("rjca+dca", stress="quick"), []

    def opened(cell, path, _):
        data = open_data(cell, path, "cpu")
        store, fold = data.store, cell.fold
        lying = place(store, fold, MODALITIES, cell.targets, "cpu", free=plenty)
        statistics = {m: statistics_of(store, m, fold, data.training.clips) for m in MODALITIES}

        def there(split):
            return cell_data._split(cell, store, split.clips, statistics, "cpu", lying)

        return replace(
            data, training=there(data.training), selection=there(data.selection), reported=there(data.reported)
        )

    for way in (None, opened):
        workspace = new_workspace()
        if way is not None:
            monkeypatch.setattr("crossfold.platform.execution.run_cell.open_data", way)
        outcome = attempt_cell(cell, workspace)
        assert outcome.status == "done", outcome.failure.log_tail
        folder = workspace.cell_path(cell.cell_id)
        found.append([(folder / name).read_bytes() for name in ("result.json", "curve.parquet", "best.safetensors")])
    assert found[0] == found[1]
