"""The embedded corpus: layout, truth, determinism by bytes. One corpus of three clips of two seconds is shared."""

import csv
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from crossfold.datasets.corpora.embedded.face import CROP, SCENE
from crossfold.datasets.corpora.embedded.latent_script import partition_plan, write_script
from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.platform.core.files import whole_folder

pytest.importorskip("av", reason="needs crossfold[media]")
pytest.importorskip("espeakng_loader", reason="needs crossfold[media]")

SMALL = {"clips": 3, "seconds": 2.0, "seed": 3}
FRAMES = 50
LABELS = Path("annotations/VA_Estimation_Challenge")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    calls = []
    root = tmp_path_factory.mktemp("puppets") / "corpus"
    summary = write_puppets(root, **SMALL, processes=1, progress=lambda done, total: calls.append((done, total)))
    assert (summary.clips, summary.videos, summary.frames, summary.reused) == (3, 2, 3 * FRAMES, False)
    assert (summary.train, summary.validation) == (2, 1)
    assert calls[-1] == (3, 3)
    return root


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_arguments_same_bytes_whatever_the_processes(corpus, tmp_path):
    write_puppets(tmp_path / "again", **SMALL, processes=2)
    here, there = files(corpus), files(tmp_path / "again")
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    assert not list(tmp_path.glob(".*partial*"))


FILM_AGAIN = """
import json, sys
from pathlib import Path
from crossfold.datasets.corpora.embedded.puppets import write_puppets
write_puppets(Path(sys.argv[1]), **json.loads(sys.argv[2]), processes=1)
"""
RUBBISH = {"MALLOC_MMAP_THRESHOLD_": "500000000", "MALLOC_TOP_PAD_": "100000000"}
"""With `MALLOC_PERTURB_`: all that is allocated is filled first, also what would come from the system as zeros."""


def test_a_film_does_not_depend_on_what_lay_in_memory_before(tmp_path):
    made = []
    for filling in ("1", "165"):
        # This seed's first film did.
        asked = json.dumps({"clips": 4, "seconds": 2.0, "seed": 1})
        command = [sys.executable, "-c", FILM_AGAIN, str(tmp_path / filling), asked]
        subprocess.run(command, env={**os.environ, **RUBBISH, "MALLOC_PERTURB_": filling}, check=True)
        made.append(files(tmp_path / filling))
    assert [name for name in made[0] if made[0][name] != made[1][name]] == []


def test_clips_and_labels_count_frames(corpus):
    clips = rows(corpus / "truth/clips.csv")
    assert [c["clip"] for c in clips] == ["puppet-01", "puppet-02_left", "puppet-02_right"]
    assert len({c["subject"] for c in clips}) == 3
    latents = np.load(corpus / "truth/latents.npz")
    for clip in clips:
        name = "Train_Set" if clip["partition"] == "train" else "Validation_Set"
        lines = (corpus / LABELS / name / f"{clip['clip']}.txt").read_text().splitlines()
        assert lines[0] == "valence,arousal"
        values = np.array([[float(x) for x in line.split(",")] for line in lines[1:]])
        assert values.shape == (int(clip["frames"]), 2) == (FRAMES, 2)
        assert np.all((values == -5) | (np.abs(values) <= 1))
        np.testing.assert_allclose(values[:, 0], latents[f"{clip['clip']}/label_valence"], atol=1e-4)


def test_missing_faces_have_no_file_and_all_others_do(corpus):
    spans = rows(corpus / "truth/spans.csv")
    for clip in rows(corpus / "truth/clips.csv"):
        hidden = {
            frame
            for s in spans
            if (s["clip"], s["kind"], s["modality"]) == (clip["clip"], "missing", "visual")
            for frame in range(int(s["start"]), int(s["end"]))
        }
        names = {path.name for path in (corpus / "cropped_aligned" / clip["clip"]).iterdir()}
        assert names == {f"{frame + 1:05}.jpg" for frame in range(FRAMES) if frame not in hidden}
    from PIL import Image

    assert Image.open(next((corpus / "cropped_aligned/puppet-01").iterdir())).size == (CROP, CROP)


