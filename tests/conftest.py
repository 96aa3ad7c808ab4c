"""What tests share: stores and cells of the corpus `synthetic`, and media files in Aff-Wild2's layout.

Nothing of crossfold is imported before a fixture asks for it, so that a broken module fails its own tests only.
"""

import gc
import importlib
import os
import subprocess
import wave
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
# The machine is shared: one thread each, also where a test opens a process of its own.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
# Ray's workers yield to everything else on the machine; here that is the tests beside them, whom they never outran.
os.environ.setdefault("RAY_worker_niceness", "0")

CLIPS = {"alma": "Train_Set", "bert": "Train_Set", "cleo": "Train_Set", "dora": "Validation_Set"}


def write_wav(path: Path, sound: np.ndarray, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def write_video(
    path: Path, shades: np.ndarray, rate: Fraction, sound: np.ndarray | None = None, sound_rate: int = 48_000, **options
) -> None:
    """One grey picture a shade; AAC sound where some is given."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        pictures = container.add_stream("mpeg4", rate=rate)
        pictures.width = pictures.height = 32
        tracks = [pictures]
        if sound is not None:
            track = container.add_stream("aac", rate=sound_rate, layout="mono")
            tracks.append(track)
        for shade in shades:
            noise = np.random.default_rng(int(shade)).integers(0, 9, (32, 32, 3))
            container.mux(pictures.encode(av.VideoFrame.from_ndarray((shade + noise).astype(np.uint8))))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = sound_rate
            frame.pts = 0
            container.mux(track.encode(frame))
        for stream in tracks:
            container.mux(stream.encode())


def write_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("valence,arousal\n" + "".join(f"{v:g},{a:g}\n" for v, a in labels))


def write_corpus(
    root: Path,
    *,
    clips: Mapping[str, str] = CLIPS,
    frames: int = 40,
    rate: Fraction = Fraction(25),
    event: int | None = None,
    sound: str = "wav",
    sound_rate: int = 16_000,
) -> Path:
    """A corpus whose clips have `frames` frames; at frame `event` there is a flash, a beep and a step of the labels.

    sound: `wav`, `video` or `none`: where it is.
    """
    for number, (clip, partition) in enumerate(clips.items()):
        rng = np.random.default_rng(number)
        at = frames if event is None else event
        flash = np.arange(frames) >= at
        calm = np.zeros(frames) if event is not None else np.linspace(-0.5, 0.5, frames)
        labels = np.where(flash[:, None], 0.8, np.stack([calm, -calm], axis=1))
        write_labels(root / "annotations" / "VA_Estimation_Challenge" / partition / f"{clip}.txt", labels)
        samples = round(float(frames / rate) * sound_rate)
        voice = 0.001 * rng.standard_normal(samples)
        beep = round(float(at / rate) * sound_rate)
        voice[beep:] += 0.6 * np.sin(2 * np.pi * 1000 / sound_rate * np.arange(samples - beep))
        video = clip.removesuffix("_left").removesuffix("_right")
        if sound == "wav":
            write_wav(root / "audio" / f"{video}.wav", voice, sound_rate)
        in_video = voice if sound == "video" else None
        write_video(root / "videos" / f"{video}.mp4", np.where(flash, 220, 20), rate, in_video, sound_rate)
        folder = root / "cropped_aligned" / clip
        folder.mkdir(parents=True)
        for frame in range(frames):
            face = rng.integers(0, 60, (112, 112, 3)) + 20 * number + (150 if flash[frame] else 0)
            Image.fromarray(np.clip(face, 0, 255).astype(np.uint8)).resize((56, 56)).save(
                folder / f"{frame + 1:05d}.jpg"
            )
    return root


@pytest.fixture(scope="session")
def media_corpus() -> Callable[..., Path]:
    """Writes a small corpus in Aff-Wild2's layout; see `write_corpus`."""
    pytest.importorskip("av")
    return write_corpus


@pytest.fixture(scope="session")
def video_file() -> Callable[..., None]:
    """Writes one video; see `write_video`."""
    pytest.importorskip("av")
    return write_video


@pytest.fixture(scope="session")
def wav_file() -> Callable[..., None]:
    """Writes one wav file; see `write_wav`."""
    return write_wav


TINY_RECIPE = {
    "name": "tiny",
    "window": 20,
    "hop": 10,
    "temporal": {"kind": "tcn", "width": 4, "levels": 1, "kernel": 2, "dropout": 0.1},
    "head": {"hidden": 4, "dropout": 0.1, "output": "tanh"},
    "loss": {"kind": "ccc", "scope": "batch"},
    "optimizer": {"lr": 0.01, "warmup_epochs": 1, "plateau_patience": 1, "plateau_factor": 0.5},
    "batch": 8,
    "epochs": 2,
    "stress": "none",
}


def write_small_store(stores, clips, *, corpus="synthetic", targets=("valence", "arousal")):
    """A feature store of given arrays. A clip: name, labels [F, T], features {m: [F, D]}; optional video, subject,
    partition (`train`) and present {m: [F]}."""
    from crossfold.datasets.corpora.clips import ClipArrays, ClipInfo
    from crossfold.datasets.store.feature_store import StoreSpec, write_store

    by_name = {clip["name"]: clip for clip in clips}

    def arrays(info):
        clip = by_name[info.name]
        labels = np.asarray(clip["labels"], np.float32)
        features = {m: np.asarray(x, np.float32) for m, x in clip["features"].items()}
        present = clip.get("present") or {m.partition("@")[0]: np.ones(len(labels), bool) for m in features}
        return ClipArrays(features, present, labels, tuple(clip.get("spans", ())))

    infos = [
        ClipInfo(
            name=clip["name"],
            video=clip.get("video", clip["name"]),
            subject=clip.get("subject", clip["name"]),
            partition=clip.get("partition", "train"),
            fps=25.0,
            frames=len(clip["labels"]),
        )
        for clip in clips
    ]
    return write_store(
        stores,
        StoreSpec(corpus=corpus, layout="test", targets=targets, clips=infos, origin={"made": "by a test"}),
        arrays,
    )


@pytest.fixture(scope="session")
def small_store():
    """Writes a feature store of given arrays and returns its folder; see `write_small_store`."""
    return write_small_store


@pytest.fixture(scope="session")
def synthetic_store(tmp_path_factory):
    """Eight clips of 90 frames of the corpus `synthetic`, as a feature store opened for reading."""
    from crossfold.datasets.corpora.embedded.synthetic import synthetic_clips
    from crossfold.datasets.store.feature_store import FeatureStore

    clips = []
    for clip in synthetic_clips(clips=8, frames=90, widths={"audio": 5, "visual": 6}):
        missing = {m: np.zeros(len(clip.labels), bool) for m in clip.features}
        for span in clip.spans:
            if span.kind == "missing":
                missing[span.modality][span.start : span.end] = True
        clips.append(
            {
                "name": clip.name,
                "subject": clip.subject,
                "partition": clip.partition,
                "labels": clip.labels,
                "features": clip.features,
                "present": {m: ~frames for m, frames in missing.items()},
            }
        )
    return FeatureStore(write_small_store(tmp_path_factory.mktemp("synthetic") / "stores", clips))


@pytest.fixture
def new_workspace(tmp_path_factory, synthetic_store):
    """Makes empty workspaces that hold the synthetic store and nothing else."""
    from crossfold.platform.workspace.workspace import Workspace

    def make(store=synthetic_store.path):
        workspace = Workspace(tmp_path_factory.mktemp("workspace"))
        workspace.paths.stores.mkdir()
        (workspace.paths.stores / store.name).symlink_to(store)
        return workspace

    return make


@pytest.fixture
def workspace(new_workspace):
    """An empty workspace with the synthetic store."""
    return new_workspace()


@pytest.fixture(scope="session")
def tiny_recipe():
    """Makes recipes that train in a fraction of a second; changes by dotted name, as in a sweep's `set`."""
    from crossfold.platform.core.recipe import Recipe

    def make(**changes):
        data = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY_RECIPE.items()}
        for key, value in changes.items():
            *parents, last = key.split("__")
            inside = data
            for parent in parents:
                inside = inside[parent]
            inside[last] = value
        return Recipe.parse(data, "tiny")

    return make


