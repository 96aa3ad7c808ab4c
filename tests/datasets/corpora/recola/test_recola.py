"""The RECOLA reader: what it takes, what it makes of six raters, and what it says about damaged folders."""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.datasets.corpora.recola.files import source_files
from crossfold.datasets.corpora.recola.gold_standard import gold_standard
from crossfold.datasets.corpora.recola.labels import labels_at
from crossfold.datasets.corpora.recola.rating_files import RATE, read_ratings
from crossfold.datasets.corpora.recola.reader import RecolaOptions
from crossfold.datasets.corpora.registry import CORPORA
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.metrics import ccc
from crossfold.platform.features.feature_settings import Preparation
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.support.media import assert_readable, put, rewrite, truncate

pytest.importorskip("av", reason="needs crossfold[media]")
pytest.importorskip("espeakng_loader", reason="needs crossfold[media]")

FRAMES = 50
GOLD, RATERS = "ratings_gold_standard", "ratings_individual"


@pytest.fixture(scope="module")
def sound_corpus(tmp_path_factory):
    """Three train and one dev recording of two seconds, that pass for real; not to be written to."""
    root = tmp_path_factory.mktemp("recola") / "data"
    write_puppets(root, clips=5, seconds=FRAMES / 25, seed=2, layout="recola", processes=1)
    # The second one has a gap in its labels; gaps are planted where a test wants them.
    for path in [path for path in root.rglob("*") if path.stem == "train_2"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (root / "puppets.json").unlink()
    shutil.rmtree(root / "truth")
    assert inspect(root)["gaps"] == []
    return root


@pytest.fixture
def root(tmp_path, sound_corpus):
    """A copy to damage."""
    return Path(shutil.copytree(sound_corpus, tmp_path / "data"))


def inspect(root, **options):
    inspection = CORPORA.get("recola").read(root, deep=True, options=options)
    clips = {clip.info.name: clip for clip in inspection.clips}
    found = inspection.findings
    return {
        "clips": clips,
        "errors": [f for f in found if f.severity == "error"],
        "warnings": [f for f in found if f.severity != "error"],
        "gaps": [f for f in found if f.rule == "label-gap"],
        "origin": inspection.origin,
        "corpus": inspection.corpus,
    }


def gold(root: Path, key: str = "train_1", dimension: str = "valence", kind: str = "arff") -> Path:
    return root / GOLD / dimension / f"{key}.{kind}"


def both(root: Path, change, dimension: str = "valence") -> None:
    """The same change of the ratings, below their header, in arff and csv."""
    for kind, header in (("arff", 8), ("csv", 1)):
        rewrite(gold(root, dimension=dimension, kind=kind), lambda ls, n=header: ls[:n] + change(ls[n:]))


def only_raters(root: Path) -> None:
    shutil.rmtree(root / GOLD)


def test_a_sound_folder_is_read_whole(sound_corpus):
    seen = inspect(sound_corpus)
    assert seen["errors"] == []
    assert {f.rule for f in seen["warnings"]} == {"ignored", "partition-official"}
    assert [(f.file, f.severity) for f in seen["warnings"] if f.rule == "ignored"] == [("recordings_physio", "note")]
    assert [(c.info.name, c.info.partition) for c in seen["clips"].values()] == [
        ("train_1", "train"),
        ("train_3", "train"),
        ("train_4", "train"),
        ("dev_1", "validation"),
    ]
    for name, clip in seen["clips"].items():
        assert (clip.info.frames, clip.info.fps, clip.info.subject) == (FRAMES, 25.0, name)
        np.testing.assert_allclose(clip.times, np.arange(FRAMES) / 25, atol=1e-9)
        assert clip.labels.shape == (FRAMES, 2)
        for column, dimension in enumerate(("valence", "arousal")):
            lines = gold(sound_corpus, name, dimension, "csv").read_text().splitlines()[1:]
            values = [float(line.split(";")[1]) for line in lines]
            assert len(values) == FRAMES + 1
            np.testing.assert_array_equal(clip.labels[:, column], np.float32(values[:FRAMES]))
        assert clip.crops.name == clip.video.stem == clip.audio.stem == clip.transcript.stem == name
    files = {path.relative_to(sound_corpus).parts[0] for path in source_files(sound_corpus)}
    assert files == {GOLD, RATERS, "recordings_video", "recordings_audio", "cropped_aligned", "transcripts"}


def test_arff_and_csv_agree_exactly_and_either_will_do(root):
    both_kinds = inspect(root)["clips"]
    findings = []
    for dimension in ("valence", "arousal"):
        first, second = (read_ratings(gold(root, "dev_1", dimension, kind), root, findings) for kind in ("arff", "csv"))
        np.testing.assert_array_equal(first.values, second.values)
        assert first.columns == second.columns == ("GoldStandard",)
    assert findings == []
    for path in (root / GOLD).rglob("*.arff"):
        path.unlink()
    for name, clip in inspect(root)["clips"].items():
        np.testing.assert_array_equal(clip.labels, both_kinds[name].labels)


@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
def test_separators_are_seen_and_decimal_commas_too(root, delimiter):
    path = gold(root, kind="csv")
    before = read_ratings(path, root, []).values
    text = path.read_text()
    path.write_text("\ufeff" + text.replace(";", delimiter).replace("\n", "\r\n"))
    np.testing.assert_array_equal(read_ratings(path, root, []).values, before)
    if delimiter == ";":
        path.write_text(text.replace(".", ","))
        np.testing.assert_array_equal(read_ratings(path, root, []).values, before)


def naive_gold(ratings):
    """The formula of AVEC 2016, rater by rater and pair by pair."""
    frames, raters = ratings.shape
    means = [sum(ratings[:, r]) / frames for r in range(raters)]

    def concordance(a, b):
        x, y = ratings[:, a], ratings[:, b]
        covariance = sum((p - means[a]) * (q - means[b]) for p, q in zip(x, y, strict=True)) / frames
        variances = [sum((p - means[r]) ** 2 for p in ratings[:, r]) / frames for r in (a, b)]
        return 2 * covariance / (sum(variances) + (means[a] - means[b]) ** 2)

    agreement = [sum(concordance(r, s) for s in range(raters) if s != r) / (raters - 1) for r in range(raters)]
    level = sum(a * m for a, m in zip(agreement, means, strict=True)) / sum(agreement)
    return [sum(ratings[t, r] - means[r] + level for r in range(raters)) / raters for t in range(frames)], agreement


def panel(seed, raters=6, frames=80):
    """Raters who rate one thing, each in a way of their own; float64 [frames, raters]."""
    rng = np.random.default_rng(seed)
    aim = np.sin(np.arange(frames) / 9 + rng.uniform(0, 6)) * 0.5
    return np.stack(
        [rng.uniform(0.5, 1) * aim + rng.normal(0, 0.1) + 0.05 * rng.standard_normal(frames) for _ in range(raters)], 1
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("raters", [2, 3, 6])
def test_gold_standard_is_the_formula(seed, raters):
    ratings = panel(seed, raters)
    made = gold_standard(ratings)
    values, agreement = naive_gold(ratings)
    np.testing.assert_allclose(made.values, values, atol=1e-12)
    np.testing.assert_allclose(made.agreement, agreement, atol=1e-12)
    assert made.weighted
    # The one function of the project that scores predictions measures the same agreement.
    everywhere = np.ones(len(ratings), bool)
    pairs = [ccc(ratings[:, 0], ratings[:, s], everywhere) for s in range(1, raters)]
    assert np.mean(pairs) == pytest.approx(agreement[0], abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), offset=st.floats(-1, 1), rater=st.integers(0, 5), order=st.permutations(range(6)))
def test_gold_standard_keeps_its_shape_whoever_rates_higher(seed, offset, rater, order):
    ratings = panel(seed)
    made = gold_standard(ratings)
    shape = made.values - made.values.mean()
    means = ratings.mean(0)
    assert means.min() - 1e-9 <= made.values.mean() <= means.max() + 1e-9
    # In any order of the raters.
    np.testing.assert_allclose(gold_standard(ratings[:, order]).values, made.values, atol=1e-12)
    # One rater's constant offset moves the level and nothing else.
    moved = ratings.copy()
    moved[:, rater] += offset
    again = gold_standard(moved).values
    np.testing.assert_allclose(again - again.mean(), shape, atol=1e-9)
    # All raters' common offset moves it by just that.
    np.testing.assert_allclose(gold_standard(ratings + offset).values, made.values + offset, atol=1e-9)
    # Each rater twice: no news, so the shape stays and the level stays among theirs.
    doubled = gold_standard(np.repeat(ratings, 2, axis=1)).values
    np.testing.assert_allclose(doubled - doubled.mean(), shape, atol=1e-9)
    # Six times the same rater is that rater.
    np.testing.assert_allclose(gold_standard(np.repeat(ratings[:, :1], 6, axis=1)).values, ratings[:, 0], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=st.floats(-1, 1, width=32)))
