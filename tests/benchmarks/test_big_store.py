"""A store as large as Aff-Wild2 opens at once and is never read whole; and how fast `prepare` works.

The rival of opening is `np.load` of one whole array of the same store. The store is sparse: it takes no disk.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossfold.datasets.batches.source import BatchSpec, WindowSource
from crossfold.datasets.batches.windows import cut
from crossfold.datasets.corpora.clips import ClipInfo
from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.datasets.store.feature_store import FORMAT, FeatureStore
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace

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
@pytest.mark.skipif(not RESIDENT.exists(), reason="only Linux tells a process's own memory so")
def test_a_store_of_affwild2s_size_opens_at_once_and_is_never_read_whole(huge, capsys):
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
            f"\nstore of {store.frames:,} frames: opened and cut into {len(source):,} windows in {opened:.2f} s, "
            f"np.load of its smallest features alone {whole:.2f} s; {gathered:,.0f} frames/s gathered, "
            f"{highest / 2**20:.0f} MiB grown over batches of {held / 2**20:.0f} MiB"
        )
    assert opened < whole
    # A batch and what it is scaled from; the store is a thousand times that.
    assert highest < 6 * held


@pytest.mark.benchmark
def test_frames_per_second_of_prepare(tmp_path, capsys):
    write_puppets(tmp_path / "puppets", clips=6, seconds=10.0)
    began = time.perf_counter()
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), "puppets", tmp_path / "puppets", processes=1))
    took = time.perf_counter() - began
    began = time.perf_counter()
    prepare(Workspace(tmp_path / "ws"), "puppets", tmp_path / "puppets", processes=1)
    again = time.perf_counter() - began
    with capsys.disabled():
        print(f"\nprepare, one process: {store.frames / took:,.0f} frames/s; asked again {took / again:,.0f} x faster")
    assert again < took / 5
