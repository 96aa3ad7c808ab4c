"""Recipes as files: every one that ships is sound, says where each value comes from, and differs only where named."""

import itertools
import json

import pytest
import yaml

from crossfold.platform.core.errors import UserError
from crossfold.sweeps.recipe_files import (
    RECIPES,
    SOURCES,
    differences,
    flat,
    load_recipe,
    shipped_recipes,
    source_of_field,
    sources_of,
)

PAPERS = ("ca2021", "ca2021_audio", "ca2021_visual", "dca2024", "grjca2025", "grjca2025_v1", "rjcma2024")
MODES_ONLY = {"stress", "modality_dropout", "cuda_graph"}
"""Fields that no paper has: Crossfold evaluates trained cells further, and trains in other ways if asked."""


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_sound(name):
    assert load_recipe(name).name == name


def test_every_paper_has_its_recipe():
    released = {f"{name}+released" for name in PAPERS if name not in ("ca2021_audio", "ca2021_visual")}
    assert set(shipped_recipes()) >= {"demo", *PAPERS} | released


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name not in ("demo", "dose")])
def test_every_value_of_a_papers_recipe_has_a_source(name):
    """No value of a paper's recipe silently comes from a default of Crossfold."""
    said = sources_of(name)
    silent = {field for field in flat(load_recipe(name)) if source_of_field(said, field).kind not in SOURCES}
    assert silent <= MODES_ONLY
    assert not [field for field, source in said.items() if len(source.note) < 3]


PRINTED = {
    "rjcma2024": {
        "window": 300,
        "hop": 200,
        "batch": 12,
        "epochs": 100,
        "optimizer.kind": "adam",
        "optimizer.lr": 1e-5,
        "optimizer.min_lr": 1e-8,
        "optimizer.weight_decay": 1e-3,
        "optimizer.plateau_patience": 5,
        "optimizer.plateau_factor": 0.1,
        "optimizer.warmup_epochs": 5,
        "thaw.groups": 3,
        "reload_best": True,
        "backbones": {"visual": "resnet50", "audio": "vggish"},
    },
    "grjca2025": {"window": 300, "hop": 200, "batch": 12, "optimizer.lr": 1e-5, "optimizer.weight_decay": 1e-3},
    "grjca2025_v1": {
        "batch": 12,
        "optimizer.lr": 1e-4,
        "optimizer.weight_decay": 5e-4,
        "thaw.modalities": ["visual"],
        "head.input_dropout": 0.5,
    },
    "ca2021": {
        "window": 8,
        "clip.frames": 16,
        "batch": 16,
        "optimizer.kind": "sgd",
        "optimizer.momentum": 0.9,
        "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 5e-4,
        "head.input_dropout": 0.5,
    },
    "ca2021_visual": {"optimizer.lr": 1e-4, "optimizer.weight_decay": 5e-4, "batch": 8, "epochs": 50},
    "ca2021_audio": {"optimizer.lr": 1e-3, "batch": 16, "epochs": 100},
}
"""Of spec section 3, typed once more from there."""


@pytest.mark.parametrize("name", PRINTED)
def test_what_a_paper_prints_is_in_its_recipe_and_called_printed(name):
    recipe, said = flat(load_recipe(name)), sources_of(name)
    for field, value in PRINTED[name].items():
        assert recipe[field] == value, field
        assert source_of_field(said, field).kind == "printed", field


def test_values_of_the_release_of_000():
    recipe = flat(load_recipe("dca2024"))
    assert recipe["window"] * recipe["clip.frames"] == 512
    assert (recipe["optimizer.kind"], recipe["optimizer.lr"], recipe["batch"]) == ("adamw", 3e-4, 64)
    assert recipe["clip.label"] == "last"
    assert load_recipe("dca2024").joint_targets


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*+*.yaml")), ids=lambda path: path.stem)
def test_an_overlay_differs_in_its_own_fields_only(path):
    over = yaml.safe_load(path.read_text())
    named = {
        f"{key}.{inner}" if isinstance(value, dict) and value else key
        for key, value in over.items()
        for inner in (value if isinstance(value, dict) and value else [""])
    }
    bases = (
        [path.stem.partition("+")[0]]
        if not path.stem.startswith("+")
        else [p for p in PAPERS if load_recipe(p).backbones]
    )
    for base in bases:
        variant = f"{base}+{path.stem.partition('+')[2]}"
        assert {found.field for found in differences(base, variant)} == named & {
            found.field for found in differences(base, variant)
        }
        assert differences(base, variant), variant


def test_differences_say_both_values_and_sources():
    found = {difference.field: difference for difference in differences("rjcma2024", "grjca2025_v1")}
    assert found["optimizer.lr"].values == (1e-5, 1e-4)
    assert [source.kind for source in found["optimizer.lr"].sources] == ["printed", "printed"]
    assert found["thaw.modalities"].values == (None, ["visual"])
    assert "window" not in found
    assert differences("ca2021", "ca2021") == []


