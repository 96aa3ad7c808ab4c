"""From a sweep file to cells: expansion, order, overrides, and every wrong word refused before any work."""

import hashlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crossfold.datasets.corpora.embedded.dose import dose_of
from crossfold.platform.core.cell import Inner, pair_key
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.core.seeds import batch_seed
from crossfold.sweeps import plan, sweep_files, trials
from crossfold.sweeps.recipe_files import load_recipe


@pytest.fixture
def sweep_file(tmp_path):
    def write(**changes):
        data = {"name": "mine", "corpus": "synthetic", "recipe": "demo", "systems": ["ca", "rjca"]} | changes
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}))
        return path

    return write


@pytest.fixture
def search_file(sweep_file):
    def write(**changes):
        base = {
            "systems": None,
            "system": "rjca+dca",
            "trials": 3,
            "inner_folds": 2,
            "seeds": [0],
            "space": {"temperature": {"log": [0.03, 3.0]}, "recipe.optimizer.lr": {"log": [0.0003, 0.01]}},
        }
        return sweep_file(**(base | changes))

    return write


def expand(path, store, *overrides):
    return plan.expand(sweep_files.load(path, overrides), store)


def test_a_grid_is_all_combinations_systems_innermost(sweep_file, synthetic_store):
    made = expand(sweep_file(folds=[0, 1], seeds=[3, 4, 5]), synthetic_store)
    assert len(made.cells) == 2 * 2 * 2 * 3
    assert made.skipped == ()
    facts = [(c.seed, c.fold, c.target, c.system) for c in made.cells]
    expected = [(s, f, t, m) for s in (3, 4, 5) for f in (0, 1) for t in ("valence", "arousal") for m in ("ca", "rjca")]
    assert facts == expected
    assert len({c.cell_id for c in made.cells}) == len(made.cells)
    assert {c.store for c in made.cells} == {synthetic_store.content_hash}
    assert all(c.inner is None for c in made.cells)


def test_systems_are_spelled_in_three_ways(sweep_file, synthetic_store):
    systems = ["rjca", {"rjca": {"iterations": 3}}, {"system": "rjca", "params": {"tied": False}}, {"rjca": None}]
    made = expand(sweep_file(systems=systems, targets=["valence"], seeds=[0]), synthetic_store)
    assert len(made.cells) == 1, "the same thing four times is one cell"
    resolved = {
        "axis": "time",
        "joint": "fc",
        "gain": 0.01,
        "iterations": 3,
        "tied": False,
        "modalities": "audio+visual",
    }
    assert resolved.items() <= made.cells[0].params.items()


def test_lists_expand(sweep_file, synthetic_store):
    systems = [{"rjca": {"iterations": [1, 2, 3], "tied": [True, False]}}, "concat"]
    made = expand(sweep_file(systems=systems, targets=["valence"], seeds=[0]), synthetic_store)
    grid = [(c.params["iterations"], c.params["tied"]) for c in made.cells if c.system == "rjca"]
    assert sorted(grid) == [(i, t) for i in (1, 2, 3) for t in (False, True)]
    assert len(made.cells) == 7


def test_joint_targets_are_one_model(sweep_file, synthetic_store):
    made = expand(sweep_file(joint_targets=True, seeds=[0], systems=["ca"]), synthetic_store)
    assert [c.targets for c in made.cells] == [("valence", "arousal")]


def test_changes_of_the_recipe_reach_every_cell(sweep_file, synthetic_store):
    path = sweep_file(set={"optimizer.lr": 0.5, "epochs": 7})
    demo = load_recipe("demo")
    for cell in expand(path, synthetic_store).cells:
        assert cell.recipe.optimizer.lr == 0.5
        assert cell.recipe.epochs == 7
        assert cell.recipe.optimizer.warmup_epochs == demo.optimizer.warmup_epochs != 0
        assert cell.recipe.window == demo.window


def test_set_of_a_whole_group_keeps_or_refuses_the_rest(sweep_file, synthetic_store):
    """`set: {optimizer: {lr: 0.5}}` must not put every other field of the optimiser back to its default unasked."""
    path = sweep_file(set={"optimizer": {"lr": 0.5}})
    demo = load_recipe("demo")
    try:
        (cell, *_) = expand(path, synthetic_store).cells
    except UserError:
        return
    assert cell.recipe.optimizer.warmup_epochs == demo.optimizer.warmup_epochs
    assert cell.recipe.optimizer.plateau_factor == demo.optimizer.plateau_factor


