"""What the commands say to somebody new: rules in plain words, and remedies that can be pasted."""

import shlex
from types import SimpleNamespace

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.app import main
from crossfold.platform.edge.cli.export import _one_variant
from crossfold.sweeps.sweep_files import Sweep

SWEEP = {"name": "mine", "corpus": "puppets", "recipe": "demo", "systems": ["concat"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": "zero"}, "seeds = 'zero': give a list"),
        ({"seeds": ["one"]}, "seeds.0 = 'one': give a whole number"),
        (
            {"systems": [{"concat": 3}]},
            "{'concat': 3} is no system: write its name, as rjca, or one as rjca: {iterations",
        ),
        ({"name": "two words"}, "name = 'two words': use letters"),
        ({"set": {"selection": ["reported", "held_out"]}}, "outside `set`"),
    ],
)
def test_a_sweep_that_breaks_a_rule_hears_it_in_plain_words(change, said):
    with pytest.raises(UserError) as refused:
        Sweep.parse({**SWEEP, **change}, "mine.yaml")
    assert said in str(refused.value)
    assert "Value error" not in str(refused.value)
    assert "Input should" not in str(refused.value)


def test_a_submission_never_averages_two_selections():
    cells = [
        SimpleNamespace(system="concat", params={}, targets=(target,), recipe=SimpleNamespace(selection=selection))
        for target in ("valence", "arousal")
        for selection in ("reported", "held_out")
    ]
    with pytest.raises(UserError, match="held_out and reported selection"):
        _one_variant(cells, ("valence", "arousal"))
    assert len(_one_variant(cells[::2], ("valence", "arousal"))) == 2


def test_the_next_command_can_be_pasted(tmp_path, capsys):
    folder = tmp_path / "my data \u00fc"
    with pytest.raises(SystemExit) as end:
        main(["corpus", "synthetic", str(folder), "--clips", "4", "--frames", "50"])
    assert not end.value.code
    command = capsys.readouterr().out.split("next: ")[1].strip()
    assert shlex.split(command) == ["crossfold", "prepare", "synthetic", "--root", str(folder)]


def test_a_stopped_prepare_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("crossfold.platform.edge.cli.data.build_store", stopped)
    with pytest.raises(SystemExit) as end:
        main(["prepare", "synthetic", "--root", str(tmp_path), "--workspace", str(tmp_path / "work")])
    assert end.value.code == 130
    assert "the same command continues" in capsys.readouterr().err
