"""The order of cells, `--only`, and time budgets; the order against the lower bound, on a simulated fleet."""

import datetime
import heapq
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.outcome import Outcome
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.scheduling.cell_queue import Assignment, CellQueue, QueueLimits
from crossfold.platform.scheduling.run_order import Forecast
from crossfold.platform.scheduling.time_budget import budget_seconds
from crossfold.sweeps.selection import only
from tests.support.factories import make_cell

SYSTEMS = ("ca", "rjca", "hgrjca", "hgrjca+dca")
RECIPES = [Recipe(selection="reported"), Recipe(selection="held_out")]


def cell_of(system="ca", fold=0, target="valence", seed=0, recipe=RECIPES[0], **params):
    return make_cell(system, params=params, fold=fold, targets=tuple(target.split("+")), seed=seed, recipe=recipe)


GRID = [
    cell_of(system, fold, target, seed)
    for seed in range(2)
    for fold in range(3)
    for target in ("valence", "arousal")
    for system in SYSTEMS
]


def makespan(durations, slots):
    """List scheduling: whoever is free takes the next."""
    free = [0.0] * slots
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def drawn(kind, count, rng):
    return {
        "even": lambda: rng.uniform(10, 20, count),
        "lognormal": lambda: rng.lognormal(3, 1.2, count),
        "heavy": lambda: 10 * (1 + rng.pareto(1.6, count)),
        "two kinds": lambda: np.where(rng.random(count) < 0.02, 4000.0, 20.0),
        "one giant": lambda: np.r_[np.full(count - 1, 1.0), 60.0 * count / 64],
    }[kind]()


class Stub:
    """A cell without the rest: the order looks at identities only."""

    def __init__(self, index):
        self.cell_id = str(index)


@pytest.mark.parametrize("kind", ["even", "lognormal", "heavy", "two kinds", "one giant"])
@pytest.mark.parametrize("slots", [2, 8, 64, 256])
def test_ten_thousand_cells_take_hardly_longer_than_they_must(kind, slots):
    rng = np.random.default_rng(0)
    durations = drawn(kind, 10_000, rng)
    cells = [Stub(index) for index in range(len(durations))]
    bound = max(durations.sum() / slots, durations.max())

    def reached(forecast):
        order = Forecast({cell.cell_id: seconds for cell, seconds in zip(cells, forecast, strict=True)})
        taken = order.in_turn(cells, slots)
        assert Counter(cell.cell_id for cell in taken) == Counter(cell.cell_id for cell in cells)
        return makespan([durations[int(cell.cell_id)] for cell in taken], slots) / bound

    assert reached(durations) <= 1.05
    # Predictions that are off by a fifth or so cost something only where single cells decide the end.
    assert reached(durations * rng.lognormal(0, 0.2, len(durations))) <= 1.2


def test_without_the_rule_a_late_giant_would_cost_much():
    durations = drawn("one giant", 10_000, np.random.default_rng(0))
    assert makespan(durations, 2) > 1.4 * max(durations.sum() / 2, durations.max())


