"""Words with times from sound, by Vosk (002 uses its model `vosk-model-en-us-0.22`).

The package is the optional extra `speech`; the model is a folder given by path.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crossfold.datasets.media.sound import RATE
from crossfold.datasets.media.transcripts import Word
from crossfold.platform.core.errors import UserError

MODEL = "vosk-model-en-us-0.22"
FRONT_END = {"kind": "vosk", "version": 2, "rate": RATE}
"""Everything the words depend on besides sound and model, for the store's manifest."""
_SAMPLES_AT_ONCE = 4000


class Recogniser(Protocol):
    """The part of `vosk.KaldiRecognizer` that is used; one object per recording."""

    def AcceptWaveform(self, data: bytes) -> int:  # noqa: N802, Vosk's name
        """Takes 16-bit samples; not 0 when an utterance has ended."""
        ...

    def Result(self) -> str:  # noqa: N802
        """JSON of the utterance that has ended: `result`, a list of words, unless nothing was said."""
        ...

    def FinalResult(self) -> str:  # noqa: N802
        """JSON of what is left at the end."""
        ...


def open_vosk(folder: Path) -> Callable[[], Recogniser]:
    """Loads the model once; each call of what is returned makes a recogniser for one recording.

    Raises `UserError` where the package or the model is missing.
    """
    if not (folder / "am").is_dir() and not (folder / "final.mdl").is_file():
        raise UserError(
            f"{folder} holds no Vosk model: neither am/ nor final.mdl is there",
            f"unpack {MODEL}.zip of alphacephei.com/vosk/models there",
        )
    try:
        import vosk
    except ImportError:
        raise UserError("transcribing needs Vosk, which is not installed", "pip install 'crossfold[speech]'") from None
    vosk.SetLogLevel(-1)
    try:
        model = vosk.Model(str(folder))
    except Exception as error:  # Vosk raises nothing more specific.
        raise UserError(f"{folder} cannot be read as a Vosk model: {error}", f"unpack {MODEL}.zip again") from None

    def recogniser() -> Recogniser:
        made: Any = vosk.KaldiRecognizer(model, RATE)
        made.SetWords(True)
        listener: Recogniser = made
        return listener

    return recogniser


def recognise(sound: np.ndarray, recogniser: Recogniser) -> tuple[Word, ...]:
    """Words of sound float32 [samples] at 16 kHz, in order; times in seconds from its first sample."""
    pcm = np.rint(np.clip(sound, -1, 1) * 32767).astype("<i2")
    # Vosk checks for the end of an utterance after each piece.
    pieces = (pcm[begin : begin + _SAMPLES_AT_ONCE].tobytes() for begin in range(0, len(pcm), _SAMPLES_AT_ONCE))
    answers = [recogniser.Result() for piece in pieces if recogniser.AcceptWaveform(piece)]
    answers.append(recogniser.FinalResult())
    entries = [entry for answer in answers for entry in json.loads(answer).get("result", ())]
    return tuple(Word(entry["word"], float(entry["start"]), float(entry["end"])) for entry in entries)
