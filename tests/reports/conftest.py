"""A workspace of reports: empty, or with the finished cells of tests/support/lab.py."""

from pathlib import Path

import pytest

from crossfold.platform.workspace.workspace import Workspace
from tests.support import lab


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The main job of the demo, all 120 cells done. Tests must not write to it."""
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    store = lab.make_store(workspace.root)
    cells = lab.cells_of(store)
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    lab.launch(workspace, store, [cell for cell, _ in cells])
    return workspace
