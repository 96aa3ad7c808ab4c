"""Writes tests/golden/*.json anew: `python tests/golden/regenerate.py`. Read the diff before committing it."""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    os.environ["CROSSFOLD_REGENERATE"] = "1"
    here = Path(__file__).resolve().parent
    os.chdir(here.parent.parent)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", str(here)]))  # noqa: TID251
