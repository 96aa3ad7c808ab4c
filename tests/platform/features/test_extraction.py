"""Backbones in `prepare`: the same bits by whomever, statistics of the fold's own, and refusals before work."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from crossfold.datasets.batches.source import BatchSpec, WindowSource
from crossfold.datasets.batches.windows import Windows
from crossfold.datasets.media.face_tracking import WHOLE_FRAME
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.fusion_models.backbones.catalogue import BACKBONES
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.features.extractors import FeaturePlan, extractors
from crossfold.platform.features.feature_settings import Preparation
from crossfold.platform.features.frozen_backbone import batch_of, built
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.support.media import write_corpus, write_video

CLIPS = {"t0": "Train_Set", "t1_left": "Train_Set", "v0": "Validation_Set"}

TINY = '''
"""Three small backbones: of a face, of a clip of faces, and of decibels."""

from torch import nn

from crossfold.fusion_models.backbones.catalogue import Backbone, register
from crossfold.fusion_models.backbones.inputs import PicturePreparation, prepare_spectrogram
from tests.support.media import write_corpus


def small(channels, *shape):
    def build():
        conv = nn.Conv3d if len(shape) == 3 else nn.Conv2d
        pool = nn.AdaptiveAvgPool3d(2) if len(shape) == 3 else nn.AdaptiveAvgPool2d(2)
        cells = 8 if len(shape) == 3 else 4
        return nn.Sequential(
            conv(channels, 4, 3, stride=2), nn.BatchNorm3d(4) if len(shape) == 3 else nn.BatchNorm2d(4), nn.ReLU(),
            pool, nn.Flatten(), nn.Linear(4 * cells, 6),
        )

    return build


def file(name, modality, kind, raw_shape, frame_shape, preparation):
    register(
        Backbone(
            name=name, title=name, source="a test", modality=modality, input=kind, raw_shape=raw_shape,
            frame_shape=frame_shape, width=6, build=small(frame_shape[0], *frame_shape[1:]), preparation=preparation,
            groups=(("5.",), ("1.",), ("0.",)),
        )
    )


file("tiny_face", "visual", "crops48", (48, 48, 3), (3, 40, 40), PicturePreparation(side=40))
file("tiny_clip", "visual", "clips4@48", (4, 48, 48, 3), (3, 4, 40, 40), PicturePreparation(side=40))
file("tiny_sound", "audio", "mel64x107", (64, 107), (1, 64, 107), prepare_spectrogram)
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "tiny.py"
    path.write_text(TINY)
    load_plugin(path)
    yield path
    for name in ("tiny_face", "tiny_clip", "tiny_sound"):
        BACKBONES._entries.pop(name)
        BACKBONES._origins.pop(name)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three clips of 90 frames, so that the second batch of 64 is not full; not to be written to."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data", clips=CLIPS, frames=90, event=70)


def make(
    folder,
    corpus,
    audio="logmel",
    visual="light",
    seed: int | None = 3,
    weights=None,
    plugins=(),
    device="auto",
    **other,
) -> Path:
    plan = FeaturePlan(audio=audio, visual=visual, random_weights=seed)
    asked = Preparation(plan, weights, device, tuple(plugins))
    return prepare(Workspace(folder), "affwild2", corpus, asked, **{"processes": 1, **other})


@pytest.fixture(scope="module")
def raw(tmp_path_factory, corpus):
    """The raw inputs of the tiny backbones."""
    return FeatureStore(make(tmp_path_factory.mktemp("raw"), corpus, "raw:mel64x107", "raw:crops48", None))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, corpus, plugin):
    """Features of tiny_sound and tiny_clip."""
    return FeatureStore(make(tmp_path_factory.mktemp("encoded"), corpus, "tiny_sound", "tiny_clip"))


def reference(raw: FeatureStore, name: str, modality: str, fold: int, inputs=None) -> np.ndarray:
    """What the network gives for raw input as training would gather it, all frames of the store in one batch."""
    rows = np.arange(raw.frames)[None]
    everything = Windows(rows, np.ones_like(rows, np.bool_))
    source = WindowSource(raw, everything, BatchSpec(fold, (modality,), ("valence",), inputs or {}))
    backbone = BACKBONES.get(name)
    module = built(backbone, 3).eval()
    with torch.inference_mode():
        return module(backbone.prepare(source.batch(np.array([0])).x[modality], training=False)[0]).numpy()


def test_clips_of_pictures_are_encoded_as_training_would_gather_them(raw, encoded, plugin):
    expected = reference(raw, "tiny_clip", "visual", 0, {"visual": "clips4@48"})
    np.testing.assert_allclose(encoded.features("visual", 0), expected, atol=1e-5)
    assert encoded.input_kind("visual") is None


def test_decibels_are_standardised_by_the_training_clips_of_each_fold(raw, encoded, plugin):
    for fold in encoded.folds:
        expected = reference(raw, "tiny_sound", "audio", fold.index)
        np.testing.assert_allclose(encoded.features("audio", fold.index), expected, atol=1e-5)
    first, second = (np.asarray(encoded.features("audio", index)) for index in (0, 1))
    assert np.abs(first - second).max() > 1e-4
    for index in (0, 1):
        stats = raw.normalisation("audio", index)
        rows = np.concatenate([np.arange(raw.frames)[raw.rows(name)] for name in raw.fold(index).train])
        seen = raw.features("audio", index)[rows].astype(np.float64)
        np.testing.assert_allclose(stats.mean[:, 0], seen.mean((0, 2)), rtol=1e-4)


def test_the_event_is_at_its_frame_in_every_input(raw):
    for clip in CLIPS:
        rows = raw.rows(clip)
        brightness = raw.features("visual", 0)[rows].astype(float).mean((1, 2, 3))
        assert int(np.diff(brightness).argmax()) + 1 == 70
        # The segment ends with its frame, so the last columns of the frame of the beep are the first that hear it.
        loud = raw.features("audio", 0)[rows].astype(float)[:, :, -3:].max((1, 2))
        assert int(np.diff(loud).argmax()) + 1 == 70


def test_processes_and_plugins_do_not_change_a_bit(tmp_path, corpus, encoded, plugin):
    store = make(tmp_path, corpus, "tiny_sound", "tiny_clip", processes=2, plugins=(plugin,))
    assert store.name == encoded.path.name


def test_ray_tasks_do_not_change_a_bit(tmp_path, corpus, encoded, plugin):
    from crossfold.platform.edge.fleet.task_pool import RayWorkers

    opened = []

    def ray_workers(paths, device):
        opened.append(RayWorkers("local", paths, processes=2))
        return opened[0].__enter__()

    try:
        store = make(tmp_path, corpus, "tiny_sound", "tiny_clip", open_workers=ray_workers, plugins=(plugin,))
        with pytest.raises(UserError, match="does not see /nowhere"):
            RayWorkers("local", [Path("/nowhere")]).__enter__()
    finally:
        opened[0].__exit__()
    assert store.name == encoded.path.name


def test_what_else_is_prepared_does_not_change_a_bit(tmp_path, corpus, encoded, plugin):
    alone = write_corpus(tmp_path / "alone", clips={"t0": "Train_Set"}, frames=90, event=70)
    shutil.copytree(corpus / "cropped_aligned" / "v0", alone / "cropped_aligned" / "v0")
    for folder, name in (("annotations/VA_Estimation_Challenge/Validation_Set", "v0.txt"), ("videos", "v0.mp4")):
        (alone / folder).mkdir(exist_ok=True)
        shutil.copy(corpus / folder / name, alone / folder / name)
    shutil.copy(corpus / "audio" / "v0.wav", alone / "audio" / "v0.wav")
    store = FeatureStore(make(tmp_path / "ws", alone, "logmel", "tiny_clip"))
    for name in ("t0", "v0"):
        rows, before = store.rows(name), encoded.rows(name)
        np.testing.assert_array_equal(store.features("visual", 0)[rows], encoded.features("visual", 0)[before])


KILLED = """
import os, signal, sys
from pathlib import Path
from crossfold.platform.features.extractors import FeaturePlan
from crossfold.platform.features.feature_settings import Preparation
from crossfold.platform.features.prepare import prepare
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.workspace.workspace import Workspace