def test_the_real_queue_hands_the_cells_out_in_that_order():
    """The same on `CellQueue` with a clock of its own: 2,000 cells, 32 workers."""
    rng = np.random.default_rng(1)
    cells = [cell_of(SYSTEMS[index % 4], seed=index // 4) for index in range(2_000)]
    seconds = {cell.cell_id: float(s) for cell, s in zip(cells, 10 * (1 + rng.pareto(1.6, 2_000)), strict=True)}
    now = 0.0
    queue = CellQueue(QueueLimits(lease_seconds=1e9, hang_seconds=1e9), clock=lambda: now)
    queue.submit([cell.model_dump_json() for cell in Forecast(seconds).in_turn(cells, 32)])
    queue.close()
    ends: list[tuple[float, int, str]] = []
    for rank in range(32):
        queue.register(rank, "g")
        assignment = queue.take(rank, "g")
        cell_id = Cell.model_validate_json(assignment.cell).cell_id
        heapq.heappush(ends, (seconds[cell_id], rank, cell_id))
    while ends:
        now, rank, cell_id = heapq.heappop(ends)
        queue.finish(cell_id, 1, Outcome("done", seconds[cell_id]))
        assignment = queue.take(rank, "g")
        if isinstance(assignment, Assignment):
            cell_id = Cell.model_validate_json(assignment.cell).cell_id
            heapq.heappush(ends, (now + seconds[cell_id], rank, cell_id))
    assert sum(event.kind == "finished" for event in queue.news().events) == 2_000
    assert now <= 1.05 * max(sum(seconds.values()) / 32, max(seconds.values()))


def test_early_cells_cover_all_systems_and_the_longest_go_first_at_the_end():
    rng = np.random.default_rng(0)
    cells = [cell_of(system, seed=seed) for seed in range(100) for system in SYSTEMS]
    seconds = {cell.cell_id: float(10 + 10 * rng.random()) for cell in cells}
    order = Forecast(seconds).in_turn(cells, 4)
    for begin in range(0, 320, 4):
        assert {cell.system for cell in order[begin : begin + 4]} == set(SYSTEMS)
    last = [seconds[cell.cell_id] for cell in order[-4:]]
    assert last == sorted(last, reverse=True)


def test_a_sweep_of_higher_priority_goes_first_whatever_it_takes():
    cells = [cell_of(seed=seed) for seed in range(4)]
    seconds = {cells[0].cell_id: 1.0, cells[1].cell_id: 2.0, cells[2].cell_id: 1000.0, cells[3].cell_id: 3.0}
    priority = {cells[0].cell_id: 1, cells[2].cell_id: 1}
    order = Forecast(seconds, priority).in_turn(cells, 2)
    assert {cell.cell_id for cell in order[:2]} == {cells[1].cell_id, cells[3].cell_id}
    assert order[2] == cells[2]


def test_without_a_forecast_cells_go_as_they_come():
    assert Forecast().in_turn(GRID, 3) == GRID
    assert Forecast().in_turn([], 3) == []
    assert Forecast().epoch_seconds(GRID) == {}


@given(st.lists(st.floats(0, 1e4), max_size=30), st.integers(1, 9), st.data())
def test_every_cell_has_a_turn_and_no_order_of_turns_is_worse_than_greedy_may_be(durations, slots, data):
    cells = [Stub(index) for index in range(len(durations))]
    priority = {cell.cell_id: data.draw(st.integers(0, 2)) for cell in cells}
    seconds = {cell.cell_id: duration for cell, duration in zip(cells, durations, strict=True)}
    order = Forecast(seconds, priority).in_turn(cells, slots)
    assert sorted(order, key=lambda cell: int(cell.cell_id)) == cells
    ranks = [priority[cell.cell_id] for cell in order]
    assert ranks == sorted(ranks)
    spent = makespan([seconds[cell.cell_id] for cell in order], slots)
    assert spent <= sum(durations) / slots + max(durations, default=0) + 1e-6


def test_only_chooses_by_axes_and_parameters():
    assert {cell.system for cell in only(GRID, ["system=hgrjca"])} == {"hgrjca"}
    chosen = only(GRID, ["system=hgrjca,ca", "fold=0 fold=2", "target=valence"])
    assert len(chosen) == 2 * 2 * 2
    assert {cell.fold for cell in chosen} == {0, 2}
    assert only(GRID, ["seed=1"]) == [cell for cell in GRID if cell.seed == 1]
    assert only(GRID, []) == GRID
    variants = [cell_of(iterations=n, gate=g, rate=r) for n in (1, 2) for g in (True, None) for r in (0.1, 1e-4)]
    assert {cell.params["iterations"] for cell in only(variants, ["iterations=2"])} == {2}
    assert {cell.params["rate"] for cell in only(variants, ["rate=1e-4"])} == {1e-4}
    assert len(only(variants, ["gate=true", "rate=0.1"])) == 2
    both = [cell_of(target="valence+arousal"), cell_of(target="valence", recipe=RECIPES[1])]
    assert only(both, ["target=arousal"]) == both[:1]
    assert only(both, ["target=valence+arousal"]) == both[:1]
    assert only(both, ["selection=held_out"]) == both[1:]


@pytest.mark.parametrize(
    ("conditions", "problem", "remedy"),
    [
        (["systm=ca"], "no axis 'systm', did you mean 'system'?", "system, fold"),
        (["system=hgrjka"], "system=hgrjka: no cell has it, did you mean 'hgrjca'?", "there is ca, rjca"),
        (["fold=7"], "fold=7: no cell has it", "there is 0, 1, 2"),
        (["system"], "'system' is not axis=value", "--only system="),
        (["system="], "'system=' is not axis=value", "--only system="),
    ],
)
def test_a_wrong_condition_is_answered_with_the_nearest(conditions, problem, remedy):
    with pytest.raises(UserError) as raised:
        only(GRID, conditions)
    assert problem in raised.value.problem
    assert remedy in raised.value.remedy


def test_conditions_that_no_cell_satisfies_at_once():
    cells = [cell_of("ca", fold=0), cell_of("rjca", fold=1)]
    with pytest.raises(UserError, match="no cell has system=ca and fold=1 at once"):
        only(cells, ["system=ca", "fold=1"])


NOW = datetime.datetime(2026, 11, 20, 22, 30)


@pytest.mark.parametrize(
    ("until", "lasting", "seconds"),
    [
        (None, None, None),
        ("23:00", None, 1800),
        ("8:00", None, 9.5 * 3600),
        ("22:30", None, 86400),
        ("2026-11-21T22:30", None, 86400),
        ("2026-11-21 22:30", None, 86400),
        (None, "2h", 7200),
        (None, "90m", 5400),
        (None, "1h30m", 5400),
        (None, "1.5h", 5400),
        (None, "45s", 45),
    ],
)
def test_time_budgets(until, lasting, seconds):
    assert budget_seconds(until, lasting, NOW) == seconds


@pytest.mark.parametrize(
    ("until", "lasting", "problem"),
    [
        ("25:00", None, "'25:00' is no time"),
        ("soon", None, "'soon' is no time"),
        ("2026-11-19T08:00", None, "is over"),
        (None, "2 days", "is no duration"),
        (None, "", "is no duration"),
        (None, "0h", "is no duration"),
        ("08:00", "2h", "both --until 08:00 and --for 2h"),
    ],
)
def test_budgets_that_are_none(until, lasting, problem):
    with pytest.raises(UserError, match=problem):
        budget_seconds(until, lasting, NOW)
