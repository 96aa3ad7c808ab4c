"""Sentence marks for the words of a recogniser, by a model that labels each word with the mark that follows it.

002 uses deepmultilingualpunctuation, whose model (oliverguhr/fullstop-punctuation-multilang-large) is a token
classifier: `0`, `.`, `,`, `?`, `-`, `:`. Any such model of transformers will do; it is read from a local folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossfold.platform.core.errors import UserError
from crossfold.platform.features.bert import load_local

FRONT_END = {"kind": "token-classification", "version": 1}
"""Everything the marks depend on besides words and weights, for the store's manifest."""
MARKS = frozenset(".,?!:;-")
_WORDS_AT_ONCE = 200
_CONTEXT = 20


@dataclass(frozen=True)
class TokenPunctuation:
    """A `Punctuate` (datasets/media/word_features.py): the mark of a word is the label of its last piece.

    Long transcripts go through the model in stretches, each with the words before and after it as context.
    """

    model: Any
    tokenizer: Any
    device: str = "cpu"

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "TokenPunctuation":
        """Raises `UserError` where a file is missing, or the model labels something else than sentence marks."""
        model, tokenizer = load_local(folder, "AutoModelForTokenClassification", "a punctuation model")
        labels = {str(label) for label in model.config.id2label.values()}
        if not labels & set(".?!"):
            raise UserError(
                f"{folder} labels words {', '.join(sorted(labels))}, none of which ends a sentence",
                "give a model that restores punctuation, such as fullstop-punctuation-multilang-large",
            )
        return cls(model.eval().to(device), tokenizer, device)

    def __call__(self, words: Sequence[str]) -> list[str]:
        """The words with marks attached; words that carry a mark already keep it."""
        marked: list[str] = []
        for begin in range(0, len(words), _WORDS_AT_ONCE):
            end = min(begin + _WORDS_AT_ONCE, len(words))
            # The model needs the words on both sides of a mark to choose it.
            start = max(0, begin - _CONTEXT)
            labels = self._labels(words[start : end + _CONTEXT])[begin - start : end - start]
            for word, label in zip(words[begin:end], labels, strict=True):
                bare = word[-1] not in MARKS and label in MARKS
                marked.append(word + label if bare else word)
        return marked

    def _labels(self, words: Sequence[str]) -> list[str]:
        """One label per word; an empty string where no piece of the word was in the input."""
        encoded = self.tokenizer([list(words)], is_split_into_words=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            chosen = self.model(**encoded.to(self.device)).logits[0].argmax(-1).tolist()
        labels = [""] * len(words)
        for place, word in enumerate(encoded.word_ids(0)):
            if word is not None:
                # Later pieces replace earlier ones: the mark follows the last piece.
                labels[word] = str(self.model.config.id2label[chosen[place]])
        return labels