def test_overrides_of_sweep_and_recipe(sweep_file, synthetic_store):
    made = expand(sweep_file(), synthetic_store, "seeds=[9]", "targets=[arousal]", "epochs=5", "optimizer.lr=0.25")
    assert {(c.seed, c.target, c.recipe.epochs, c.recipe.optimizer.lr) for c in made.cells} == {(9, "arousal", 5, 0.25)}
    later = expand(sweep_file(set={"epochs": 3, "batch": 2}), synthetic_store, "epochs=5")
    assert {(c.recipe.epochs, c.recipe.batch) for c in later.cells} == {(5, 2)}


def test_a_recipe_by_another_name_is_the_same_recipe(sweep_file, synthetic_store, tmp_path):
    text = (sweep_files.HERE / "recipes" / "demo.yaml").read_text()
    mine = tmp_path / "renamed.yaml"
    mine.write_text(text)
    shipped = expand(sweep_file(), synthetic_store).cells
    renamed = expand(sweep_file(recipe=str(mine)), synthetic_store).cells
    assert renamed[0].recipe.name == "renamed"
    assert [c.cell_id for c in renamed] == [c.cell_id for c in shipped]


def test_the_name_of_a_sweep_is_a_label(sweep_file, synthetic_store):
    left, right = expand(sweep_file(name="a"), synthetic_store), expand(sweep_file(name="b"), synthetic_store)
    assert left.cells == right.cells


def test_ids_do_not_depend_on_the_spelling_of_numbers(sweep_file, synthetic_store):
    made = [
        expand(sweep_file(systems=[{"ca+dca": {"temperature": t}}], set={"optimizer.lr": lr}), synthetic_store)
        for t, lr in ((1, 1), (1.0, 1.0))
    ]
    assert made[0].cells[0].cell_id == made[1].cells[0].cell_id


def test_the_order_of_batches_does_not_depend_on_the_system(sweep_file, synthetic_store):
    made = expand(sweep_file(systems=["ca", "rjca", "concat", "ca+dca"], folds=[0, 1]), synthetic_store)
    for epoch in (0, 1):
        by_fold_and_seed = {}
        for cell in made.cells:
            by_fold_and_seed.setdefault((cell.fold, cell.seed), set()).add(batch_seed(cell, epoch))
        assert all(len(seeds) == 1 for seeds in by_fold_and_seed.values())
        assert len(set.union(*by_fold_and_seed.values())) == len(by_fold_and_seed)


def test_systems_without_their_modality_are_skipped_with_a_reason(sweep_file, synthetic_store, monkeypatch):
    monkeypatch.setattr(synthetic_store, "modalities", ("audio",))
    made = expand(sweep_file(systems=["unimodal_audio", "ca"], seeds=[0]), synthetic_store)
    assert {c.system for c in made.cells} == {"unimodal_audio"}
    (skipped,) = made.skipped
    assert skipped.label == "ca"
    assert skipped.reason.startswith("needs visual")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "demoo"}, r"unknown recipe 'demoo', did you mean 'demo'\?"),
        ({"systems": ["rjcaa"]}, r"unknown system 'rjcaa', did you mean 'rjca'\?"),
        ({"systems": [{"rjca": {"iteration": 2}}]}, r"unknown key 'iteration', did you mean 'iterations'\?"),
        ({"systems": [{"rjca": {"iterations": [1, 0]}}]}, "iterations = 0"),
        ({"targets": ["valance"]}, r"target 'valance', did you mean 'valence'\?"),
        ({"folds": [0, 9]}, r"fold 9 of synthetic, which has folds 0-\d"),
        ({"set": {"optimizer.learning": 1}}, "unknown key 'optimizer.learning'"),
        ({"set": {"epoch": 1}}, r"unknown key 'epoch', did you mean 'epochs'\?"),
        ({"set": {"epochs.more": 1}}, r"'epochs\.more': 'epochs' has no fields"),
        ({"sistems": ["ca"]}, r"unknown key 'sistems', did you mean 'systems'\?"),
        ({"systems": []}, "systems"),
        ({"systems": None}, "systems"),
        ({"systems": "ca"}, r"give a list of systems, such as \[ca\]"),
        ({"systems": [3]}, "3 is no system"),
        ({"systems": [{"ca": None, "rjca": None}]}, "is no system: write its name"),
        ({"systems": [{"system": "rjca", "iterations": 2}]}, r"unknown key 'systems\.0\.iterations'; known: params"),
        ({"seeds": "0..3"}, r"seeds = '0\.\.3': give a list, such as \[0, 1, 2\]"),
        ({"seeds": 3}, r"seeds = 3: give a list"),
        ({"seeds": [True]}, r"seeds = \[True\]: give a list"),
        ({"seeds": [-1]}, r"seeds\.0 = -1: .*greater than or equal to 0"),
        ({"seeds": [2**63]}, r"seeds\.0 = 9223372036854775808: .*less than"),
        ({"folds": "all"}, "folds = 'all': give a list"),
        ({"folds": [-1]}, r"fold -1 of synthetic, which has folds 0-\d"),
        ({"targets": "valence"}, r"give a list, such as \[valence, arousal\]"),
        ({"selection": 3}, r"selection = 3: give a list"),
        ({"store": 61}, "store = 61: .* goes in quotes"),
        ({"set": {"optimizer": "fast"}}, "optimizer = 'fast': give a mapping"),
        ({"seeds": [1, 1]}, "each once"),
        ({"targets": []}, "at least one"),
        ({"folds": []}, "at least one"),
        ({"set": {"optimizer.lr": float("inf")}}, r"optimizer\.lr"),
        ({"systems": [{"ca": {"attention_temperature": float("inf")}}]}, "attention_temperature"),
        ({"name": "my sweep/../x"}, "name"),
    ],
    ids=str,
)
def test_wrong_words_are_refused(sweep_file, synthetic_store, changes, message):
    with pytest.raises(UserError, match=message):
        expand(sweep_file(**changes), synthetic_store)


