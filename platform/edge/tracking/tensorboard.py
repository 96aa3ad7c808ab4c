"""Learning curves and final scores of finished cells as event files for TensorBoard."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import whole_folder
from crossfold.platform.edge.tracking.records import cell_params, curve_epochs, final_metrics
from crossfold.platform.workspace.cell_record import CellRecord


def write_tensorboard(records: Sequence[CellRecord], folder: Path) -> Path:
    """Writes one run per cell into a new folder: its curve by epoch, and its settings and scores as hyper-parameters.

    Raises `UserError` if the folder is there and not empty: event files of two exports in one folder are drawn as one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already", "give --out a new folder")
    with whole_folder(folder) as draft:
        for record in records:
            _write(record, draft / f"{re.sub(r'[^0-9A-Za-z]+', '-', record.cell.label)}-{record.cell_id}")
    return folder


def _write(record: CellRecord, run: Path) -> None:
    from tensorboardX import SummaryWriter

    at = datetime.datetime.fromisoformat(record.env["finished_at"]).timestamp()
    with SummaryWriter(str(run), write_to_disk=True) as writer:
        for epoch, values in curve_epochs(record).items():
            for name, value in values.items():
                # TensorBoard groups charts by what stands before the first slash.
                writer.add_scalar(f"curve/{name}", value, epoch, walltime=at)
        scores = {f"result/{name}": value for name, value in final_metrics(record).items()}
        writer.add_hparams(cell_params(record.cell), scores, name="settings", global_step=0)
