"""Where the words of a clip come from, by the name of a text extractor.

`bert` takes transcripts as they are. `vosk+bert` listens to the clips that have none, and `+punctuation` restores the
sentence marks of transcripts without any; `vosk+bert+punctuation` is what 002 did.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossfold.datasets.corpora.clips import MediaClip
from crossfold.datasets.media.transcripts import Word
from crossfold.platform.features import punctuation, speech_recognition
from crossfold.platform.modeling.pretrained_files import find_weights, weights_facts

_MODELS = {
    "vosk": ("vosk-en-us", speech_recognition.FRONT_END),
    "punctuation": ("punctuation", punctuation.FRONT_END),
}
"""What a part of an extractor's name needs: its weights, and its constants."""


def words_facts(extractor: str, folder: Path, device: str = "cpu") -> dict[str, Any]:
    """What the manifest says of the models that make the words; each is loaded once, so that trouble shows early.

    Raises `UserError` where a package or a model is missing.
    """
    facts: dict[str, Any] = {}
    for part in _parts(extractor):
        name, constants = _MODELS[part]
        facts[part] = dict(constants) | {"weights": weights_facts(name, folder)}
        (_listener(folder) if part == "vosk" else _punctuation(folder, device))
    return facts


def clip_words(clip: MediaClip, extractor: str, folder: Path, kept: Path, device: str = "cpu") -> tuple[Word, ...]:
    """The words of a clip as a text extractor wants them; none where there is no transcript and nobody listens.

    kept: where a transcript of what was heard stays until the store is there.
    """
    parts = _parts(extractor)
    words = speech_recognition.words_of(
        clip,
        kept,
        recogniser=_listener(folder) if "vosk" in parts else None,
        punctuate=_punctuation(folder, device) if "punctuation" in parts else None,
    )
    return words or ()


def _parts(extractor: str) -> list[str]:
    return [part for part in extractor.split("+") if part in _MODELS]


@functools.lru_cache(maxsize=1)
def _listener(folder: Path) -> Callable[[], speech_recognition.Recogniser]:
    return speech_recognition.open_vosk(find_weights(_MODELS["vosk"][0], folder))


@functools.lru_cache(maxsize=1)
def _punctuation(folder: Path, device: str) -> punctuation.TokenPunctuation:
    return punctuation.TokenPunctuation.load(find_weights(_MODELS["punctuation"][0], folder), device)