def test_overrides_without_equals(sweep_file):
    with pytest.raises(UserError, match="'seeds' has no '='"):
        sweep_files.load(sweep_file(), ["seeds"])


def test_a_misspelled_override_answers_with_the_nearest(sweep_file, synthetic_store):
    with pytest.raises(UserError, match="did you mean 'seeds'"):
        expand(sweep_file(), synthetic_store, "seed=[0]")


def test_wrong_sweeps(tmp_path):
    with pytest.raises(UserError, match=r"no sweep 'dmeo', did you mean 'demo'\?"):
        sweep_files.load("dmeo")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UserError, match=r"broken\.yaml, line 1: did not find expected"):
        sweep_files.load(broken)
    broken.write_text("- 1\n")
    with pytest.raises(UserError, match="holds a list, not a mapping"):
        sweep_files.load(broken)
    broken.write_text("")
    with pytest.raises(UserError, match="is empty, not a mapping") as error:
        sweep_files.load(broken)
    # The example that the error shows is a sweep.
    broken.write_text(error.value.remedy.partition("\n")[2])
    assert sweep_files.load(broken).systems[1].system == "rjca"


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("systems:\n\t- concat\n", "line 2: it is indented by a tab", "spaces"),
        ("name: a\nrecipe: demo\nname: b\n", "line 3: key 'name' is given twice", "leave one"),
        ("set: {epochs: 2, batch: 3, epochs: 4}\n", "line 1: key 'epochs' is given twice", "leave one"),
        ("set: *nothing\n", "line 1: found undefined alias", "correct this line"),
        ("hello\n", "holds one line of text", "a sweep looks like this"),
        ("3\n", "holds 3", "a sweep looks like this"),
    ],
)
def test_a_file_that_is_no_sweep_says_which_line(tmp_path, text, problem, remedy):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        sweep_files.load(path)
    assert str(path) in error.value.problem
    assert problem in error.value.problem
    assert "\n" not in error.value.problem
    assert remedy in error.value.remedy


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UserError, match="no text in UTF-8"):
        sweep_files.load(path)


def test_a_huge_grid_is_refused_before_it_fills_memory(sweep_file, synthetic_store):
    systems = [{"rjca": {"iterations": list(range(1, 300))}}, "ca"]
    path = sweep_file(systems=systems, seeds=list(range(20_000)))
    with pytest.raises(UserError, match=r"12,000,000 cells: 300 variants x 2 targets x 20,000 seeds; the most is"):
        expand(path, synthetic_store)


def test_labels_tell_the_cells_of_one_sweep_apart(sweep_file, synthetic_store):
    from crossfold.sweeps.launched import variant_names

    systems = ["concat", {"rjca": {"iterations": [1, 2]}}]
    made = expand(sweep_file(systems=systems, seeds=[0, 1], selection=["reported", "held_out"]), synthetic_store)
    names = variant_names(made.cells)
    labels = {cell.label_of(names[cell.cell_id]).partition(" [")[0] for cell in made.cells}
    assert len(labels) == len(made.cells) == 3 * 2 * 2 * 2
    assert {"concat valence fold 0 seed 0", "rjca iterations=2 arousal fold 0 seed 1 held out"} <= labels