space, root, plugin, stage = sys.argv[1:]
load_plugin(Path(plugin))

def kill(at, done, total):
    if (at, done) == (stage, 2):
        os.kill(os.getpid(), signal.SIGKILL)

plan = FeaturePlan(audio="tiny_sound", visual="tiny_clip", random_weights=3)
prepare(Workspace(Path(space)), "affwild2", Path(root), Preparation(plan), processes=1, progress=kill)
"""


@pytest.mark.parametrize("stage", ["encode", "write"])
def test_a_prepare_that_was_killed_goes_on_and_leaves_nothing(tmp_path, corpus, encoded, plugin, stage):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(corpus), str(plugin), stage]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    stores = tmp_path / "stores"
    (scratch,) = stores.glob(".preparing-*")
    half = [path for path in stores.iterdir() if path != scratch]
    assert len(half) == (1 if stage == "write" else 0)
    # Another version of the files, whose clips nobody will ask for again.
    stale = scratch.with_name(scratch.name[:-16] + "0" * 16)
    shutil.copytree(scratch, stale)
    alive = stores / re.sub(r"-\d+$", f"-{os.getppid()}", scratch.name[:-16] + "1" * 16)
    alive.mkdir()
    (alive / ".owner").write_text((scratch / ".owner").read_text().rpartition("-")[0] + f"-{os.getppid()}")
    done = []
    store = make(
        tmp_path,
        corpus,
        "tiny_sound",
        "tiny_clip",
        progress=lambda at, n, total: done.append((at, n)),
    )
    assert store.name == encoded.path.name
    assert next(n for at, n in done if at == "read") == 3
    assert next(n for at, n in done if at == "encode") == {"encode": 2, "write": 3}[stage]
    assert sorted(path.name for path in stores.iterdir()) == sorted([".prepared", alive.name, store.name])


def test_random_weights_are_named_in_the_store(encoded, raw):
    assert encoded.corpus == "affwild2-random-weights"
    assert encoded.manifest["origin"]["audio"]["weights"] == {"random": 3}
    assert raw.corpus == "affwild2"
    assert raw.manifest["origin"]["audio"]["input"] == "mel64x107"


def test_weights_of_ones_own_are_read_and_their_digest_kept(tmp_path, corpus, plugin):
    module = built(BACKBONES.get("tiny_face"), 5)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"tiny_face\.safetensors is not there(?s:.*)raw:crops48"):
        make(tmp_path / "ws", corpus, "logmel", "tiny_face", None, weights=tmp_path / "mine")
    save_file(module.state_dict(), tmp_path / "mine" / "tiny_face.safetensors")
    store = FeatureStore(make(tmp_path / "ws", corpus, "logmel", "tiny_face", None, weights=tmp_path / "mine"))
    random = FeatureStore(make(tmp_path / "ws", corpus, "logmel", "tiny_face", 5))
    assert store.corpus == "affwild2"
    assert len(store.manifest["origin"]["visual"]["weights"]["sha256"]) == 64
    np.testing.assert_array_equal(store.features("visual", 0), random.features("visual", 0))
    assert store.path.name.rpartition("-")[2] != random.path.name.rpartition("-")[2]


def test_missing_weights_and_wrong_names_stop_it_before_any_work(tmp_path, corpus):
    def fails(**plan):
        workspace = Workspace(tmp_path / "ws")
        with pytest.raises(UserError) as error:
            prepare(workspace, "affwild2", corpus, Preparation(FeaturePlan(**plan), tmp_path), processes=1)
        assert not (tmp_path / "ws").exists()
        return str(error.value)

    assert f"{tmp_path}/vggish-10086976.pth is not there" in fails(audio="vggish")
    assert "did you mean 'vggish'" in fails(audio="vgish")
    assert "which is for visual" in fails(audio="resnet50")
    assert "makes no modality" in fails(audio=None, visual=None)
    assert "weights 'bert-base-uncased'" in fails(text="bert", random_weights=1)
    with pytest.raises(UserError, match="device 'tpu' is none of auto, cpu, cuda"):
        make(tmp_path / "ws", corpus, visual="resnet50", device="tpu")


def test_ready_features_take_no_extractor(tmp_path):
    from crossfold.datasets.corpora.embedded.synthetic import write_synthetic

    write_synthetic(tmp_path / "data", clips=4, frames=60)
    with pytest.raises(UserError, match="holds extracted features"):
        prepare(Workspace(tmp_path / "ws"), "synthetic", tmp_path / "data", Preparation(FeaturePlan(audio="mfcc")))


def test_every_backbone_and_every_input_is_an_extractor():
    table = extractors()
    assert {"logmel", "mfcc", "light", "bert", "raw:crops224", "raw:vggish"} <= set(table)
    for name in BACKBONES:
        backbone = BACKBONES.get(name)
        assert table[name].shape == (backbone.width,)
        assert 1 <= batch_of(backbone) <= 64
    assert table["audio_cnn"].per_fold
    assert not table["vggish"].per_fold
    assert set(extractors("text")) == {"bert", "bert+punctuation", "vosk+bert", "vosk+bert+punctuation"}


def test_a_run_that_is_at_it_already_is_left_alone(tmp_path, corpus, plugin):
    from crossfold.platform.features.scratch import acquire, owner_alive

    folder = tmp_path / "scratch"
    assert acquire(folder) is None
    assert acquire(folder) is None
    owner = (folder / ".owner").read_text().rpartition("-")[0]
    (folder / ".owner").write_text(f"{owner}-{os.getppid()}")
    assert acquire(folder) == f"{owner}-{os.getppid()}"
    (folder / ".owner").write_text(f"{owner}-999999999")
    assert acquire(folder) is None
    assert owner_alive("0a0a0a0a-999999999"), "a process of another machine may be alive"


@pytest.fixture(scope="module")
def crop_free(tmp_path_factory):
    """Puppets as a manifest that names no crops: two clips, and two subjects of one video."""
    from crossfold.datasets.corpora.embedded.puppets import write_puppets

    root = tmp_path_factory.mktemp("cropfree") / "data"
    write_puppets(root, clips=4, seconds=2.0, layout="manifest")
    shutil.rmtree(root / "cropped_aligned")
    table = pd.read_csv(root / "manifest.csv").drop(columns="crops")
    table.to_csv(root / "manifest.csv", index=False)
    return root


def test_faces_are_cut_out_of_videos_without_crops(tmp_path, crop_free):
    workspace = Workspace(tmp_path)
    before = sorted(crop_free.rglob("*"))
    store = FeatureStore(prepare(workspace, "puppets", crop_free, processes=1))
    assert store.manifest["origin"]["visual"]["faces"]["detector"].startswith("dlib")
    present = store.present("visual")
    # dlib is not sure of the fourth of these rendered faces.
    assert all(present[store.rows(name)].mean() > 0.8 for name in ("puppet-01", "puppet-02", "puppet-03_left"))
    codes = np.asarray(store.features("visual", 0))
    assert (codes.any(1) == present).all()
    assert sorted(crop_free.rglob("*")) == before
    without = FeatureStore(
        prepare(workspace, "puppets", crop_free, Preparation(FeaturePlan(faces="given")), processes=1)
    )
    assert not without.present("visual").any()
    assert "faces" not in without.manifest["origin"]["visual"]


def test_a_video_without_a_face_is_an_error_and_its_whole_pictures_are_the_way_out(tmp_path, crop_free):
    pytest.importorskip("dlib")
    root = Path(shutil.copytree(crop_free, tmp_path / "data"))
    video = root / "videos" / "puppet-01.mp4"
    write_video(video, [40] * 50, sound=np.zeros(2 * 48_000))
    asked = Preparation(FeaturePlan(audio=None))
    with pytest.raises(UserError, match=r"no face was found in .*puppet-01.mp4(?s:.*)--whole-frame"):
        prepare(Workspace(tmp_path / "ws"), "puppets", root, asked, processes=1)
    whole = Preparation(FeaturePlan(audio=None, faces="whole"))
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), "puppets", root, whole, processes=1))
    assert store.present("visual").all()
    assert store.manifest["origin"]["visual"]["faces"] == WHOLE_FRAME


def test_faces_that_cannot_be_told_apart_or_found_stop_it_before_any_work(tmp_path, crop_free, monkeypatch):
    root = Path(shutil.copytree(crop_free, tmp_path / "data"))
    text = (root / "manifest.csv").read_text()
    (root / "manifest.csv").write_text(text.replace("\npuppet-03_left,", "\nsomebody,"))
    with pytest.raises(
        UserError, match=r"somebody, puppet-03_right show subjects of one video|puppet-03_right, somebody"
    ):
        prepare(Workspace(tmp_path / "ws"), "puppets", root, processes=1)
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(UserError, match=r"4 of 4 clips have no face crops(?s:.*)crossfold\[faces\](?s:.*)--no-faces"):
        prepare(Workspace(tmp_path / "ws"), "puppets", crop_free, processes=1)
    assert not (tmp_path / "ws").exists()
