"""BERT word features: of each word the sum of the last four hidden layers, sub-word pieces averaged.

Models of the kinds that transformers calls encoders are read from a local folder; nothing is ever fetched.

Each sentence is encoded by itself, as in the release of 002; a transcript without sentence marks is one long sentence.
A sentence of more pieces than the model has positions is encoded in stretches of whole words that overlap by half,
and each word is taken from the stretch in which it stands farthest from a cut. Sentence marks are context for the
words and have no features of their own.
"""

import contextlib
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from crossfold.datasets.media.word_features import sentences
from crossfold.platform.core.errors import UserError
from crossfold.platform.modeling.determinism import one_thread

LAYERS = 4
"""Hidden layers that are summed, counted from the last."""
FRONT_END = {"kind": "bert-words", "version": 1, "layers": LAYERS, "pieces": "mean", "context": "sentence"}
"""Everything the features depend on besides words and weights, for the store's manifest."""
_MARKS = re.compile(r"^(?P<before>\W*)(?P<core>.*?)(?P<after>\W*)$", re.DOTALL)
_PIECES_AT_ONCE = 4096
_LONGEST = 512


@dataclass(frozen=True)
class BertWords:
    """A `WordEncoder` (datasets/media/word_features.py) around a model of transformers and its tokenizer."""

    model: Any
    tokenizer: Any
    longest: int
    """Pieces the model can take at once, its two special ones included."""
    device: str = "cpu"

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "BertWords":
        """Reads `config.json`, `tokenizer.json` and `model.safetensors` of a folder.

        Raises `UserError` where transformers or a file is missing, or the model has too few layers.
        """
        model, tokenizer = load_local(folder, "AutoModel", "a word encoder")
        layers = getattr(model.config, "num_hidden_layers", 0)
        if layers < LAYERS:
            raise UserError(
                f"{folder} holds a {model.config.model_type} of {layers} layers; the last {LAYERS} are summed",
                "give the folder of a BERT",
            )
        return cls(model.eval().to(device), tokenizer, _positions(model, tokenizer), device)

    @property
    def width(self) -> int:
        """D, as the model's configuration says."""
        return int(self.model.config.hidden_size)

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """float32 [W, D] of the words of one recording in order. A word of which no piece is left is zero."""
        features = np.zeros((len(words), self.width), np.float32)
        stretches = [stretch for sentence in sentences(words) for stretch in self._stretches(words, sentence)]
        # Alike lengths together: less padding, and the same batches for the same words.
        stretches.sort(key=lambda stretch: (len(stretch.pieces), stretch.first_word))
        for batch in _batches(stretches):
            hidden_BLD = self._hidden(batch)
            for row, stretch in enumerate(batch):
                for word, places in stretch.places.items():
                    features[word] = hidden_BLD[row, places].mean(0).cpu().numpy()
        return features

    def _stretches(self, words: Sequence[str], sentence: range) -> Iterator["_Stretch"]:
        """The sentence as one stretch, or as many that overlap where it is too long."""
        space = self.longest - 2
        split = [self._pieces(words[index], space) for index in sentence]
        for (begin, end), (keep_from, keep_to) in _cuts([len(pieces) for pieces, _ in split], space):
            pieces: list[int] = [self.tokenizer.cls_token_id]
            places: dict[int, list[int]] = {}
            for offset in range(begin, end):
                own, core = split[offset]
                if core and keep_from <= offset < keep_to:
                    places[sentence[offset]] = [len(pieces) + place for place in core]
                pieces += own
            yield _Stretch(sentence[begin], [*pieces, self.tokenizer.sep_token_id], places)

    def _pieces(self, word: str, space: int) -> tuple[list[int], list[int]]:
        """Piece numbers of a word with its marks, `space` at most, and which of them are the word's own."""
        found = _MARKS.match(word)
        assert found is not None
        before, core, after = (self._ids(found[name]) for name in ("before", "core", "after"))
        # A token of marks alone: it is then its own core.
        if not core:
            before, core, after = [], self._ids(word), []
        own = range(len(before), min(len(before) + len(core), space))
        return [*before, *core, *after][:space], list(own)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text.strip() else []
        return ids

    def _hidden(self, batch: Sequence["_Stretch"]) -> Tensor:
        """Sums of the last layers, float32 [B, L, D]."""
        longest = max(len(stretch.pieces) for stretch in batch)
        ids_BL = torch.full((len(batch), longest), int(self.tokenizer.pad_token_id or 0))
        mask_BL = torch.zeros_like(ids_BL)
        for row, stretch in enumerate(batch):
            ids_BL[row, : len(stretch.pieces)] = torch.tensor(stretch.pieces)
            mask_BL[row, : len(stretch.pieces)] = 1
        with one_thread(), torch.inference_mode():
            out = self.model(
                input_ids=ids_BL.to(self.device), attention_mask=mask_BL.to(self.device), output_hidden_states=True
            )
        total: Tensor = torch.stack(out.hidden_states[-LAYERS:]).sum(0).float()
        return total