def test_a_path_that_is_not_there_is_not_a_shipped_sweep(tmp_path):
    """Running another file than the one that was named, because the names are alike, would be a silent mistake."""
    with pytest.raises(UserError, match="no sweep"):
        sweep_files.find_sweep(tmp_path / "demo.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in sweep_files.HERE.glob("*.yaml")))
def test_shipped_sweeps_are_sound(name, synthetic_store):
    sweep = sweep_files.load(name)
    assert sweep.name == name
    if isinstance(sweep, sweep_files.Search):
        trials.check_space(sweep, synthetic_store)
    else:
        assert plan.expand(sweep, synthetic_store).cells


def test_the_demo_is_the_whole_spine(synthetic_store):
    made = plan.expand(sweep_files.load("demo"), synthetic_store)
    assert len(made.cells) == 10 * 2 * 2 * 3
    assert len({c.system for c in made.cells}) == 9


def test_the_demo_of_a_dose_shows_seeds_on_which_nothing_was_chosen(synthetic_store):
    """Chosen on corpora 1 and 2 and on training seeds 3 to 7; the recipe `dose` on corpora 0."""
    sweep = sweep_files.load("dose-demo")
    (corpus,) = sweep.corpora
    dose = dose_of(corpus)
    assert (dose.conflict, dose.clips) == (0.4, 32)
    assert dose.seed not in {0, 1, 2}
    cells = plan.expand(sweep, synthetic_store).cells
    assert len(cells) == 6 * 5
    assert not {cell.seed for cell in cells} & set(range(8))


def test_a_space_may_count(search_file, synthetic_store):
    """`int`, as in `iterations: {int: [1, 4]}`."""
    search = sweep_files.load(search_file(space={"iterations": {"int": [1, 4]}}))
    assert search.space["iterations"].int == (1, 4)
    trials.check_space(search, synthetic_store)


def test_trial_cells_look_at_inner_folds_only(search_file, synthetic_store):
    search = sweep_files.load(search_file(seeds=[0, 1], inner_folds=3))
    cells = trials.trial_cells(search, synthetic_store, {"temperature": 0.5, "recipe.optimizer.lr": 0.001})
    assert len(cells) == 2 * 3 * 2
    assert all(c.inner is not None and c.inner.of == 3 for c in cells)
    assert {c.inner.index for c in cells} == {0, 1, 2}
    assert {(c.params["temperature"], c.recipe.optimizer.lr) for c in cells} == {(0.5, 0.001)}
    assert len({c.cell_id for c in cells}) == len(cells)


def test_the_winner_runs_as_ordinary_cells_of_the_whole_recipe(search_file, synthetic_store):
    search = sweep_files.load(
        search_file(
            set={"epochs": 2, "batch": 5},
            params={"iterations": 2},
            winner={"folds": [0, 1], "seeds": [5], "set": {"epochs": 9}},
        )
    )
    chosen = {"temperature": 0.5, "recipe.optimizer.lr": 0.001}
    winner = trials.winner_sweep(search, chosen)
    cells = plan.expand(winner, synthetic_store).cells
    assert len(cells) == 2 * 2
    for cell in cells:
        assert cell.inner is None
        assert cell.params["iterations"] == 2
        assert cell.params["temperature"] == 0.5
        assert cell.recipe.optimizer.lr == 0.001
        assert cell.recipe.epochs == 9
        assert cell.recipe.batch == 5, "what the search was run with stays, but for what `winner.set` says"
    (trial, *_) = trials.trial_cells(search, synthetic_store, chosen)
    assert trial.recipe.epochs == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"temperatur": {"log": [0.1, 1]}}}, r"unknown key 'temperatur', did you mean 'temperature'\?"),
        ({"space": {"recipe.optimizer.lrr": {"log": [0.1, 1]}}}, "unknown key 'optimizer.lrr'"),
        ({"space": {"recipe.optimizer.lr": {"linear": [-1, 1]}}}, r"optimizer\.lr = -1"),
        ({"space": {"gain": {"linear": [0, 0.1]}}}, "gain = 0"),
        ({"space": {"axis": {"choice": ["time", "space"]}}}, "axis = 'space'"),
        ({"space": {"axis": {"choice": ["time", "space", "feature"]}}}, "axis = 'space'"),
        ({"space": {"gain": {}}}, "gain gives 0 ranges"),
        ({"space": {"gain": {"log": [0.1, 1], "linear": [0.1, 1]}}}, "gain gives 2 ranges"),
        ({"space": {"gain": {"logg": [0.1, 1]}}}, "unknown key"),
        ({"space": {"gain": {"log": [1, 0.1]}}}, "gain"),
        ({"space": {"recipe.optimizer.weight_decay": {"log": [0, 0.1]}}}, "weight_decay"),
        ({"system": "rjcaa"}, "did you mean 'rjca'"),
        ({"recipe": "demoo"}, "did you mean 'demo'"),
        ({"trials": 0}, "trials = 0"),
        ({"params": {"iterations": [1, 2]}}, "iterations"),
        ({"targets": ["valance"]}, "did you mean 'valence'"),
        ({"fold": 9}, "fold 9"),
        ({"inner_folds": 40}, "40 inner folds"),
        ({"winner": {"folds": [9]}}, "fold 9"),
    ],
    ids=str,
)
def test_a_wrong_search_is_refused_before_work(search_file, synthetic_store, changes, message):
    with pytest.raises(UserError, match=message):
        trials.check_space(sweep_files.load(search_file(**changes)), synthetic_store)


