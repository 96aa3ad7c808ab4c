"""The picture of a launch, as the live view and `crossfold status` draw it."""

import io

from rich.console import Console

from crossfold.platform.edge.terminal.progress import ROWS, headline, running_cells
from crossfold.platform.edge.terminal.recipe_rows import plot
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.monitor import Progress


def test_the_headline_follows_a_launch():
    clock = iter(range(0, 1000, 30))
    progress = Progress("night", 2, clock=lambda: next(clock))
    for seed in range(4):
        progress.apply(Event("queued", f"cell{seed}"), "")
    assert headline(progress.snapshot()) == "night: 0/4 done, starting workers"
    progress.apply(Event("started", "cell0", 1, 0), "rjca seed 0")
    progress.apply(Event("started", "cell1", 1, 1), "rjca seed 1")
    assert headline(progress.snapshot()) == "night: 0/4 done, 2 running on 2 workers"
    progress.apply(Event("finished", "cell0", 1, 0, seconds=60.0), "rjca seed 0")
    progress.apply(Event("cancelled", "cell1", 1, 1), "rjca seed 1")
    said = headline(progress.snapshot())
    assert said.startswith("night: 1/4 done, 1 cancelled, ")
    assert said.endswith(" cells per minute, about 1 min 0 s left")


def test_of_many_running_cells_the_first_workers_are_shown():
    row = {"label": "rjca", "epoch": 0, "epochs": 0, "best_ccc": None}
    state = {"running": [{**row, "worker": worker} for worker in reversed(range(ROWS + 3))]}
    out = io.StringIO()
    Console(file=out, width=100).print(running_cells(state))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines[0].split() == ["worker", "0", "rjca", "loading"]
    assert (len(lines), lines[-1]) == (ROWS + 1, "and 3 more")


def test_a_schedule_is_plotted_also_where_its_rate_is_zero():
    """As in a warm-up of one step an epoch, by the released code of 002."""
    assert plot([0.0, 0.0], []) == ["the rate is 0 at the end of every epoch"]
    assert plot([0.0, 0.1, 0.001], [2]) == [
        " 1.0e-01  █|", " 3.2e-02   |", " 1.0e-02   |", " 3.2e-03   |", " 1.0e-03   █", "   epoch 1 3",
    ]  # fmt: skip
