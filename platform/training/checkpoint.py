"""The checkpoint of a training run between two epochs: written whole, sealed, loaded or set aside."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from crossfold.platform.core.files import write_bytes


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes plain data and tensors, whole or not at all."""
    # In memory first: the digest of the whole goes before the content.
    held = io.BytesIO()
    torch.save(content, held)
    write_bytes(path, seal(held.getvalue()))


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
