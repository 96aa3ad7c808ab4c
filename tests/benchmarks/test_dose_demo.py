"""Whether what `dose-demo` shows does not hang on its seed: a gain and a loss, by the rule of the leaderboard.

It measures no speed, so it records nothing: the signs of the differences are the result.
"""

import pytest

from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.reports.doses.scores import dose_points
from crossfold.reports.results.load import load_results
from crossfold.sweeps.launched import remember_sweep
from crossfold.sweeps.prepared import prepare_cells
from crossfold.sweeps.sweep_files import Sweep, load


@pytest.mark.benchmark
def test_another_corpus_shows_the_gain_and_the_loss(workspace):
    """The sweep on a corpus of another seed, with other seeds of training; it takes minutes."""
    data = load("dose-demo").model_dump(mode="json")
    asked = {**data, "corpus": [{**data["corpus"][0], "seed": 21}], "seeds": [20, 21, 22, 23, 24]}
    prepared = prepare_cells(Sweep.parse(asked, "benchmark"), workspace)
    remember_sweep(prepared, workspace)
    for cell in prepared.missing:
        outcome = attempt_cell(cell, workspace)
        assert outcome.status == "done", outcome.failure
    (point,) = dose_points(load_results(workspace), workspace)
    signs = {score.system: score.over_simpler.sign for score in point.systems if score.over_simpler}
    assert signs["concat"] == 1, "both modalities together are above the better one"
    assert signs["ca"] == -1, "cross-attention is below concatenation"
    assert signs["ca+dca"] == 1, "the gate wins it back"