def test_gold_standard_is_a_number_near_the_raters_whatever_they_write(ratings):
    made = gold_standard(ratings)
    means = ratings.mean(0)
    assert np.isfinite(made.values).all()
    assert means.min() - 1e-6 <= made.level <= means.max() + 1e-6


def test_raters_who_contradict_each_other_are_averaged():
    up = np.linspace(-0.9, 0.9, 50)
    made = gold_standard(np.stack([up + 0.1, -up], axis=1))
    assert not made.weighted
    np.testing.assert_allclose(made.values, 0.05, atol=1e-12)
    with pytest.raises(ValueError, match="frames x raters"):
        gold_standard(up)


def test_raters_alone_make_the_owners_gold_standard(root):
    given_labels = {name: clip.labels for name, clip in inspect(root)["clips"].items()}
    only_raters(root)
    seen = inspect(root)
    assert seen["errors"] == []
    note = next(f for f in seen["warnings"] if f.rule == "gold-standard")
    assert "4 recordings" in note.problem
    assert "AVEC 2016" in note.remedy
    assert seen["origin"]["labels"].startswith("from the raters")
    for name, clip in seen["clips"].items():
        # Their files are written with six digits, and the raters' with four.
        np.testing.assert_allclose(clip.labels, given_labels[name], atol=2e-6)