@pytest.fixture(scope="session")
def tiny_cell(synthetic_store, tiny_recipe):
    """Makes cells on the synthetic store; changes of the recipe by keyword, as in `optimizer__lr=0.1`."""
    from crossfold.fusion_models.catalogue import find_system
    from crossfold.platform.core.cell import Cell

    def make(
        system="rjca+dca", *, params=None, targets=("valence",), fold=0, seed=0, inner=None, store=None, **changes
    ):
        store = store or synthetic_store
        found = find_system(system)
        return Cell(
            system=system,
            params=found.params.parse(params or {}, system).model_dump(mode="json"),
            corpus=store.corpus,
            store=store.content_hash,
            fold=fold,
            inner=inner,
            targets=targets,
            seed=seed,
            recipe=tiny_recipe(**changes),
            revision=found.revision,
        )

    return make


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB of its own, where this machine lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        allowed = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def in_double_precision(monkeypatch):
    """Gates at T = 0.1 amplify rounding: in float32 two processors disagree in the third digit, here in none."""
    import torch

    from tests.support.double_precision import compute_in_double

    compute_in_double(monkeypatch.setattr)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def crossfold(capsys):
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        from crossfold.platform.edge.cli.app import main

        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def by_name(monkeypatch):
    """Imports a module of tests/support by its bare name, as every process started from here then can, too."""
    folder = Path(__file__).parent / "support"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(folder.parents[1] / ".pkg")]))
    return importlib.import_module


def pytest_collection_finish(session):
    """All that was imported stays: the garbage collector need not look through it again, a quarter second each time."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption("--benchmarks", action="store_true", help="run tests/benchmarks, which measure ratios")


def pytest_collection_modifyitems(config, items):
    """Benchmarks run only when asked for: a busy machine must not fail a test run."""
    if not config.getoption("--benchmarks"):
        chosen = [item for item in items if "benchmark" not in item.keywords]
        config.hook.pytest_deselected(items=[item for item in items if "benchmark" in item.keywords])
        items[:] = chosen
