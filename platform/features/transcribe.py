"""Where the words of a clip come from, by the name of a text extractor.

`bert` takes transcripts as they are. `vosk+bert` listens to the clips that have none, and `+punctuation` restores the
sentence marks of transcripts without any; `vosk+bert+punctuation` is what 002 did.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crossfold.datasets.corpora.clips import MediaClip
from crossfold.datasets.media.sound import read_sound
from crossfold.datasets.media.transcripts import Word, read_transcript, write_transcript
from crossfold.datasets.media.word_features import (
    SENTENCE_MARKS,
    Punctuate,
    WordEncoder,
    punctuated,
    text_features,
)
from crossfold.platform.features import punctuation, speech_recognition
from crossfold.platform.features.speech_recognition import Recogniser, open_vosk, recognise
from crossfold.platform.modeling.pretrained_files import find_weights, weights_facts

_MODELS = {"vosk": ("vosk-en-us", speech_recognition.FRONT_END), "punctuation": ("punctuation", punctuation.FRONT_END)}
"""What a part of an extractor's name needs: its weights, and its constants."""


def words_facts(extractor: str, folder: Path, device: str = "cpu") -> dict[str, Any]:
    """What the manifest says of the models that make the words; each is loaded once, so that errors show early.

    Raises `UserError` where a package or a model is missing.
    """
    facts: dict[str, Any] = {}
    for part in _parts(extractor):
        name, constants = _MODELS[part]
        facts[part] = dict(constants) | {"weights": weights_facts(name, folder)}
        (_listener(folder) if part == "vosk" else _punctuation(folder, device))
    return facts


def clip_words(clip: MediaClip, extractor: str, folder: Path, kept: Path, device: str = "cpu") -> tuple[Word, ...]:
    """The words of a clip as a text extractor takes them, with the models of `folder`; otherwise as `words_of`."""
    parts = _parts(extractor)
    return words_of(
        clip,
        kept,
        recogniser=_listener(folder) if "vosk" in parts else None,
        punctuate=_punctuation(folder, device) if "punctuation" in parts else None,
    )


def clip_text(
    clip: MediaClip,
    extractor: str,
    folder: Path,
    kept: Path,
    times: np.ndarray,
    encoder: WordEncoder,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the words of a clip on frames shown at `times`, as `text_features` gives them, from one thread."""
    from crossfold.platform.modeling.determinism import one_thread

    with one_thread():
        return text_features(clip_words(clip, extractor, folder, kept, device), times, encoder)


def words_of(
    clip: MediaClip,
    kept: Path,
    *,
    recogniser: Callable[[], Recogniser] | None = None,
    punctuate: Punctuate | None = None,
) -> tuple[Word, ...]:
    """Words of a clip: of its transcript, else recognised in its sound; none where it has neither.

    kept: where the transcript of what was recognised is written, or is already, so that a run that was stopped does not
    listen twice. Sentence marks are restored where a transcript has none at all.
    """
    source = clip.transcript
    if source is None and clip.audio is not None and recogniser is not None:
        source = kept
        if not kept.is_file():
            sound = read_sound(clip.audio)
            # A file without a sound track has no words.
            write_transcript(kept, recognise(sound, recogniser()) if sound is not None else ())
    words = read_transcript(source) if source is not None else ()
    if punctuate is None or any(word.text.endswith(tuple(SENTENCE_MARKS)) for word in words):
        return words
    return punctuated(words, punctuate)


def _parts(extractor: str) -> list[str]:
    return [part for part in extractor.split("+") if part in _MODELS]


@functools.lru_cache(maxsize=1)
def _listener(folder: Path) -> Callable[[], Recogniser]:
    return open_vosk(find_weights(_MODELS["vosk"][0], folder))


@functools.lru_cache(maxsize=1)
def _punctuation(folder: Path, device: str) -> punctuation.TokenPunctuation:
    return punctuation.TokenPunctuation.load(find_weights(_MODELS["punctuation"][0], folder), device)