@dataclass(frozen=True)
class _Stretch:
    """Words that are encoded together."""

    first_word: int
    pieces: list[int]
    """Special ones included."""
    places: dict[int, list[int]]
    """Of each word that is taken from here: where its own pieces stand."""


def load_local(folder: Path, kind: str, what: str) -> tuple[Any, Any]:
    """A model of transformers and its tokenizer from a local folder, the network untouched.

    kind: a class of transformers, such as `AutoModel`; what: the model in words, for the `UserError` raised where
    transformers is not installed, a file is missing, or the files do not fit together.
    """
    model, _ = load_model(folder, kind, what)
    with _explained(folder, what):
        return model, importlib.import_module("transformers").AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True
        )


def load_model(folder: Path, kind: str, what: str) -> tuple[Any, tuple[str, ...]]:
    """A model of transformers from a local folder, as `load_local`, and the names of weights that the folder lacks."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds no {what}: config.json is not there",
            "put the model's folder there, with config.json, tokenizer.json and model.safetensors",
        )
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError:
        raise UserError(f"{what} needs transformers, which is not installed", "pip install 'crossfold[text]'") from None
    # Its progress bars and warnings are about downloads, and would mix with ours.
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    with _explained(folder, what):
        model, loading = getattr(library, kind).from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    return model, tuple(loading["missing_keys"])


@contextlib.contextmanager
def _explained(folder: Path, what: str) -> Iterator[None]:
    """Raises `UserError` for what transformers says of files that do not fit together."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{folder} cannot be read as {what}: {reason}",
            "the folder should hold config.json, tokenizer.json and model.safetensors of one model",
        ) from None


def _positions(model: Any, tokenizer: Any) -> int:
    """Pieces at once: the model's positions, less those that RoBERTa's kin keep for padding; 512 at most."""
    positions = int(getattr(model.config, "max_position_embeddings", _LONGEST))
    if model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        # They count positions from the padding's number on.
        positions -= int(model.config.pad_token_id) + 1
    return min(_LONGEST, positions, int(min(tokenizer.model_max_length, _LONGEST)))


def _cuts(lengths: Sequence[int], space: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Stretches [begin, end) of words that fit into `space` pieces, each with the words [from, to) to take from it.

    lengths: pieces of each word, none above `space`. Neighbouring stretches overlap by about half, and are split
    in the middle of their overlap.
    """
    ends = np.cumsum([0, *lengths])
    stretches: list[tuple[int, int]] = []
    begin = 0
    while begin < len(lengths):
        end = max(begin + 1, int(np.searchsorted(ends, ends[begin] + space, side="right")) - 1)
        stretches.append((begin, end))
        if end == len(lengths):
            break
        # Half a stretch back, so that each word has context on both sides in one of two stretches.
        middle = int(np.searchsorted(ends, ends[begin] + space / 2))
        begin = min(end, max(begin + 1, middle))
    borders = [0, *((late + end) // 2 for (_, end), (late, _) in pairwise(stretches)), len(lengths)]
    yield from zip(stretches, pairwise(borders), strict=False)


def _batches(stretches: Sequence[_Stretch]) -> Iterator[list[_Stretch]]:
    """Consecutive stretches whose padded pieces stay within memory; their lengths ascend."""
    batch: list[_Stretch] = []
    for stretch in stretches:
        if batch and (len(batch) + 1) * len(stretch.pieces) > _PIECES_AT_ONCE:
            yield batch
            batch = []
        batch.append(stretch)
    if batch:
        yield batch
