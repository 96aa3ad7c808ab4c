"""What a report costs: tables and claims of 1,000 and 10,000 cells, and the jackknife against a loop over videos.

The cells are fakes in the format of the workspace: one trained cell is copied, with another identity and other numbers.
"""

import json
import os
import sys
import time
from functools import reduce
from operator import add

import numpy as np
import pytest

from crossfold.platform.core.metrics import Moments, ccc_of, moments
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.all_tables import build_tables
from crossfold.reports.build import build_report
from crossfold.reports.results.load import load_results
from crossfold.reports.stats.intervals import left_out
from crossfold.reports.stats.runs import Run
from crossfold.reports.tables.claims import judge
from crossfold.reports.tables.published import table_ids
from tests.support import lab
from tests.support.screenshot import find_browser

VIDEOS = 76
"""As many videos as the validation set of Aff-Wild2."""
NAMES = [f"video_{number:02d}" for number in range(VIDEOS)]
SQUARES = np.random.default_rng(0).uniform((60, 50, 20), (90, 80, 45), (VIDEOS, 3))
"""Sums of squares and of products about the means of 500 frames."""


def variants():
    """32 variants, as many as all tables of the papers ask for together."""
    plain = (
        "unimodal_audio",
        "unimodal_visual",
        "concat",
        "lstm",
        "self_attention",
        "leader_follower",
        "tca",
        "tca+dca",
    )
    attention = [lab.Fake(system, {"residual": "sum"}, 0.4) for system in ("ca", "ca+dca")]
    joint = [lab.Fake(system, {"axis": "time"}, 0.4) for system in ("jca", "jca+dca")]
    recursive = ("rjca", "rjca+dca", "grjca", "hgrjca", "rjcma")
    deep = [lab.Fake(name, {"axis": "time", "iterations": m}, 0.4) for name in recursive for m in (1, 2, 3, 4)]
    return (*(lab.Fake(name, {}, 0.4) for name in plain), *attention, *joint, *deep)


def fill(workspace, count):
    """Writes about `count` finished cells: all variants x 6 folds x 2 targets x seeds, each with its tracked run."""
    store = lab.make_store(workspace.root)
    chosen = variants()
    seeds = tuple(range(max(1, round(count / (len(chosen) * 12)))))
    cells = [cell for cell, _ in lab.cells_of(store, chosen, folds=(0, 1, 2, 3, 4, 5), seeds=seeds)]
    rng, first = np.random.default_rng(0), {}
    for cell in cells:
        key = (cell.fold, cell.target)
        folder = workspace.paths.cells / cell.cell_id
        if key not in first:
            lab.finish(workspace, store, cell, 0.4, stressed=True)
            first[key] = folder
        else:
            folder.mkdir()
            for name in ("curve.parquet", "predictions.npz", "best.safetensors"):
                os.link(first[key] / name, folder / name)
            size = int(rng.integers(50, 90)) * 2**20
            late = {"finished_at": "2026-01-02T03:04:05+00:00", "peak_memory": {"bytes": size, "kind": "process"}}
            (folder / "env.json").write_text(json.dumps(json.loads((first[key] / "env.json").read_text()) | late))
            (folder / "cell.json").write_text(cell.model_dump_json())
        result = json.loads((first[key] / "result.json").read_text())
        result["cell_id"] = cell.cell_id
        result["metrics"][cell.target]["ccc"] += rng.normal(0, 0.02)
        # As large as the record of a cell of Aff-Wild2: reading it is most of what a large report costs.
        table = np.column_stack([np.full(VIDEOS, 500.0), rng.normal(0, 0.2, (VIDEOS, 2)), SQUARES])
        result["videos"][cell.target] = dict(zip(NAMES, table.tolist(), strict=True))
        (folder / "result.json").write_text(json.dumps(result))
    runs = [{"cell": cell.cell_id, "run": rng.bytes(16).hex(), "store": "x", "server": "http://host"} for cell in cells]
    (workspace.root / "mlflow-runs.jsonl").write_text("\n".join(map(json.dumps, runs)))
    return len(cells)


def first_paint(page):
    """Milliseconds to the first contentful paint in headless Chromium; None without one."""
    found = find_browser()
    if found is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(page.resolve().as_uri(), timeout=300_000)
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        milliseconds = tab.evaluate(paint)
        browser.close()
    return float(milliseconds)


@pytest.mark.benchmark
@pytest.mark.parametrize("count", [1_000, 10_000])
def test_seconds_of_a_report(count, tmp_path, capsys, compared):
    workspace = Workspace(tmp_path / "workspace")
    cells = fill(workspace, count)
    start = time.process_time()
    results = load_results(workspace)
    loaded = time.process_time()
    judge(results, build_tables(results, table_ids()[1:]))
    judged = time.process_time()
    ours, theirs = [], []
    for turn in range(3 if count == 1_000 else 1):
        began, begun = time.process_time(), time.monotonic()
        report = build_report(workspace, out=tmp_path / f"report{turn}")
        ours.append(time.process_time() - began)
        wall = time.monotonic() - begun
        began = time.process_time()
        read = [json.loads(path.read_bytes()) for path in workspace.paths.cells.glob("*/result.json")]
        theirs.append(time.process_time() - began)
        assert len(read) == cells
        del read
    page = report.paths[0].stat().st_size / 1e6
    plain = build_report(workspace, formats=["html"], out=tmp_path / "small", figures=False)
    small = plain.paths[0].stat().st_size / 1e6
    paint = first_paint(report.paths[0])
    with capsys.disabled():
        sys.stdout.write(
            f"\n{cells} cells: the whole report in {wall:.1f} s by the clock and {ours[-1]:.1f} s CPU "
            f"({ours[-1] / cells * 1e3:.1f} ms a cell); of these, reading {loaded - start:.1f} s, tables "
            f"and claims {judged - loaded:.1f} s. Page {page:.2f} MB, without figures {small:.2f} MB, first paint "
            f"{'not measured' if paint is None else f'{paint:.0f} ms'}\n"
        )
    compared(f"a report of {cells:,} cells", "reading their results as JSON", ours=ours, theirs=theirs)
    assert len(results.records) == cells
    assert page < (1.5 if count == 1_000 else 6)
    assert small < 0.5 or count > 1_000, f"{small:.4f} MB"


@pytest.mark.benchmark
def test_the_jackknife_against_a_loop_over_videos(compared, in_turns):
    label = np.random.default_rng(0).standard_normal((VIDEOS, 200))
    prediction = label + np.random.default_rng(1).standard_normal((VIDEOS, 200))
    names = tuple(f"v{index}" for index in range(VIDEOS))
    runs = [Run(0, seed, 0.5, names, moments(prediction, label, np.ones_like(label, bool))) for seed in range(20)]

    def looped():
        parts = [one(runs[0].moments, video) for video in range(VIDEOS)]
        whole = ccc_of(reduce(add, parts))
        return [ccc_of(reduce(add, parts[:video] + parts[video + 1 :])) - whole for video in range(VIDEOS)]

    np.testing.assert_allclose(left_out(runs)[:, 0], looped(), atol=1e-12)
    taken = in_turns({"ours": lambda: left_out(runs), "loop": looped}, 5, time.process_time)
    theirs = [seconds * len(runs) for seconds in taken["loop"]]
    label = f"{VIDEOS} videos left out of {len(runs)} runs"
    assert compared(label, "a loop over videos", ours=taken["ours"], theirs=theirs) > 1


def one(stacked, video):
    return Moments(*(getattr(stacked, name)[video] for name in ("n", "mean_x", "mean_y", "sxx", "syy", "sxy")))
