"""The workspace that commit ed74c6d made: three sweeps, one of them interrupted in its only cell."""

import tarfile
from pathlib import Path

from tests.support.paths import ROOT


def unpack_old_workspace(folder: Path) -> Path:
    """Unpacks it below `folder` and returns its root. It was made elsewhere, as one that somebody moved."""
    with tarfile.open(ROOT / "tests" / "fixtures" / "workspace-ed74c6d.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "ws"
