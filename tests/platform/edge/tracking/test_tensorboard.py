import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.tracking.tensorboard import write_tensorboard
from crossfold.platform.workspace.workspace import Workspace
from tests.platform.edge.tracking.test_mlflow_tracker import EPOCHS, ccc_at, commit, rjca_cell


def events(run: Path) -> list[Event]:
    """The events of a run, from TFRecord: length, its checksum, content, its checksum."""
    found = []
    for path in sorted(run.rglob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += length + 16
    return found


@pytest.fixture
def records(tmp_path):
    workspace = Workspace(tmp_path / "space")
    cells = [rjca_cell(seed, ("pain [0-10]", "arousal")) for seed in (0, 1)]
    for cell in cells:
        commit(workspace, cell)
    return [workspace.read(cell.cell_id) for cell in cells]


def test_each_cell_is_a_run_with_its_curve_and_its_scores(records, tmp_path):
    write_tensorboard(records, tmp_path / "board")
    runs = sorted(path for path in (tmp_path / "board").iterdir())
    assert len(runs) == 2
    for run, record in zip(sorted(runs, key=lambda path: path.name), records, strict=True):
        values = [(value.tag, event.step, value) for event in events(run) for value in event.summary.value]
        curve = [(step, value.simple_value) for tag, step, value in values if tag == "curve/selection_ccc_arousal"]
        assert curve == [(epoch, pytest.approx(ccc_at(epoch, record.cell.seed))) for epoch in range(1, EPOCHS + 1)]
        scores = {tag: value.simple_value for tag, _, value in values if tag.startswith("result/")}
        assert scores["result/ccc_arousal"] == 0.5
        assert "_hparams_/session_start_info" in {tag for tag, _, _ in values}


def test_a_folder_with_files_is_left_alone(records, tmp_path):
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "mine").touch()
    with pytest.raises(UserError, match="is there already"):
        write_tensorboard(records, tmp_path / "board")
    assert [path.name for path in (tmp_path / "board").iterdir()] == ["mine"]
