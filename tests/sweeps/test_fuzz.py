"""Sweeps, searches, recipes and evaluations with anything in them: refused in a sentence, or planned."""

import resource
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.evaluation_config import Evaluation
from crossfold.platform.core.recipe import Recipe
from crossfold.sweeps.plan import expand
from crossfold.sweeps.sweep_files import Search, Sweep, load
from crossfold.sweeps.trials import check_space
from tests.support.factories import TINY_SETTINGS

SECONDS, BYTES = 2.0, 2**30
"""What one file may cost: of CPU, and of memory beyond what was there."""

WORDS = (
    "rjca",
    "rjca+dca",
    "valence",
    "reported",
    "held_out",
    "demo",
    "none",
    "puppets",
    "ca2021",
    "each",
    "log",
    "tcn",
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | st.sampled_from(
        [10**6, 10**9, 10**12, 2**63, -(2**63), 10**400, 0.0, -0.0, 1e-320, 1e308, float("inf"), float("nan")]
    )
    | st.floats(-2, 2)
    | st.sampled_from(WORDS)
    | st.text(max_size=6)
    | st.dates()
    | st.binary(max_size=3)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
COMMON = {"name": "fuzz", "corpus": "synthetic", "recipe": "demo", "set": TINY_SETTINGS, "seeds": [0]}
SWEEP = COMMON | {
    "systems": ["concat", {"rjca": {"iterations": 2}}],
    "targets": ["valence"],
    "folds": [0],
    "selection": ["reported"],
    "joint_targets": False,
    "store": None,
}
SEARCH = COMMON | {
    "targets": ["valence"],
    "system": "rjca",
    "fold": 0,
    "inner_folds": 2,
    "trials": 2,
    "space": {"iterations": {"int": [1, 3]}, "recipe.optimizer.lr": {"log": [1e-4, 1e-2]}},
    "winner": {"folds": [0], "seeds": [0]},
}


def changed(base, paths):
    """Copies of `base` in which one value at one of the paths, or under a new key, is anything."""

    def change(path, value):
        copy = yaml.safe_load(yaml.safe_dump(base))
        inside = copy
        for key in path[:-1]:
            if not isinstance(inside.get(key), dict):
                inside[key] = {}
            inside = inside[key]
        inside[path[-1]] = value
        return copy

    return st.builds(change, st.sampled_from(paths), VALUES)


INSIDE_SET = [("set", key) for key in ("epochs", "temporal.levels", "loss", "post", "x")]
SWEEPS = changed(SWEEP, [(key,) for key in SWEEP] + INSIDE_SET)
INSIDE_SEARCH = [("space", "iterations"), ("space", "recipe.x"), ("winner", "folds")]
SEARCHES = changed(SEARCH, [(key,) for key in SEARCH] + INSIDE_SEARCH)
RECIPE_KEYS = [(key,) for key in Recipe.model_fields] + [("temporal", "levels"), ("optimizer", "lr"), ("loss", "kind")]


@pytest.fixture(scope="module")
def store_of(synthetic_store):
    """The store; systems, and torch with them, are imported by now."""
    expand(Sweep.parse(SWEEP, "sound"), synthetic_store)
    return synthetic_store


def within_limits(read):
    """Calls `read`, which may raise `UserError` and nothing else, and returns whether it accepted."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    try:
        read()
        accepted = True
    except UserError as error:
        accepted = False
        assert 0 < len(str(error)) < 4000
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < BYTES
    return accepted


def test_what_is_changed_is_sound_before(store_of, tmp_path):
    path = tmp_path / "sound.yaml"
    path.write_text(yaml.safe_dump(SWEEP))
    assert len(expand(load(path), store_of).cells) == 2
    path.write_text(yaml.safe_dump(SEARCH))
    check_space(load(path), store_of)
    path.write_text(yaml.safe_dump(SWEEP | {"selection": [[]]}))
    with pytest.raises(UserError, match="selection"):
        load(path)


FUZZ = settings(max_examples=150, suppress_health_check=list(HealthCheck))


@FUZZ
@given(data=SWEEPS)
def test_any_sweep_is_refused_in_a_sentence_or_planned(store_of, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz-sweep.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True))

    def read():
        sweep = load(path)
        assert isinstance(sweep, Sweep)
        expand(sweep, store_of)

    within_limits(read)


@FUZZ
@given(data=SEARCHES)
def test_any_search_is_refused_in_a_sentence_or_its_space_is_sound(store_of, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz-search.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True))

    def read():
        search = load(path)
        if isinstance(search, Search):
            check_space(search, store_of)

    within_limits(read)


@FUZZ
@given(data=changed({"name": "fuzz"}, RECIPE_KEYS))
def test_any_recipe_is_refused_in_a_sentence_or_read(data):
    within_limits(lambda: Recipe.parse(data, "fuzz.yaml").identity())


@FUZZ
@given(post=VALUES, stress=VALUES)
def test_any_evaluation_is_refused_in_a_sentence_or_read(post, stress):
    within_limits(lambda: Evaluation.parse({"post": post, "stress": stress}, "--post, --stress"))


@FUZZ
@given(text=st.text(max_size=200) | st.text(alphabet="[]{}:,-&*!?|> \n\tab'\"#", max_size=200))
def test_any_text_is_refused_in_a_sentence_or_read(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz-text.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    within_limits(lambda: load(path))
