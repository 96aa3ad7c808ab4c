"""Registries, plug-ins and strict configuration: every wrong word answers with the right one."""

import sys
import textwrap

import pytest

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.core.registry import Registry, load_plugin


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three files: one registers, one needs what is not installed, one is private."""
    folder = tmp_path / "made_up_colours"
    folder.mkdir()
    (folder / "__init__.py").write_text("from crossfold.platform.core.registry import Registry\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "made_up_colours"
    for name in [name for name in sys.modules if name.startswith("made_up_colours")]:
        del sys.modules[name]


def test_files_are_found_on_first_use(package, tmp_path):
    registry = Registry("colour", package)
    (tmp_path / package / "red.py").write_text(f"import {package}\n{package}.R.register('red', origin=__name__)(1)\n")
    (tmp_path / package / "blue.py").write_text("import not_installed_anywhere\n")
    import made_up_colours

    made_up_colours.R = registry
    assert list(registry) == ["red"]
    assert "red" in registry
    assert registry.get("red") == 1
    assert list(registry.unavailable) == ["blue"]
    with pytest.raises(
        UserError, match=r"unknown colour 'rot'.*known: red; blue is unavailable: .*not_installed_anywhere"
    ):
        registry.get("rot")


def test_a_name_belongs_to_one_file():
    registry = Registry("colour", "crossfold.sweeps")
    registry.register("red", origin="a")(1)
    registry.register("red", origin="a")(2)  # the same file read again
    assert registry.get("red") == 2
    with pytest.raises(UserError, match="'red' is registered by both a and b"):
        registry.register("red", origin="b")(3)


def test_a_system_cannot_be_registered_twice():
    from crossfold.fusion_models.catalogue import find_system, own_title, register

    with pytest.raises(UserError, match=r"'ca' is registered by both crossfold\.fusion_models\.ca and .*test_registry"):
        register(find_system("ca"))
    assert own_title("ca") is None, "it is no plug-in's now"


def test_nearest():
    assert did_you_mean("valance", ["valence", "arousal"]) == ", did you mean 'valence'?"
    assert did_you_mean("xyz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("xyz", []) == ""


PLUGIN = """\
from crossfold.fusion_models.baselines import NoParams
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.catalogue import register
from crossfold.fusion_models.system import System, Unattended

register(
    System(
        name="{name}",
        title="A plug-in",
        source="our reading",
        equations="Z = X_v",
        bibtex="@misc{{x}}",
        modalities=("visual",),
        params=NoParams,
        attend=lambda params, widths, frames: Unattended(),
        readout=lambda params, widths, steps: LastReadout(widths),
    )
)
"""


@pytest.fixture
def forgetful():
    """Takes plug-in systems out of the registry again, so that no other test meets them."""
    from crossfold.fusion_models.catalogue import systems

    known = set(systems)
    yield
    for name in set(systems) - known:
        del systems._entries[name]


def test_a_plugin_registers_a_system(tmp_path, forgetful):
    from crossfold.fusion_models.catalogue import find_system, system_names

    path = tmp_path / "my_model.py"
    path.write_text(PLUGIN.format(name="plugged_in"))
    load_plugin(path)
    assert "plugged_in" in system_names()
    fusion = find_system("plugged_in").build(find_system("plugged_in").params(), {"visual": 3}, 5)
    assert fusion.width == 3
    load_plugin(path)  # twice is once


def test_a_plugin_may_use_dataclasses_and_late_annotations(tmp_path, forgetful):
    path = tmp_path / "my_late_model.py"
    late = """\
    from __future__ import annotations
    from dataclasses import dataclass
    from crossfold.platform.core.base_model import FrozenModel

    @dataclass
    class Helper:
        size: int = 3

    class Params(FrozenModel):
        helper_size: int = 3
    """
    path.write_text(textwrap.dedent(late) + PLUGIN.format(name="plugged_in_late"))
    load_plugin(path)


def test_a_plugin_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"plugin .*missing\.py is not a Python file"):
        load_plugin(tmp_path / "missing.py")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"epoch": 3}, r"unknown key 'epoch', did you mean 'epochs'\?"),
        ({"optimizer": {"learning_rate": 1}}, "unknown key 'optimizer.learning_rate'"),
        ({"optimizer": {"weight_decai": 1}}, r"unknown key 'optimizer\.weight_decai', did you mean 'weight_decay'\?"),
        ({"temporal": {"knd": "tcn"}}, r"did you mean 'kind'\?"),
        ({"epochs": 0}, r"epochs = 0: Input should be greater than or equal to 1"),
        ({"epochs": "many"}, "epochs = 'many'"),
        ({"loss": {"scope": "video"}}, r"loss\.scope = 'video'.*'window' or 'batch'"),
        ({"held_out": 1.0}, "held_out"),
        ({"selection": "test"}, "'reported' or 'held_out'"),
        ({"optimizer": {"lr": float("nan")}}, r"optimizer\.lr"),
        ({"window": 20, "hop": 30}, "hop"),
        ([], "whole value"),
        (None, "whole value"),
    ],
    ids=str,
)
def test_a_wrong_recipe_is_refused_in_words(data, message):
    """A hop longer than the window would leave frames out of training and, worse, out of the score."""
    with pytest.raises(UserError, match=message) as caught:
        Recipe.parse(data, "recipes/mine.yaml")
    assert caught.value.problem.startswith("recipes/mine.yaml: ")
    assert caught.value.remedy


def test_every_problem_is_named_at_once():
    with pytest.raises(UserError, match=r"batch = 0.*; unknown key 'epoch'"):
        Recipe.parse({"batch": 0, "epoch": 3}, "here")


def test_recipes_are_frozen_and_come_back():
    recipe = Recipe.parse({"window": 20, "hop": 20, "optimizer": {"lr": 0.5}}, "here")
    assert Recipe.parse(recipe.model_dump(mode="json"), "there") == recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.window = 3
