"""`crossfold new`: the files that it writes pass every check as they are, train, and can be read."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from crossfold.datasets.corpora.embedded.synthetic import synthetic_clips
from crossfold.fusion_models.catalogue import find_system
from crossfold.fusion_models.system import Features
from tests.support.paths import ROOT

WIDTHS = {"audio": 3, "visual": 4}


@pytest.fixture
def own(crossfold, own_registries, tmp_path, monkeypatch):
    """Writes a starter into the working folder and returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(kind, name):
        code, out, err = crossfold("new", kind, name)
        assert code == 0, err
        assert f"next: crossfold check --plugin {name}.py" in out
        return tmp_path / f"{name}.py"

    return write


def test_a_system_passes_its_contract_and_is_no_concatenation(own, crossfold):
    path = own("system", "my_fusion")
    code, out, err = crossfold("check", "--plugin", path)
    assert (code, "8 rules, 0 broken" in out) == (0, True), out + err
    system = find_system("my_fusion")
    assert find_system("my_fusion+dca").modalities == ("audio", "visual")
    torch.manual_seed(0)
    given = Features({m: torch.randn(1, 5, width) for m, width in WIDTHS.items()}, torch.ones(1, 5, dtype=torch.bool))
    z = system.build(system.params(), WIDTHS, 5)(given)
    assert z.shape == (1, 5, 7)
    plain = find_system("concat").build(find_system("concat").params(), WIDTHS, 5)(given)
    assert (z - plain).abs().min() > 1e-4


def test_a_corpus_passes_its_contract_with_data_and_can_be_prepared(own, crossfold, tmp_path):
    path, data = own("corpus", "my_corpus"), tmp_path / "data"
    data.mkdir()
    for number, clip in enumerate(synthetic_clips(clips=8, frames=60, seed=0)):
        np.savez(data / f"s{number // 2}_{number}.npz", labels=clip.labels, **clip.features)
    code, out, err = crossfold("check", "--plugin", path, "--root", data)
    assert (code, "6 rules, 0 broken" in out) == (0, True), out + err
    code, out, err = crossfold("prepare", "my_corpus", "--root", data, "--workspace", tmp_path / "w", "--plugin", path)
    assert code == 0, err
    (data / "s9_9.npz").write_bytes(b"no archive")
    np.savez(data / "s9_8.npz", audio=np.zeros((3, 2)), visual=np.zeros((4, 2)), labels=np.zeros((3, 2)))
    np.savez(data / "s9_7.npz", audio=np.zeros((3, 2)))
    code, out, err = crossfold("validate", "my_corpus", "--root", data, "--plugin", path)
    assert code == 2
    for said in ("s9_7.npz", "holds no array visual, labels", "s9_8.npz", "s9_9.npz", "3 errors"):
        assert said in out


@pytest.mark.parametrize(("kind", "name"), [("system", "a"), ("corpus", "my_long_corpus_name_2")])
def test_what_is_written_is_formatted_and_has_no_findings(own, kind, name):
    path = own(kind, name)
    for command in (("check",), ("format", "--check")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("system", "rjca"), "there is a system 'rjca' already"),
        (("corpus", "recola"), "there is a corpus 'recola' already"),
        (("system", "mine+dca"), "leave +dca out"),
        (("system", "My-Fusion"), "use small letters, digits and _"),
        (("system", "class"), "cannot be the name of a system"),
        (("corpus", "../corpus"), "cannot be the name of a corpus"),
        (("system", "mine", "--out", "nowhere"), "nowhere is not a folder"),
    ],
)
def test_names_and_places_that_cannot_be_are_refused(crossfold, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = crossfold("new", *arguments)
    assert code == 2
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_never_written_over(own, crossfold):
    path = own("system", "mine")
    path.write_text("# mine\n")
    code, _, err = crossfold("new", "system", "mine")
    assert (code, path.read_text()) == (2, "# mine\n")
    assert "is there already" in err
