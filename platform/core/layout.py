"""The names of files in a workspace."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


LEFTOVER_SECONDS = 3600.0
"""A commit takes a second; a worker of another machine may be slow, but not that slow."""
CELL_FILES = ("cell.json", "result.json", "curve.parquet", "predictions.npz", "env.json", "best.safetensors")
"""What the folder of a finished cell holds."""
RECORD = "files"
"""Key of `env.json` under which a commit writes the size of each file of its cell, and the hash of the numbers."""
HASHED = "result.json"
"""Small and read by every table; of the others the size is compared, so that a second is enough for thousands."""
