"""Features that stay on a device: the same batches bit for bit, and nothing but indices moves with each of them."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from crossfold.datasets.batches import gpu_cache
from crossfold.datasets.batches.corruptions import damaged_frames
from crossfold.datasets.batches.source import BatchSpec, StoreArrays, WindowSource
from crossfold.datasets.store.normalisation import statistics_of
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.training.cell_data import batch_spec, windows_of
from tests.support.factories import make_store

MODALITIES = ("audio", "visual")
arrays_of = StoreArrays.of


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    gpu_cache.clear()
    gpu_cache._REPORTED.clear()
    monkeypatch.setattr(gpu_cache, "free_bytes", lambda device: 2**40)
    yield
    gpu_cache.clear()


def arrays_of_a_gpu(store, spec, statistics=None):
    """What `StoreArrays.of` makes for a GPU, with the CPU in its place."""
    known = statistics or {m: store.normalisation(m, spec.fold) for m in spec.modalities}
    there = gpu_cache.load(store, spec.fold, spec.modalities, "cpu")
    features = {m: there.get(m, store.features(m, spec.fold)) for m in spec.modalities}
    return replace(arrays_of(store, spec, known), features=features)


def both_ways(cell, store, statistics=None):
    """The windows of the training clips as the host gathers them, frame by frame, and as a device does."""
    windows, spec = windows_of(cell, store, store.fold(cell.fold).train), batch_spec(cell)
    device = WindowSource(store, windows, spec, arrays_of_a_gpu(store, spec, statistics))
    host = WindowSource(store, windows, spec, StoreArrays.of(store, spec, statistics))
    for m in spec.modalities:
        host = host.with_frames(m, store.features(m, spec.fold), store.present(m))
    return host, device


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
    monkeypatch.setattr(gpu_cache, "PIECE_BYTES", 1000)
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
    fewer = {m: statistics_of(store, m, 0, store.fold(0).train[:2]) for m in MODALITIES}
    frames = damaged_frames(store, "missing", 0.5, modality="audio", fold=0, clips=store.fold(0).train)
    every = np.arange(len(host))
    clean = device.batch(every).x["audio"]
    other_host, other_device = both_ways(cell, store, fewer)
    for one, other in (
        (other_host, other_device),
        (host.with_frames("audio", frames, frames.present), device.with_frames("audio", frames, frames.present)),
        (
            other_host.with_frames("audio", frames, frames.present),
            other_device.with_frames("audio", frames, frames.present),
        ),
    ):
        equal(one, other, every)
        assert not torch.equal(other.batch(every).x["audio"], clean)
    equal(host, device, every)


def raw_store(folder, kind, shape, dtype):
    rng = np.random.default_rng(0)
    clips = [
        {
            "name": f"clip{n}",
            "partition": "train" if n else "validation",
            "fps": 5.0,
            "labels": rng.uniform(-1, 1, (9 + n, 2)),
            "features": {"visual": rng.integers(0, 255, (9 + n, *shape)).astype(dtype)},
            "present": {"visual": rng.random(9 + n) > 0.2},
        }
        for n in range(3)
    ]
    return make_store(folder, clips, corpus="raw", inputs={"visual": kind})


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
    spec = BatchSpec(0, ("visual",), cell.targets, {"visual": wanted} if wanted else {})
    windows = windows_of(cell, store, [clip.name for clip in store.clips])
    device = WindowSource(store, windows, spec, arrays_of_a_gpu(store, spec))
    host = WindowSource(store, windows, spec)
    host = host.with_frames("visual", store.features("visual", 0), store.present("visual"))
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


def test_a_batch_moves_its_indices_and_nothing_else(synthetic_store, tiny_cell, monkeypatch):
    cell = tiny_cell("ca")
    windows = windows_of(cell, synthetic_store, synthetic_store.fold(0).train)
    chosen = np.arange(5)
    moved = {}
    for way, free in (("device", 2**40), ("host", 0)):
        gpu_cache.clear()
        monkeypatch.setattr(gpu_cache, "free_bytes", lambda device, free=free: free)
        source = WindowSource(synthetic_store, windows, batch_spec(cell, "meta"))
        with Moves() as moves:
            batch = source.batch(chosen)
        assert {str(x.device) for x in (*batch.x.values(), batch.y, batch.valid, batch.real)} == {"meta"}
        moved[way] = moves.sizes
    assert moved["device"] == [chosen.nbytes]
    assert len(moved["host"]) == 3, "the indices, and the frames of two modalities"
    assert sum(moved["host"]) > 10 * chosen.nbytes


def test_what_does_not_fit_is_gathered_by_the_host_and_said_once(synthetic_store, tiny_cell, caplog, monkeypatch):
    """Audio has 5 numbers a frame and visual 6: the free memory lies between the two."""
    sizes = {m: synthetic_store.features(m, 0).nbytes for m in MODALITIES}
    assert sizes["audio"] < sizes["visual"]
    monkeypatch.setattr(gpu_cache, "free_bytes", lambda device: int((sizes["visual"] - 1) / gpu_cache.SHARE))
    cell = tiny_cell("ca")
    with caplog.at_level(logging.WARNING, logger="crossfold"):
        for _ in range(2):
            gpu_cache.clear()
            host, device = both_ways(cell, synthetic_store)
    (line,) = caplog.messages
    assert line.startswith("visual of store")
    assert isinstance(device.arrays.features["audio"], torch.Tensor)
    assert isinstance(device.arrays.features["visual"], np.ndarray)
    equal(host, device, np.arange(len(host)))
    fewer = {m: statistics_of(synthetic_store, m, 0, synthetic_store.fold(0).train[:1]) for m in MODALITIES}
    equal(*both_ways(cell, synthetic_store, fewer), np.arange(len(host)))


def test_the_next_cell_finds_its_features_there(synthetic_store, monkeypatch):
    first = gpu_cache.load(synthetic_store, 0, MODALITIES, "cpu")
    monkeypatch.setattr(gpu_cache, "free_bytes", lambda device: 0)
    again = gpu_cache.load(synthetic_store, 0, MODALITIES, "cpu")
    assert all(again[m] is first[m] for m in MODALITIES), "what lies there needs no free memory"
    alone = gpu_cache.load(synthetic_store, 0, ("audio",), "cpu")
    assert alone["audio"] is first["audio"]
    assert gpu_cache.load(synthetic_store, 0, MODALITIES, "cpu").keys() == {"audio"}, "the rest was released"


def test_a_cell_trains_to_the_same_bytes_either_way(new_workspace, tiny_cell, monkeypatch):
    """The whole cell, stress suite included: gathered from mapped files, and from copies that a device keeps."""
    from crossfold.platform.training import cell_data

    cell, found = tiny_cell("rjca+dca", stress="quick"), []
    for way in (None, arrays_of_a_gpu):
        workspace = new_workspace()
        if way is not None:
            monkeypatch.setattr(cell_data.StoreArrays, "of", way)
        outcome = attempt_cell(cell, workspace)
        assert outcome.status == "done", outcome.failure.log_tail
        folder = workspace.paths.cell(cell.cell_id)
        found.append([(folder / name).read_bytes() for name in ("result.json", "curve.parquet", "best.safetensors")])
    assert found[0] == found[1]
