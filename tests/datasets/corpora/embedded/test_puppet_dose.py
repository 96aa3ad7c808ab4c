"""Puppets with a dose: how much of what is planted, and how the corpus is found again."""

import json

import numpy as np
import pytest

from crossfold.datasets.corpora.affwild2.reader import inspect_affwild2
from crossfold.datasets.corpora.embedded.dose import PuppetDose, dose_of
from crossfold.datasets.corpora.embedded.latent_script import write_script
from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.datasets.corpora.embedded_truth import embedded_name
from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.prepared import prepare_cells
from crossfold.sweeps.sweep_files import Sweep


def scripts(dose, count=150, frames=500):
    return [write_script(np.random.default_rng(seed), frames, 25.0, dose=dose) for seed in range(count)]


@pytest.mark.parametrize(
    "shares", [{"conflict": 0.05}, {"conflict": 0.2, "missing": 0.2}, {"corrupted": 0.3, "complementary": 0.4}]
)
def test_each_kind_has_its_share_of_time(shares):
    made = scripts(PuppetDose(**shares))
    frames = dict.fromkeys(("missing", "corrupted", "conflict", "complementary"), 0)
    for script in made:
        for before, after in zip(script.spans, script.spans[1:], strict=False):
            assert before.end < after.start
        for span in script.spans:
            assert span.end <= script.frames
            frames[span.kind] += span.end - span.start
    for kind, found in frames.items():
        assert found / (500 * len(made)) == pytest.approx(shares.get(kind, 0), abs=0.035)


def test_severity_and_cue_scale_a_conflict():
    strong, weak, none = (scripts(PuppetDose(conflict=0.4, severity=s, cue=s), 20) for s in (1.0, 0.5, 0.0))

    def lies(made):
        return float(np.mean([np.abs(s.face_valence - s.valence).mean() for s in made]))

    assert lies(strong) > lies(weak) > lies(none)
    for whole, half, nothing in zip(strong, weak, none, strict=True):
        assert whole.spans == half.spans == nothing.spans
        assert np.allclose(half.face_tell, whole.face_tell / 2)
        assert not nothing.face_tell.any() and not nothing.voice_tell.any()


def test_the_corpus_has_the_name_of_its_dose(tmp_path):
    dose = PuppetDose(conflict=0.5)
    write_puppets(tmp_path / "dosed", clips=4, seconds=2.0, layout=dose, processes=1)
    found = inspect_affwild2(tmp_path / "dosed", deep=False)
    assert (found.corpus, len(found.clips)) == ("puppets-dose-conflict=0.5", 4)
    assert dose_of(found.corpus) == dose
    with pytest.raises(UserError, match="other puppets"):
        write_puppets(tmp_path / "dosed", clips=4, seconds=2.0, processes=1)


def test_a_name_that_a_note_made_up_is_not_taken(tmp_path):
    for name in ("../../elsewhere", "puppets-dose/../x", 7):
        (tmp_path / "puppets.json").write_text(json.dumps({"corpus": name}))
        assert embedded_name(tmp_path) == "puppets"


def test_a_dose_of_puppets_that_is_not_prepared_says_how_to_make_it(tmp_path):
    asked = {"name": "m", "corpus": {"name": "puppets", "conflict": 0.2}, "recipe": "demo", "systems": ["concat"]}
    with pytest.raises(UserError) as caught:
        prepare_cells(Sweep.parse(asked, "m"), Workspace(tmp_path))
    assert "crossfold corpus puppets OUT --dose conflict=0.2" in caught.value.remedy
    with pytest.raises(UserError, match=r"at most 0\.7"):
        assert Sweep.parse(asked | {"corpus": {"name": "puppets", "conflict": 0.5, "missing": 0.3}}, "m").corpora