def test_a_missing_rater_is_named_and_the_others_are_used(root):
    only_raters(root)
    path = root / RATERS / "arousal" / "train_3.csv"
    six = read_ratings(path, root, []).values
    rewrite(path, lambda lines: [";".join(line.split(";")[:3] + line.split(";")[4:]) for line in lines])
    seen = inspect(root)
    assert [(f.file, f.severity) for f in seen["warnings"] if f.rule == "rater-missing"] == [
        (f"{RATERS}/arousal/train_3.csv", "warning")
    ]
    assert "5 of 6 raters: without FM3" in next(f.problem for f in seen["warnings"] if f.rule == "rater-missing")
    five = gold_standard(np.delete(six, 2, axis=1)).values[:FRAMES]
    np.testing.assert_allclose(seen["clips"]["train_3"].labels[:, 1], five, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(shift=st.floats(0, 3), rate=st.sampled_from([23.976, 25.0, 29.97, 30.0, 50.0]), frames=st.integers(1, 120))
def test_a_shift_moves_labels_by_whole_labels(shift, rate, frames):
    grid = np.random.default_rng(0).uniform(-1, 1, (150, 2))
    times = np.arange(frames) / rate
    rows = RecolaOptions(label_shift=shift).rows()
    assert rows == (round(shift * RATE),) * 2
    shifted = labels_at(grid, times, rows)
    # What the frame takes is what a frame so much later took.
    np.testing.assert_array_equal(shifted, labels_at(grid, times + rows[0] / RATE, (0, 0)))
    if rate == 25.0:
        expected = np.full((frames, 2), UNLABELLED, np.float32)
        there = grid[rows[0] : rows[0] + frames]
        expected[: len(there)] = there
        np.testing.assert_array_equal(shifted, expected)


def test_the_shift_is_in_the_store_and_in_its_hash(root, tmp_path):
    plain = {name: clip.labels for name, clip in inspect(root)["clips"].items()}
    seen = inspect(root, label_shift=0.4, label_shift_arousal=0.72)
    assert seen["origin"]["label_shift"] == "valence 0.4 s (10 labels), arousal 0.72 s (18 labels)"
    for name, clip in seen["clips"].items():
        # There is one label more than frames.
        np.testing.assert_array_equal(clip.labels[: FRAMES - 10, 0], plain[name][10:, 0])
        np.testing.assert_array_equal(clip.labels[: FRAMES - 18, 1], plain[name][18:, 1])
        assert (clip.labels[FRAMES - 9 :, 0] == UNLABELLED).all()
        assert (clip.labels[FRAMES - 17 :, 1] == UNLABELLED).all()
    workspace = Workspace(tmp_path / "ws")
    first = prepare(workspace, "recola", root, processes=1)
    second = prepare(workspace, "recola", root, Preparation(options={"label_shift": 0.4}), processes=1)
    assert first != second
    assert prepare(workspace, "recola", root, Preparation(options={"label_shift": 0.4})) == second
    store = FeatureStore(second)
    assert json.loads((second / "manifest.json").read_text())["origin"]["label_shift"].startswith("valence 0.4 s")
    assert store.folds[0].train == ("train_1", "train_3", "train_4")
    assert store.folds[0].validation == ("dev_1",)


@pytest.mark.parametrize(
    ("corpus", "options", "says"),
    [
        ("recola", {"label_shfit": 1}, "did you mean 'label_shift'"),
        ("recola", {"label_shift": -1}, "label_shift = -1"),
        ("recola", {"label_shift": "soon"}, "label_shift = 'soon'"),
        ("affwild2", {"label_shift": 1}, "no options"),
    ],
)
def test_wrong_options_are_refused(sound_corpus, corpus, options, says):
    with pytest.raises(UserError, match=says):
        CORPORA.get(corpus).read(sound_corpus, deep=False, options=options)


def test_frames_of_any_rate_take_the_label_that_holds():
    grid = np.arange(40, dtype=float)[:, None] / 100
    for rate, expected in ((50, [0, 0, 1, 1, 2, 2]), (12.5, [0, 2, 4, 6]), (25, [0, 1, 2, 3])):
        labels = labels_at(grid, np.arange(len(expected)) / rate, (0,))
        np.testing.assert_allclose(labels[:, 0] * 100, expected, atol=1e-5)
    # Time stamps rounded to milliseconds change nothing.
    times = np.arange(40) / 25
    for error in (-0.009, 0.009):
        np.testing.assert_array_equal(labels_at(grid, times + error, (0,)), labels_at(grid, times, (0,)))


def test_participants_need_to_be_told_apart(root):
    for path in [path for path in root.rglob("*") if path.stem in ("train_1", "dev_1")]:
        path.rename(path.with_name(path.name.replace("train_1", "P16").replace("dev_1", "P41")))
    seen = inspect(root)
    assert [(f.file, f.rule) for f in seen["errors"] if f.rule == "partition-known"] == [(".", "partition-known")]
    assert "P16, P41" in seen["errors"][0].problem
    (root / "partitions.csv").write_text("recording,partition\nP16,train\nP41,dev\n")
    seen = inspect(root)
    assert seen["errors"] == []
    assert {name: clip.info.partition for name, clip in seen["clips"].items()} == {
        "P16": "train",
        "P41": "validation",
        "train_3": "train",
        "train_4": "train",
    }
    (root / "partitions.csv").write_text("Recording\tPartition\nP16\ttrain\nP41\tdev\n", encoding="utf-16")
    assert inspect(root)["errors"] == []
    (root / "partitions.csv").write_text("recording,partition\nP16,trian\nP41,dev\n")
    assert [f.file for f in inspect(root)["errors"]] == ["partitions.csv"]


@pytest.mark.parametrize(
    ("encoding", "part", "header", "unit"),
    [
        ("utf-16", "\t", "Instance_name,frameTime,GoldStandard", 1),
        ("utf-8", "|", "Time (ms),GoldStandard", 1000),
        ("utf-8", " ", "frameTime,GoldStandard", 1),
        ("utf-8-sig", ";", "timestamp,GoldStandard,confidence", 1),
    ],
)
def test_ratings_under_the_names_of_other_tools_are_the_same(root, encoding, part, header, unit):
    expected = inspect(root)["clips"]["train_1"].labels
    for path in (root / "ratings_gold_standard").rglob("train_1.arff"):
        path.unlink()
    for path in (root / "ratings_gold_standard").rglob("train_1.csv"):
        rows = [line.split(";") for line in path.read_text().splitlines()[1:]]
        cells = {"Instance_name": "train_1", "confidence": "1"}
        lines = [header.split(",")]
        for time, value in rows:
            place = f"{float(time) * unit:g}"
            lines.append([cells.get(name, value if name == "GoldStandard" else place) for name in lines[0]])
        path.write_text("\n".join(part.join(line) for line in lines), encoding=encoding)
    seen = inspect(root)
    assert seen["errors"] == []
    np.testing.assert_allclose(seen["clips"]["train_1"].labels, expected, atol=1e-3)


DAMAGE = {
    "no ratings": (lambda r: [shutil.rmtree(r / GOLD), shutil.rmtree(r / RATERS)], ".", "annotations-there"),
    "no dev part": (lambda r: [path.unlink() for path in r.rglob("dev_1.*")], ".", "partition-there"),
    "no videos": (lambda r: shutil.rmtree(r / "recordings_video"), ".", "video-there"),
    "no video": (lambda r: (r / "recordings_video/train_1.mp4").unlink(), "train_1.arff", "video-there"),
    "cut mp4": (lambda r: truncate(r / "recordings_video/train_1.mp4"), "train_1.mp4", "video-readable"),
    "two videos": (
        lambda r: (r / "copy").mkdir() or (r / "copy/train_1.avi").write_bytes(b"another"),
        "train_1.avi",
        "video-once",
    ),
    "video without ratings": (
        lambda r: shutil.copy(r / "recordings_video/train_1.mp4", r / "recordings_video/train_9.mp4"),
        "train_9.mp4",
        "label-there",
    ),
    "cut wav": (lambda r: truncate(r / "recordings_audio/train_1.wav"), "train_1.wav", "sound-readable"),
    "no wav and a mute video": (lambda r: mute(r), "train_1.mp4", "sound-there"),
    "sound of another length": (lambda r: shorten_wav(r), "train_1.wav", "sound-length"),
    "no crop folder": (lambda r: shutil.rmtree(r / "cropped_aligned/train_1"), "train_1.arff", "crops-there"),
    "crops beyond the video": (
        lambda r: shutil.copy(r / "cropped_aligned/train_1/00001.jpg", r / "cropped_aligned/train_1/00099.jpg"),
        "cropped_aligned/train_1",
        "crops-within-clip",
    ),
    "cut jpg": (lambda r: truncate(r / "cropped_aligned/train_1/00007.jpg"), "00007.jpg", "crop-readable"),
    "no valence": (
        lambda r: [p.unlink() for p in (gold(r), gold(r, kind="csv"), r / RATERS / "valence/train_1.csv")],
        "arousal/train_1.arff",
        "label-there",
    ),
    "arff empty": (lambda r: gold(r).write_text(""), "valence/train_1.arff", "table-empty"),
    "arff without rows": (lambda r: rewrite(gold(r), lambda ls: ls[:8]), "train_1.arff", "table-empty"),
    "arff without data": (lambda r: rewrite(gold(r), lambda ls: ls[:5]), "train_1.arff", "table-readable"),
    "arff is html": (lambda r: gold(r).write_text("<html>login</html>"), "train_1.arff", "table-readable"),
    "arff is binary": (lambda r: gold(r).write_bytes(b"\xff\xfe\x00\x81" * 40), "train_1.arff", "table-encoding"),
    "arff without time": (
        lambda r: rewrite(gold(r), lambda ls: [line for line in ls if "frameTime" not in line]),
        "train_1.arff",
        "table-row",
    ),
    "arff sparse": (lambda r: rewrite(gold(r), put(9, "{0 train_1, 2 0.4}")), "train_1.arff", "label-time-twice"),
    "arff row cut": (lambda r: rewrite(gold(r), put(12, "'train_1',0.16")), "train_1.arff", "table-row"),
    "nan": (lambda r: rewrite(gold(r), put(12, "'train_1',0.16,nan")), "train_1.arff", "label-number"),
    "infinite": (lambda r: rewrite(gold(r), put(12, "'train_1',0.16,1e999")), "train_1.arff", "label-number"),
    "a word": (lambda r: rewrite(gold(r), put(12, "'train_1',0.16,high")), "train_1.arff", "table-row"),
    "time missing": (lambda r: rewrite(gold(r), put(12, "'train_1',?,0.1")), "train_1.arff", "label-number"),
    "out of range": (lambda r: rewrite(gold(r), put(12, "'train_1',0.16,1.2")), "train_1.arff", "label-range"),
    "unlabelled as -5": (lambda r: rewrite(gold(r), put(12, "'train_1',0.16,-5")), "train_1.arff", "label-range"),
    "time twice": (
        lambda r: rewrite(gold(r), lambda ls: [*ls[:12], ls[11], *ls[12:]]),
        "train_1.arff",
        "label-time-twice",
    ),
    "times unsorted": (
        lambda r: rewrite(gold(r), lambda ls: [*ls[:12], ls[13], ls[12], *ls[14:]]),
        "train_1.arff",
        "label-time-order",
    ),
    "times at 100 Hz": (
        lambda r: rewrite(gold(r, kind="csv"), lambda ls: [ls[0], *(f"{k / 100:.2f};0.1" for k in range(200))]),
        "train_1.csv",
        "label-rate",
    ),
    "times in milliseconds": (
        lambda r: rewrite(gold(r, kind="csv"), lambda ls: [ls[0], *(f"{40 * k};0.1" for k in range(51))]),
        "train_1.csv",
        "label-rate",
    ),
    "a time of next year": (lambda r: rewrite(gold(r), put(12, "'train_1',4e7,0.1")), "train_1.arff", "label-rate"),
    "a negative time": (lambda r: rewrite(gold(r), put(8, "'train_1',-0.04,0.1")), "train_1.arff", "label-rate"),
    "wrong separator": (
        lambda r: gold(r, kind="csv").write_text(gold(r, kind="csv").read_text().replace(";", ":")),
        "train_1.csv",
        "label-format",
    ),
    "csv without header": (lambda r: rewrite(gold(r, kind="csv"), lambda ls: ls[1:]), "train_1.csv", "table-header"),
    "csv of raters as gold": (
        lambda r: shutil.copy(r / RATERS / "valence/train_1.csv", gold(r, kind="csv")),
        "train_1.csv",
        "label-format",
    ),
    "csv differs from arff": (
        lambda r: rewrite(gold(r, kind="csv"), put(5, "0.16;0.9")),
        "train_1.arff",
        "label-agree",
    ),
    "csv shorter than arff": (
        lambda r: rewrite(gold(r, kind="csv"), lambda ls: ls[:-9]),
        "train_1.arff",
        "label-agree",
    ),
    "valence much shorter": (lambda r: both(r, lambda ls: ls[:20]), "train_1.arff", "label-rows"),
    "labels of a longer video": (lambda r: lengthen(r), "train_1.arff", "label-length"),
    "labels of a shorter video": (
        lambda r: [both(r, lambda ls: ls[:20], d) for d in ("valence", "arousal")],
        "train_1.arff",
        "label-length",
    ),
    "a damaged transcript": (
        lambda r: (r / "transcripts/train_1.json").write_text("{"),
        "transcripts/train_1.json",
        "transcript-readable",
    ),
}


def mute(root):
    """Takes the wav away, and writes the video again without sound."""
    import av

    (root / "recordings_audio/train_1.wav").unlink()
    path = root / "recordings_video/train_1.mp4"
    with av.open(str(path)) as source, av.open(str(path.with_name("mute.mp4")), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    path.with_name("mute.mp4").rename(path)


def shorten_wav(root):
    import wave

    path = root / "recordings_audio/train_1.wav"
    with wave.open(str(path)) as source:
        kind, data = source.getparams(), source.readframes(8_000)
    with wave.open(str(path), "wb") as target:
        target.setparams(kind)
        target.writeframes(data)


def lengthen(root):
    for dimension in ("valence", "arousal"):
        for kind, head in (("arff", "'train_1',"), ("csv", "")):
            delimiter = "," if kind == "arff" else ";"
            more = [f"{head}{k / 25:.2f}{delimiter}0.1" for k in range(FRAMES + 1, FRAMES + 60)]
            rewrite(gold(root, dimension=dimension, kind=kind), lambda ls, m=more: ls + m)


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_is_named_with_file_rule_and_remedy(root, name):
    damage, file, rule = DAMAGE[name]
    damage(root)
    found = inspect(root)["errors"]
    assert [(f.file.endswith(file), f.rule) for f in found] == [(True, rule)], found
    assert_readable(found, root)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(DAMAGE)), min_size=2, max_size=5, unique=True))
