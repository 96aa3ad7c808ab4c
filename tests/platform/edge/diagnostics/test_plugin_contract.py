"""`crossfold check --plugin`: what keeps the contracts passes, and each broken contract is named."""

import re
import textwrap
from dataclasses import replace

import pytest
from torch import nn

from crossfold.datasets.corpora.embedded.synthetic import write_synthetic
from crossfold.datasets.corpora.registry import CORPORA
from crossfold.fusion_models.backbones.catalogue import BACKBONES
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.catalogue import find_system
from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.app import main
from crossfold.platform.edge.diagnostics.plugin_contract import check_backbone, check_corpus, check_plugin, check_system
from tests.support.paths import ROOT


class Meddling(nn.Module):
    """A readout that breaks one contract, by name."""

    def __init__(self, widths, fault):
        super().__init__()
        self.inner, self.fault, self.calls = LastReadout(widths), fault, 0
        self.width = self.inner.width + (fault == "shapes")
        self.idle = nn.Linear(2, 2) if fault == "every weight learns" else None

    def forward(self, trajectory, notes=None):
        z = self.inner(trajectory, notes)
        self.calls += 1
        match self.fault:
            case "masks":
                return z + 1
            case "batch independence":
                return z - z.mean(0, keepdim=True) * trajectory.mask_BL.unsqueeze(-1)
            case "determinism":
                return z * self.calls
            case "raises":
                raise IndexError("list index out of range")
        return z


def broken(checks):
    return {check.rule: check.problem for check in checks if check.problem}


@pytest.mark.parametrize("fault", ["shapes", "masks", "batch independence", "determinism", "every weight learns"])
def test_each_broken_contract_of_a_system_is_named(fault):
    bad = replace(find_system("concat"), readout=lambda params, widths, steps: Meddling(widths, fault))
    assert fault in broken(check_system(bad))


def test_what_a_plugin_raises_is_a_finding():
    bad = replace(find_system("concat"), readout=lambda params, widths, steps: Meddling(widths, "raises"), bibtex="x")
    found = broken(check_system(bad))
    assert "IndexError: list index out of range" in found["shapes"]
    assert "bibtex begins with no @" in found["documented"]


def test_systems_of_the_house_keep_them_all():
    for name in ("concat", "rjca", "hgrjca"):
        assert not broken(check_system(find_system(name)))


def test_a_backbone():
    good = BACKBONES.get("resnet18")
    assert not broken(check_backbone(good))
    found = broken(check_backbone(replace(good, width=7, groups=((), (), ()))))
    assert "not (1, 3, 7)" in found["shapes"]
    assert "in 0 groups" in found["groups"]


def test_a_corpus(tmp_path):
    write_synthetic(tmp_path / "data", clips=6, frames=60, seed=0)
    good = CORPORA.get("synthetic")
    checked = check_corpus("synthetic", good, tmp_path / "data")
    assert not broken(checked)
    assert {check.rule for check in checked} >= {"clips", "labels", "folds do not leak", "sources", "empty folder"}

    def blind(root, *, deep):
        raise FileNotFoundError(root)

    found = broken(check_corpus("bad", replace(good, inspect=blind, layout=" "), None))
    assert "FileNotFoundError" in found["empty folder"]
    assert found["documented"] == "layout empty"


def test_the_example_of_contributing_passes_and_a_file_without_anything_does_not(tmp_path, capsys, own_registries):
    example = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert example is not None
    plugin = tmp_path / "mine.py"
    plugin.write_text(textwrap.dedent(example[1]))
    with pytest.raises(SystemExit) as end:
        main(["check", "--plugin", str(plugin)])
    assert not end.value.code
    assert "7 rules, 0 broken" in capsys.readouterr().out
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="registers no system, backbone or corpus"):
        check_plugin(tmp_path / "empty.py")


def test_broken_rules_end_with_2(tmp_path, capsys, own_registries):
    (tmp_path / "odd.py").write_text(
        "from dataclasses import replace\n"
        "from crossfold.fusion_models.catalogue import find_system, register\n"
        "register(replace(find_system('concat'), name='odd', equations=''))\n"
    )
    with pytest.raises(SystemExit) as end:
        main(["check", "--plugin", str(tmp_path / "odd.py"), "--json"])
    assert end.value.code == 2
    assert "equations empty" in capsys.readouterr().out
