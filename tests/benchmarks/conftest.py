"""How benchmarks measure and record: turns that are interleaved, and ratios that `crossfold bench` collects."""

import json
import os
import sys
import time

import numpy as np
import pytest
import torch

from crossfold.platform.edge.diagnostics.benchmarks import FIGURE, PROPERTY
from crossfold.platform.execution.machine_rates import machine_rates


@pytest.fixture
def compared(record_property, capsys):
    """Records and prints how many times longer a rival takes than Crossfold; returns the median over the turns.

    ours, theirs: `unit` of each turn, measured in turns. share: of the physical limit, where one was measured; goal:
    the ratio that is aimed at, which is shown and not asserted.
    """

    def add(name, rival, *, ours, theirs, share=None, goal=None, unit="s"):
        low, ratio, high = (float(value) for value in np.quantile(np.divide(theirs, ours), [0.25, 0.5, 0.75]))
        found = {"name": name, "rival": rival, "ratio": ratio, "low": low, "high": high, "turns": len(ours)}
        found |= {"own": float(np.median(ours)), "unit": unit, "share": share, "goal": goal}
        record_property(PROPERTY, json.loads(json.dumps(found)))
        with capsys.disabled():
            aim = "" if goal is None else f", goal {goal:.3g}"
            sys.stdout.write(
                f"\n{name}: {found['own']:.4g} {unit}; {rival} takes {ratio:.2f} times as much "
                f"({low:.2f} to {high:.2f}, turns: {len(ours)}){aim}{_limit(share)}\n"
            )
        return ratio

    return add


@pytest.fixture
def figure(record_property, capsys):
    """Records and prints a figure that has no rival, and why it has none."""

    def add(name, value, unit, *, why, share=None):
        found = {"name": name, "value": float(value), "unit": unit, "why": why, "share": share}
        record_property(FIGURE, json.loads(json.dumps(found)))
        with capsys.disabled():
            sys.stdout.write(f"\n{name}: {value:.4g} {unit}{_limit(share)}\n")

    return add


def _limit(share):
    return "" if share is None else f", {share:.0%} of the limit"


@pytest.fixture
def rates(one_core):
    """A function that measures the products, in bfloat16 if `narrow`, and the copies of one thread of this machine."""
    return lambda narrow=False: machine_rates(time.thread_time, narrow=narrow)


@pytest.fixture
def one_core():
    """One thread on one core, which makes turns comparable; where a process cannot choose its core, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if cores is not None:
        os.sched_setaffinity(0, {max(cores)})
    yield
    if cores is not None:
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


@pytest.fixture
def in_turns():
    """Runs each work once to warm up, then all of them in turns: seconds by `clock` of each turn, by name."""

    def measure(works, turns, clock):
        taken = {name: [] for name in works}
        for turn in range(turns + 1):
            for name, work in works.items():
                began = clock()
                work()
                if turn:
                    taken[name].append(clock() - began)
        return taken

    return measure