def test_damages_together_are_findings_too(sound_corpus, names):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(sound_corpus, Path(folder) / "data"))
        for name in names:
            # One damage may have taken away what the next one is about.
            with contextlib.suppress(OSError, IndexError):
                DAMAGE[name][0](root)
        seen = inspect(root)
        assert seen["errors"]
        assert all(clip.info.frames == FRAMES == len(clip.labels) for clip in seen["clips"].values())


HARMLESS = {
    "a gap": (lambda r: both(r, lambda ls: ls[:10] + ls[20:]), "label-gap", "0.4 s to 0.8 s"),
    "empty cells": (
        lambda r: [rewrite(gold(r), put(12, "'train_1',0.16,?")), rewrite(gold(r, kind="csv"), put(5, "0.16;"))],
        "label-gap",
        "0.16 s to 0.2 s",
    ),
    "begins late": (lambda r: both(r, lambda ls: ls[3:]), "label-gap", "0 s to 0.12 s"),
    "ends a little early": (lambda r: both(r, lambda ls: ls[:-6]), "label-rows", "valence ends at 1.80 s"),
    "no wav": (lambda r: (r / "recordings_audio/train_1.wav").unlink(), "sound-there", "no wav file"),
    "no crops at all": (lambda r: shutil.rmtree(r / "cropped_aligned"), "crops-there", "no face crops"),
    "two crop folders": (
        lambda r: shutil.copytree(r / "cropped_aligned/train_1", r / "cropped_aligned_new/train_1"),
        "crops-once",
        "cropped_aligned_new/train_1",
    ),
    "features": (lambda r: (r / "features_audio").mkdir(), "ignored", "physiology or features"),
    "all in one": (lambda r: shutil.copy(gold(r), gold(r, "train_all")), "label-name", "like no recording"),
    "withheld test part": (
        lambda r: shutil.copy(r / "recordings_video/train_1.mp4", r / "recordings_video/test_1.mp4"),
        "label-there",
        "withheld",
    ),
    "a rater who left": (lambda r: [only_raters(r), empty_cell(r)], "rater-gap", "at 0.16 s"),
}