@given(
    st.dictionaries(st.sampled_from(["iterations", "tied", "axis"]), st.lists(st.integers(), min_size=1, max_size=3))
)
def test_expansion_is_the_product(params):
    size = 1
    for values in params.values():
        size *= len(values)
    made = list(sweep_files.Variant(system="rjca", params={**params, "gain": 0.5}).expand())
    assert len(made) == size
    assert all(not isinstance(v, list) for variant in made for v in variant.params.values())
    assert all(variant.params["gain"] == 0.5 for variant in made)


def test_one_sweep_runs_both_selections(sweep_file, synthetic_store):
    """The optimism of the papers' way needs cells that differ in nothing else."""
    both = expand(sweep_file(selection=["reported", "held_out"]), synthetic_store).cells
    alone = expand(sweep_file(), synthetic_store).cells
    assert len(both) == 2 * len(alone)
    pairs = {}
    for cell in both:
        pairs.setdefault(pair_key(cell), []).append(cell.recipe.selection)
    assert len(pairs) == len(alone)
    assert all(sorted(pair) == ["held_out", "reported"] for pair in pairs.values())
    assert {cell.cell_id for cell in both if cell.recipe.selection == "reported"} == {cell.cell_id for cell in alone}


def test_a_selection_may_be_one_word(sweep_file, synthetic_store):
    for words in ("held_out", ["held_out"]):
        made = expand(sweep_file(selection=words), synthetic_store)
        assert {cell.recipe.selection for cell in made.cells} == {"held_out"}
    for wrong in ("held", [], ["reported", "reported"]):
        with pytest.raises(UserError, match="selection"):
            sweep_files.load(sweep_file(selection=wrong))


def test_shared_parts_of_an_identity_are_spelled_as_they_were(sweep_file, synthetic_store):
    """`cell_id` splices the recipe into the JSON of the rest: the very text that one dump gives."""
    for cell in expand(sweep_file(selection=["reported", "held_out"]), synthetic_store).cells:
        whole = hashlib.sha256(canonical_json(cell.identity()).encode()).hexdigest()[:16]
        assert cell.cell_id == whole
    inner = cell.model_copy(update={"inner": Inner(of=3, index=1)})
    assert inner.cell_id == hashlib.sha256(canonical_json(inner.identity()).encode()).hexdigest()[:16]
    changed = cell.model_copy(update={"recipe": cell.recipe.model_copy(update={"epochs": 99})})
    assert changed.cell_id != cell.cell_id


def test_the_recipe_says_whether_targets_are_joint_unless_the_sweep_does(sweep_file, synthetic_store):
    joint = expand(sweep_file(set={"joint_targets": True}), synthetic_store).cells
    assert {cell.targets for cell in joint} == {("valence", "arousal")}
    apart = expand(sweep_file(set={"joint_targets": True}, joint_targets=False), synthetic_store).cells
    assert {cell.targets for cell in apart} == {("valence",), ("arousal",)}
    assert {c.cell_id for c in joint} == {
        c.cell_id for c in expand(sweep_file(joint_targets=True), synthetic_store).cells
    }
