"""How benchmarks measure and record: turns that are interleaved, and ratios that `crossfold bench` collects."""

import json
import os
import sys

import numpy as np
import pytest
import torch

from crossfold.platform.edge.diagnostics.benchmarks import PROPERTY


@pytest.fixture
def compared(record_property, capsys):
    """Records and prints how many times longer a rival takes than Crossfold; returns the median over the turns.

    ours, theirs: seconds of each turn, measured in turns. share: of the physical limit, where one was measured.
    """

    def add(name, rival, *, ours, theirs, share=None):
        low, ratio, high = (float(value) for value in np.quantile(np.divide(theirs, ours), [0.25, 0.5, 0.75]))
        found = {"name": name, "rival": rival, "ratio": ratio, "low": low, "high": high, "turns": len(ours)}
        found |= {"seconds": float(np.median(ours)), "share": share}
        record_property(PROPERTY, json.loads(json.dumps(found)))
        with capsys.disabled():
            limit = "" if share is None else f", {share:.0%} of the limit"
            sys.stdout.write(
                f"\n{name}: {found['seconds']:.4g} s; {rival} takes {ratio:.2f} times as long "
                f"({low:.2f} to {high:.2f}, {len(ours)} turns){limit}\n"
            )
        return ratio

    return add


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