def empty_cell(root):
    rewrite(root / RATERS / "valence/train_1.csv", lambda ls: put(5, ls[5].rpartition(";")[0] + ";")(ls))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_is_said_and_the_clips_are_kept(root, name):
    damage, rule, says = HARMLESS[name]
    damage(root)
    seen = inspect(root)
    assert seen["errors"] == []
    assert len(seen["clips"]) == 4
    assert any(says in finding.problem for finding in seen["warnings"] if finding.rule == rule), seen["warnings"]


def test_gaps_are_unlabelled_where_they_are_and_nothing_moves(root):
    before = inspect(root)["clips"]["train_1"].labels
    both(root, lambda lines: lines[:10] + lines[20:])
    after = inspect(root)["clips"]["train_1"].labels
    assert np.flatnonzero(after[:, 0] == UNLABELLED).tolist() == list(range(10, 20))
    kept = np.delete(np.arange(FRAMES), np.arange(10, 20))
    np.testing.assert_array_equal(after[kept, 0], before[kept, 0])
    np.testing.assert_array_equal(after[:, 1], before[:, 1])


def test_everything_is_said_at_once(root, tmp_path):
    truncate(root / "recordings_video/train_1.mp4")
    (root / "recordings_video/train_3.mp4").unlink()
    rewrite(gold(root, "train_4"), put(12, "'train_4',0.16,7"))
    rewrite(gold(root, "dev_1", "arousal", "csv"), put(5, "0.16;nan"))
    truncate(root / "recordings_audio/dev_1.wav")
    truncate(root / "cropped_aligned/train_4/00002.jpg", 0.3)
    assert sorted(f.rule for f in inspect(root)["errors"]) == [
        "crop-readable",
        "label-number",
        "label-range",
        "sound-readable",
        "video-readable",
        "video-there",
    ]
    with pytest.raises(DataError, match="6 things are wrong") as error:
        prepare(Workspace(tmp_path / "ws"), "recola", root, processes=1)
    assert "dev_1.wav" in str(error.value)
    assert not (tmp_path / "ws" / "stores").exists()


