"""The view in which MLflow shows cells with their scores: what the tag holds, and what a browser makes of it."""

import json
import os
import signal
import socket
import subprocess

import pytest

from crossfold.platform.edge.cli.tracking import SERVER_SETTINGS, server_command
from crossfold.platform.edge.tracking.saved_views import TAG, widened
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.edge.tracking.writer import RunWriter
from tests.platform.edge.tracking.test_mlflow_tracker import rjca_cell, run_live
from tests.support.screenshot import find_browser, open_page
from tests.support.waiting import wait_for


def columns_of(tag: str) -> list[str]:
    return json.loads(json.loads(tag)["state"])["selectedColumns"]


def test_a_view_grows_by_the_scores_of_further_targets_and_keeps_its_order():
    first = widened(None, "cell", ["ccc_valence"], ["seed"])
    assert first is not None
    assert widened(first, "cell", ["ccc_valence"], ["seed"]) == first, "nothing is written again"
    second = widened(first, "cell", ["ccc_arousal"], ["seed"])
    assert columns_of(second) == ["metrics.`ccc_valence`", "params.`seed`", "metrics.`ccc_arousal`"]
    state = json.loads(json.loads(second)["state"])
    assert (state["searchFilter"], state["orderByKey"]) == ("tags.kind = 'cell'", "metrics.`ccc_valence`")


@pytest.mark.parametrize(
    "theirs",
    [
        json.dumps({"name": "mine", "createdAt": 1, "state": "deflate;eJyrVgIAAXUA+Q=="}),
        json.dumps({"name": "mine", "createdAt": 1, "state": json.dumps({"selectedColumns": [], "searchFilter": ""})}),
        "null",
    ],
)
def test_what_a_user_saved_in_its_place_stays(theirs):
    assert widened(theirs, "cell", ["ccc_valence"], []) == theirs


def test_without_a_score_there_is_no_view():
    assert widened(None, "cell", [], ["seed"]) is None


def test_the_printed_address_opens_the_cells_with_their_scores_in_a_browser(workspace):
    """The cells stand there themselves, the best first, and not folded away below their launch."""
    if find_browser() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no browser is installed")
    run_live(workspace, MlflowTracker(workspace), [rjca_cell(0), rjca_cell(1), rjca_cell(2, ("arousal",))])
    writer = RunWriter(workspace)
    writer.prepare()
    tags = writer._client.get_experiment_by_name("tiny").tags
    written = ["metrics.`ccc_valence`", "metrics.`ccc_arousal`"]
    assert [name for name in columns_of(tags[TAG]) if name.startswith("metrics")] == written
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"env": os.environ | SERVER_SETTINGS, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(server_command(workspace, port), start_new_session=True, **settings)
    try:
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 120)
        with open_page(f"http://127.0.0.1:{port}{writer.pages(1)['tiny']}", width=1800, height=800) as page:
            scores = page.locator("[role=gridcell][col-id='metrics.`ccc_valence`']")
            scores.nth(2).wait_for(timeout=120_000)
            heads = {head.strip() for head in page.get_by_role("columnheader").all_inner_texts()}
            assert {"ccc_valence", "ccc_arousal", "system", "fold", "target", "seed"} <= heads
            *scored, other = scores.all_inner_texts()
            assert other == "-", "the cell of another target stands last"
            assert all(float(score) for score in scored)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
