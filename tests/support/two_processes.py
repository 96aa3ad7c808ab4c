"""What each of two processes that share a cell does; run by test_data_parallel.py."""

import sys
from pathlib import Path

import torch.distributed as dist
from double_precision import compute_in_double
from interruption import StopAfter

from crossfold.platform.core.cell import Cell
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.training import train as training
from crossfold.platform.training.data_parallel import ProcessGroup
from crossfold.platform.workspace.workspace import Workspace


def main(rank, world, meeting, workspace, *jobs):
    """A job: the file of a cell, and after which epoch each try at it is stopped, as in `cell.json:1,0`; 0 is never."""
    compute_in_double(setattr)
    training.CHECKPOINT_SECONDS = -1.0
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=int(world))
    group = ProcessGroup(int(rank), int(world))
    for job in jobs:
        cell, _, stops = job.rpartition(":")
        made = Cell.model_validate_json(Path(cell).read_text())
        for stop in stops.split(","):
            outcome = attempt_cell(made, Workspace(Path(workspace)), reporter=StopAfter(int(stop)), group=group)
            print(outcome.failure.message if outcome.failure else outcome.status)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
