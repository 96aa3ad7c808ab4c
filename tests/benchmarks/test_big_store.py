"""A store as large as Aff-Wild2 opens at once and is never read whole; and how fast `prepare` works.

The rival of opening is `np.load` of one whole array of the same store. The store is sparse: it takes no disk.
That of a batch is how the field loads one: files of each window, read and normalised one by one; the limit is that of a
copy of as many bytes.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DataLoader

from crossfold.datasets.batches.source import BatchSpec, WindowSource
from crossfold.datasets.batches.windows import cut
from crossfold.datasets.corpora.clips import ClipInfo
from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.datasets.store.feature_store import FORMAT, FeatureStore
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.benchmarks.rivals.published_loop import write_windows
from tests.support.factories import make_store

FRAMES = 2_990_000
CLIPS = 594
RAW = {"visual": ("crops48", (48, 48, 3), "uint8")}
WIDTHS = {"audio": 128, "text": 768}
RESIDENT = Path("/proc/self/statm")


def sparse(path: Path, dtype: str, *shape: int) -> None:
    """A `.npy` file of zeros that takes no disk."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (FRAMES, *shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + FRAMES * int(np.prod(shape)) * np.dtype(dtype).itemsize)


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """2.99 million frames of 594 clips: crops of 48 x 48, VGGish, BERT; 30 GB that are not there."""
    path = tmp_path_factory.mktemp("stores") / "affwild2-0000000000000000"
    path.mkdir()
    lengths = np.full(CLIPS, FRAMES // CLIPS)
    lengths[0] += FRAMES - lengths.sum()
    infos = [
        ClipInfo(name=f"c{n}", video=f"c{n}", subject=f"s{n}", partition="train", fps=30.0, frames=int(frames))
        for n, frames in enumerate(lengths)
    ]
    pd.DataFrame([vars(info) for info in infos]).to_parquet(path / "clips.parquet", index=False)
    modalities = {m: {"width": width, "files": {"all": f"{m}.npy"}} for m, width in WIDTHS.items()}
    for m, (kind, shape, dtype) in RAW.items():
        files = {"all": f"{m}.npy"}
        modalities[m] = {
            "width": int(np.prod(shape)),
            "files": files,
            "shape": list(shape),
            "dtype": dtype,
            "input": kind,
        }
        sparse(path / f"{m}.npy", dtype, *shape)
    for m, width in WIDTHS.items():
        sparse(path / f"{m}.npy", "float32", width)
    sparse(path / "labels.npy", "float32", 2)
    sparse(path / "valid.npy", "bool", 2)
    sparse(path / "present.npy", "bool", len(modalities))
    names = [info.name for info in infos]
    stats = {m: {"mean": [0.0] * width, "std": [1.0] * width} for m, width in WIDTHS.items()}
    manifest = {
        "format": FORMAT,
        "corpus": "affwild2",
        "content_hash": "0" * 16,
        "targets": ["valence", "arousal"],
        "modalities": modalities,
        "folds": [{"index": 0, "train": names[76:], "validation": names[:76]}],
        "normalisation": {"0": stats},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def resident() -> int:
    """Bytes of memory that are this process's own, mapped pages of files not counted."""
    _, all_pages, shared, *_ = RESIDENT.read_text().split()
    return (int(all_pages) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.benchmark
@pytest.mark.skipif(not RESIDENT.exists(), reason="only Linux has this count of a process's own memory")
def test_a_store_of_affwild2s_size_opens_at_once_and_is_never_read_whole(huge, capsys, compared, figure):
    began = time.perf_counter()
    store = FeatureStore(huge)
    windows = cut(store, store.fold(0).train, length=300, hop=200, invalid="mask")
    modalities = ("audio", "visual", "text")
    source = WindowSource(store, windows, BatchSpec(0, modalities, ("valence", "arousal")))
    opened = time.perf_counter() - began
    source.batch(np.arange(12))
    before = resident()
    rng = np.random.default_rng(0)
    highest = 0
    began = time.perf_counter()
    batches = 40
    for _ in range(batches):
        batch = source.batch(rng.integers(0, len(source), 12))
        highest = max(highest, resident() - before)
    gathered = batches * 12 * 300 / (time.perf_counter() - began)
    held = sum(x.numel() * x.element_size() for x in batch.x.values())
    began = time.perf_counter()
    np.load(huge / "audio.npy")
    whole = time.perf_counter() - began
    with capsys.disabled():
        print(
            f"\nstore of {store.frames:,} frames, {len(source):,} windows: {gathered:,.0f} frames/s gathered, "
            f"batches of {held / 2**20:.0f} MiB"
        )
    compared("open a store like Aff-Wild2", "np.load of its smallest features", ours=[opened], theirs=[whole])
    figure(
        "memory that batches of a large store add",
        highest / held,
        "times a batch",
        why="What is compared with is the batch itself, which any loader has to hold.",
    )
    assert opened < whole
    # A batch and what it is scaled from; the store is a thousand times that.
    assert highest < 6 * held


@pytest.mark.benchmark
def test_a_batch_against_files_of_each_window(one_core, rates, tmp_path, compared, in_turns):
    generator = np.random.default_rng(0)
    widths, frames, hop, length = {"audio": 128, "visual": 512, "text": 768}, 6_000, 200, 300
    clip = {
        "name": "clip",
        "partition": "train",
        "labels": generator.uniform(-1, 1, (frames, 2)),
        "features": {m: generator.standard_normal((frames, width)) for m, width in widths.items()},
    }
    store = make_store(tmp_path / "stores", [clip, clip | {"name": "other", "partition": "validation"}])
    windows = cut(store, ["clip"], length=length, hop=hop, invalid="mask")
    source = WindowSource(store, windows, BatchSpec(0, tuple(widths), ("valence",)))
    files = write_windows(source, store, tmp_path / "files")
    loader = DataLoader(files, 12, shuffle=False, num_workers=0)
    order = [np.arange(start, min(start + 12, len(source))) for start in range(0, len(source), 12)]
    first, (expected, *_) = source.batch(order[0]), next(iter(loader))
    for m in widths:
        np.testing.assert_allclose(first.x[m], expected[m], rtol=1e-4, atol=1e-5)

    works = {"ours": lambda: [source.batch(chosen) for chosen in order], "loader": lambda: list(loader)}
    taken = in_turns(works, 5, time.process_time)
    moved = 2 * sum(4 * windows.rows.size * width for width in widths.values())
    share = moved / rates().copies / np.median(taken["ours"])
    assert (
        compared(
            "batches of features",
            "a DataLoader of a file a window",
            ours=taken["ours"],
            theirs=taken["loader"],
            share=share,
        )
        > 1
    )


@pytest.mark.benchmark
def test_frames_per_second_of_prepare(tmp_path, compared, figure):
    write_puppets(tmp_path / "puppets", clips=6, seconds=10.0)
    began = time.perf_counter()
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), "puppets", tmp_path / "puppets", processes=1))
    took = time.perf_counter() - began
    began = time.perf_counter()
    prepare(Workspace(tmp_path / "ws"), "puppets", tmp_path / "puppets", processes=1)
    again = time.perf_counter() - began
    figure(
        "frames of puppets prepared by one process",
        store.frames / took,
        "frames/s",
        why="Its rival, decoding the same files, stands in test_prepare_speed.py.",
    )
    assert compared("prepare, once more", "preparing for the first time", ours=[again], theirs=[took]) > 5
