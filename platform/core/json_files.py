"""JSON that people and tools write, read within limits: a file of brackets alone would overflow the stack."""

import json
import re
from pathlib import Path
from typing import Any

from crossfold.platform.core.errors import UserError

MOST_BYTES = 64 * 2**20
"""Of a file; a transcript of ten hours has fewer than ten million."""
MOST_DEPTH = 60
"""Lists and objects in each other; what a recogniser writes has six."""
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NEITHER = re.compile(r"[^\[\]{}]+")


def read_json_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark. Raises `UserError` that names the file."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(f"{path} has {size:,} bytes; at most {MOST_BYTES:,} are read", "give another file")
        return path.read_text(encoding="utf-8-sig")
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})", "write it again, in UTF-8") from None


def parse_json(text: str) -> Any:
    """The value that a text in JSON stands for. Raises `ValueError` that says why it stands for none."""
    # Brackets in strings are no levels; they are taken out before levels are counted.
    depth = deepest = 0
    for bracket in _NEITHER.sub("", _STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MOST_DEPTH:
        raise ValueError(f"more than {MOST_DEPTH} lists or objects in each other")
    try:
        return json.loads(text)
    except RecursionError:  # brackets that the count above took for part of a broken string
        raise ValueError(f"more than {MOST_DEPTH} lists or objects in each other") from None
