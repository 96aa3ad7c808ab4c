"""A training run between two epochs, on disk: written beside its place, sealed, taken up or set aside."""

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes plain data and tensors beside their place and renames them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    torch.save(content, held)
    # A name of its own: a second attempt at the cell may be writing too.
    handle, beside = tempfile.mkstemp(prefix=".last-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(seal(held.getvalue()))
        Path(beside).replace(path)
    finally:
        # Half a checkpoint would keep a full disk full.
        Path(beside).unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """What `write` was given; raises some error for anything else, torch has many."""
    content: dict[str, Any] = torch.load(io.BytesIO(unseal(path.read_bytes())), weights_only=True)
    return content


def seal(content: bytes) -> bytes:
    """The content behind its SHA-256, so that a flipped bit is noticed."""
    return hashlib.sha256(content).digest() + content


def unseal(sealed: bytes) -> bytes:
    """The content, or `ValueError` where it is not what was sealed."""
    content = sealed[32:]
    if hashlib.sha256(content).digest() != sealed[:32]:
        raise ValueError("its checksum is wrong")
    return content
