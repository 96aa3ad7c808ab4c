"""From words with times to one row of features a frame.

A word's features stand on the frames that are shown while it is said, start <= time < end; all other frames are zero.
A frame counts as present where a word stands on it: so the statistics of the normalisation are those of
words, and frames without a word are zero after it too. Of the releases' habits this drops one: there a sentence mark
got a second of its own after the last word.

W words, T frames, D widths of the features.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from crossfold.datasets.media.transcripts import Word

TEXT_FRONT_END = {"kind": "words-on-frames", "version": 1}
"""Everything the placing of words depends on, for the store's manifest."""
SENTENCE_MARKS = ".?!…。？！"
_ROUNDING_SECONDS = 0.0005  # half of the millisecond to which transcripts are rounded


class WordEncoder(Protocol):
    """Turns words in their context into features."""

    @property
    def width(self) -> int:
        """D."""
        ...

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """float32 [W, D] of the words of one recording in order, sentence marks attached."""
        ...


Punctuate = Callable[[Sequence[str]], list[str]]
"""Restores the sentence marks that recognisers leave out: the same words in the same order, `home` -> `home.`"""


def text_features(words: Sequence[Word], times: np.ndarray, encoder: WordEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [T, D] and bool [T], where a word is, of frames shown at `times` [T], seconds.

    Words are encoded with all of the recording around them, also those that no frame shows.
    """
    features = np.zeros((len(times), encoder.width), np.float32)
    ordered = sorted(words, key=lambda word: (word.start, word.end))
    owner = words_on_frames(ordered, times)
    present = owner >= 0
    if ordered and present.any():
        encoded = encoder.encode([word.text for word in ordered])  # all words: the context counts, too
        features[present] = encoded[owner[present]]
    return features, present


def words_on_frames(words: Sequence[Word], times: np.ndarray) -> np.ndarray:
    """int64 [T]: index of the word that is said when each frame is shown, -1 where none is.

    Where words overlap, the one that began last has the frame. A word so short that it is over before the next frame
    has the frame in which it is said, if no other word has it. Transcripts are rounded to milliseconds, so half of
    one is forgiven.
    """
    owner = np.full(len(times), -1, np.int64)
    if not len(times):
        return owner
    shown = np.asarray(times, np.float64) + _ROUNDING_SECONDS
    order = sorted(range(len(words)), key=lambda index: (words[index].start, words[index].end))
    first = {index: int(np.searchsorted(shown, words[index].start)) for index in order}
    last = {index: int(np.searchsorted(shown, words[index].end)) for index in order}
    for index in order:
        owner[first[index] : last[index]] = index  # later words overwrite earlier ones
    # A word after the last frame began is said in it, as far as a frame lasts.
    frame_seconds = float(np.median(np.diff(shown))) if len(shown) > 1 else 0.0
    for index in order:
        frame = first[index] - 1
        free = first[index] == last[index] and frame >= 0 and owner[frame] < 0
        if free and words[index].start < shown[frame] + frame_seconds:
            owner[frame] = index
    return owner


def sentences(words: Sequence[str]) -> list[range]:
    """The sentences of a transcript as ranges of word indices: each ends with a word that carries a sentence mark.

    A transcript without marks is one sentence.
    """
    ends = [index + 1 for index, word in enumerate(words) if word.rstrip("\"'”’)»").endswith(tuple(SENTENCE_MARKS))]
    if not ends or ends[-1] < len(words):
        ends.append(len(words))  # what follows the last mark is a sentence, too
    starts = [0, *ends[:-1]]
    return [range(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def punctuated(words: Sequence[Word], punctuate: Punctuate) -> tuple[Word, ...]:
    """Words with sentence marks, at the times they had.

    Raises `ValueError` where `punctuate` lost or changed a word.
    """
    marked = punctuate([word.text for word in words])
    if len(marked) != len(words):
        raise ValueError(f"punctuation turned {len(words)} words into {len(marked)}")
    for word, text in zip(words, marked, strict=True):
        if not text.casefold().startswith(word.text.casefold()):
            raise ValueError(f"punctuation turned {word.text!r} into {text!r}; it may only add marks")
    return tuple(Word(text, word.start, word.end) for word, text in zip(words, marked, strict=True))
