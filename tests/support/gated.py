"""A plugin that kills its worker in one cell, and holds another one at its second epoch until a gate is open.

Given with `--plugin` to the driver and, through it, to each worker: they look their trial up after plugins are loaded.
`CROSSFOLD_TEST_GATE` names a folder: `killed` is written before the worker ends itself, `held`, with the process, when
the other cell waits; `open` lets it pass. So a test acts on what happened, however fast the machine is.
"""

import os
import signal
import time
from pathlib import Path

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import EpochReport, Reporter
from crossfold.platform.execution import run_cell as trial

FATAL, HELD = ("concat", 1), ("jca", 3)
"""System and seed of the two cells."""
_attempt_cell = trial.attempt_cell


class Gated:
    """Passes epochs on, and does what is due after the second."""

    def __init__(self, cell: Cell, reporter: Reporter, folder: Path) -> None:
        self._kind, self._reporter, self._folder = (cell.system, cell.seed), reporter, folder

    def epoch(self, cell_id: str, report: EpochReport) -> None:
        self._reporter.epoch(cell_id, report)
        if report.epoch != 2:
            return
        if self._kind == FATAL and not (self._folder / "killed").exists():
            (self._folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == HELD:
            (self._folder / "held").write_text(str(os.getpid()))
            while not (self._folder / "open").exists():
                time.sleep(0.05)


def gated(cell, workspace, *, reporter, **keywords):
    """The real trial behind the gate."""
    folder = Path(os.environ["CROSSFOLD_TEST_GATE"])
    return _attempt_cell(cell, workspace, reporter=Gated(cell, reporter, folder), **keywords)


trial.attempt_cell = gated