def test_overlays_add_up():
    both = load_recipe("rjcma2024+released+features")
    assert both.backbones == {}
    assert both.optimizer.warmup == "release"
    assert both.optimizer.lr == 1e-5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rjcma", "did you mean 'rjcma2024'"),
        ("dca2024+relesed", "'dca2024' has no variant 'relesed', did you mean 'released'"),
        ("ca2021_audio+released", "has no variant 'released'; known: features"),
        ("+features", "unknown recipe '\\+features'"),
        ("nowhere.yaml", "no recipe file"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(name, words):
    with pytest.raises(UserError, match=words):
        load_recipe(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimiser.lr": 1}, "unknown key 'optimiser', did you mean 'optimizer'"),
        ({"optimizer.ln": 1}, "unknown key 'optimizer.ln', did you mean 'lr'"),
        ({"thaw.grups": 1}, "did you mean 'groups'"),
        ({"batch.size": 1}, "'batch' has no fields"),
        ({"loss.scope": "batch", "accumulate": 2}, "whole batch at once"),
        ({"accumulate": 13}, "a batch of 12 windows has no 13 parts"),
    ],
    ids=str,
)
def test_wrong_fields_are_refused_with_what_helps(change, words):
    with pytest.raises(UserError, match=words):
        load_recipe("rjcma2024", change)


def test_changes_replace_mappings_and_merge_groups():
    assert load_recipe("rjcma2024", {"backbones": {}}).backbones == {}
    assert load_recipe("rjcma2024", {"backbones.visual": "r3d"}).backbones == {"visual": "r3d", "audio": "vggish"}
    changed = load_recipe("rjcma2024", {"optimizer": {"lr": 0.5}})
    assert (changed.optimizer.lr, changed.optimizer.warmup_epochs) == (0.5, 5)
    assert load_recipe("dca2024", {"optimizer.forced.lr": 0.1}).optimizer.forced.lr == 0.1


def test_a_file_of_ones_own_is_a_recipe_with_its_own_sources(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("window: 30  # choice: short clips\nhop: 10\noptimizer: {lr: 0.1}  # printed: somewhere\n")
    recipe, said = load_recipe(str(path)), sources_of(str(path))
    assert (recipe.name, recipe.window, recipe.optimizer.lr) == ("mine", 30, 0.1)
    assert said["window"].note == "short clips"
    assert said["hop"].kind == ""
    assert source_of_field(said, "optimizer.lr").note == "somewhere"
    assert source_of_field(said, "batch").note == "a default of Crossfold"
    with pytest.raises(UserError, match="not a mapping"):
        (tmp_path / "list.yaml").write_text("[1]")
        load_recipe(str(tmp_path / "list.yaml"))


def test_the_command_compares_recipes(capsys):
    from crossfold.platform.edge.cli.catalog import list_

    list_("recipes", as_json=True, diff=("dca2024", "dca2024+released"))
    rows = {row["field"]: row for row in json.loads(capsys.readouterr().out)}
    temporal = {f"temporal.{key}" for key in ("kind", "levels", "input_norm", "recurrent_form")}
    head = {f"head.recurrent{key}" for key in ("", "_width", "_layers", "_form", "_shared")}
    assert set(rows) == temporal | head | {"clip.predicts", "optimizer.forced"}
    assert all(row["source in dca2024+released"].startswith("release: ") for row in rows.values())
    assert rows["head.recurrent_width"]["dca2024+released"] == "512"
    assert "G2e" in rows["optimizer.forced"]["source in dca2024+released"]
    list_("recipes", diff=("dca2024", "dca2024+released"))
    said = capsys.readouterr().out
    assert "what the code of dca2024+released does and it does not repeat" in said
    assert "G2b" in said
    with pytest.raises(UserError, match="compares recipes, not systems"):
        list_("systems", diff=("dca2024", "ca2021"))


def test_the_command_explains_a_schedule(capsys):
    from crossfold.platform.edge.cli.catalog import explain

    explain(recipe="rjcma2024", windows=120, improves=3, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["windows"], said["steps_per_epoch"], len(said["epochs"])) == (120, 10, 87)
    assert said["schedule"][0]["rate"] == "1e-06 to 1e-05, each epoch"
    assert [row["stage"] for row in said["schedule"]] == [1] * 5 + [2] * 5 + [3] * 5
    fields = {row["field"]: row for row in said["fields"]}
    assert fields["optimizer.lr"] == {"field": "optimizer.lr", "value": "1e-05", "source": "printed: 002"}
    marked = ["█" in line for line in said["plot"]]
    assert sum(marked) >= 4, "one row for each of four rates at least"
    assert sum(line.count("█") for line in said["plot"]) <= 2 * 64
    explain(recipe="dca2024+released", set_=["optimizer.forced=null"])
    assert "--set" in capsys.readouterr().out


@pytest.mark.parametrize("given", [{}, {"system": "ca", "recipe": "demo"}, {"recipe": "demo", "improves": -1}], ids=str)
def test_explain_takes_a_system_or_a_recipe(given):
    from crossfold.platform.edge.cli.catalog import explain

    with pytest.raises(UserError):
        explain(**given)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_has_a_schedule_that_ends(name):
    from crossfold.platform.training.lr_schedule import simulate

    found = simulate(load_recipe(name), 7, itertools.repeat(0.1))
    assert 0 < len(found.epochs) <= load_recipe(name).epochs
    assert all(epoch.last_rate > 0 for epoch in found.epochs)