@pytest.mark.parametrize(("video", "width"), [("puppet-01", SCENE), ("puppet-02", 2 * SCENE)])
def test_mp4_and_wav_have_the_length_of_the_clip(corpus, video, width):
    import av

    with av.open(str(corpus / "videos" / f"{video}.mp4")) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(corpus / "videos" / f"{video}.mp4")) as container:
        assert abs(sum(frame.samples for frame in container.decode(audio=0)) - 32_000) <= 2048
        assert float(container.streams.video[0].average_rate) == 25.0
    assert len(pictures) == FRAMES
    assert pictures[0].shape == (SCENE, width, 3)
    with wave.open(str(corpus / "audio" / f"{video}.wav")) as sound:
        assert (sound.getnframes(), sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (
            32_000,
            16_000,
            1,
            2,
        )
        samples = np.frombuffer(sound.readframes(32_000), np.int16)
    assert 100 < samples.std() < 12_000


def test_words_lie_in_the_clip_in_order(corpus):
    for path in (corpus / "transcripts").iterdir():
        words = json.loads(path.read_text())["words"]
        assert all(0 <= w["start"] < w["end"] <= 2.0 and w["word"] for w in words)
        assert [w["start"] for w in words] == sorted(w["start"] for w in words)
    assert words


def test_while_the_other_talks_the_voice_is_missing(corpus):
    silent = {
        s["clip"]: (int(s["start"]), int(s["end"]))
        for s in rows(corpus / "truth/spans.csv")
        if s["detail"] == "other speaker"
    }
    assert silent == {"puppet-02_left": (25, 50), "puppet-02_right": (0, 25)}


def test_finished_corpus_is_kept_and_anything_else_refused(corpus, tmp_path):
    before = files(corpus)
    assert write_puppets(corpus, **SMALL).reused
    with pytest.raises(ValueError, match=r"seed=3 there, 4 asked"):
        write_puppets(corpus, **{**SMALL, "seed": 4})
    assert files(corpus) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="no puppets corpus"):
        write_puppets(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="clips >= 1"):
        write_puppets(tmp_path / "new", clips=0)


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_puppets(tmp_path / "corpus", clips=1, seconds=0.2, processes=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_whole_folder_takes_an_empty_place(tmp_path):
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as draft:
        (draft / "a").write_text("a")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_scripts_are_disjoint_spread_and_of_every_kind():
    scripts = [write_script(np.random.default_rng([1, i]), 500, 25.0, deal=i) for i in range(6)]
    for script in scripts:
        for a, b in zip(script.spans, script.spans[1:], strict=False):
            assert a.end <= b.start
        assert script.spans[-1].end <= 500
        assert 0.33 < sum(s.end - s.start for s in script.spans) / 500 < 0.52
        assert all(35 <= s.end - s.start <= 101 for s in script.spans)
        labels = script.labels
        for span in script.spans:
            if span.kind == "unlabelled":
                assert np.all((labels[span.start : span.end] == -5).any(axis=1))
                assert (labels[span.start : span.end] == -5).all(axis=1).mean() > 0.5
        outside = np.ones(500, bool)
        for span in script.spans:
            outside[span.start : span.end] = span.kind != "unlabelled"
        assert np.all(np.abs(labels[outside]) <= 1)
    assert len({s.kind for script in scripts for s in script.spans}) == 5
    assert np.concatenate([s.valence for s in scripts]).std() > 0.4


def test_labels_lag_behind_the_latent():
    script = write_script(np.random.default_rng(0), 2000, 25.0, deal=0)
    rated = script.label_valence > -5
    gap = [np.abs(np.roll(script.valence, lag) - script.label_valence)[20:][rated[20:]].mean() for lag in range(20)]
    assert abs(int(np.argmin(gap)) - 10) <= 1


def test_complementary_parts_add_up_and_liars_have_a_tell():
    for i in range(10):
        script = write_script(np.random.default_rng([2, i]), 500, 25.0, deal=i)
        for span in script.spans:
            inside = slice(span.start + 8, span.end - 8)
            if span.kind == "complementary":
                total = script.face_valence[inside] + script.voice_valence[inside]
                assert np.abs(total - script.valence[inside]).mean() < 0.5
            if span.kind == "conflict":
                tell = script.face_tell if span.modality == "visual" else script.voice_tell
                assert tell[inside].min() == 1.0


@pytest.mark.parametrize(("clips", "validation"), [(1, 0), (2, 1), (4, 1), (12, 3), (24, 6)])
def test_a_quarter_is_for_validation(clips, validation):
    assert partition_plan(clips, 0).count("validation") == validation