def test_the_owners_other_layout_is_found_too(tmp_path, sound_corpus):
    """The full RECOLA: annotations by participant, six raters and no gold standard."""
    names = {"train_1": "P16", "train_3": "P17", "train_4": "P19", "dev_1": "P41"}
    ratings = tmp_path / "RECOLA-Annotation" / "emotional_behaviour"
    for key, name in names.items():
        for dimension in ("arousal", "valence"):
            (ratings / dimension).mkdir(parents=True, exist_ok=True)
            shutil.copy(sound_corpus / RATERS / dimension / f"{key}.csv", ratings / dimension / f"{name}.csv")
        for source, target in (
            (f"recordings_video/{key}.mp4", f"RECOLA-Video-recordings/{name}.mp4"),
            (f"recordings_audio/{key}.wav", f"RECOLA-Audio-recordings/{name}.wav"),
            (f"recordings_physio/{key}.csv", f"RECOLA-Biosignals-recordings/{name}.csv"),
        ):
            (tmp_path / target).parent.mkdir(exist_ok=True)
            shutil.copy(sound_corpus / source, tmp_path / target)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "partitions.csv").write_text(
        "recording,partition\n" + "".join(f"{name},{key.split('_')[0]}\n" for key, name in names.items())
    )
    seen = inspect(tmp_path)
    assert seen["errors"] == []
    # In two seconds raters may well have nothing in common but their habits.
    said = {f.rule for f in seen["warnings"]} - {"rater-agreement"}
    assert said == {"crops-there", "gold-standard", "ignored", "partition-official"}
    assert sorted(seen["clips"]) == ["P16", "P17", "P19", "P41"]
    reference = inspect(sound_corpus)["clips"]
    for key, name in names.items():
        np.testing.assert_allclose(seen["clips"][name].labels, reference[key].labels, atol=2e-6)


TEXT = st.text(st.sampled_from("@datribuelon{}%'\";,.0123456789e-+?\n\t \x00\u00e9"), max_size=200)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=TEXT, kind=st.sampled_from(["arff", "csv"]), headed=st.booleans())
def test_no_text_is_too_strange(tmp_path, body, kind, headed):
    head = {"arff": "@attribute frameTime numeric\n@attribute GoldStandard real\n@data\n", "csv": "time;gold\n"}[kind]
    path = tmp_path / f"train_1.{kind}"
    path.write_text((head if headed else "") + body, encoding="utf-8", newline="")
    findings = []
    ratings = read_ratings(path, tmp_path, findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    assert (ratings is None) == bool(errors)
    if ratings is not None:
        assert np.isfinite(ratings.values).any()
        assert (np.isnan(ratings.values) | (np.abs(ratings.values) <= 1)).all()
