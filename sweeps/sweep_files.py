"""The content of a sweep file: grids and searches as checked data, from a user's YAML or from those that ship."""

import difflib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from crossfold.datasets.corpora.embedded.dose import expand_doses
from crossfold.platform.core.base_model import MOST_COUNT, FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.recipe import Dropout, Recipe
from crossfold.platform.core.yaml_files import parse_yaml, read_yaml

HERE = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

EXAMPLE = "name: mine\ncorpus: puppets\nrecipe: demo\nsystems: [concat, rjca]"
"""The smallest sweep."""


def _listed(example: str) -> Callable[[Any], Any]:
    """Accepts lists only: `0..3` and `3` may mean several things, and pydantic would read `true` as the seed 1."""

    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or any(isinstance(entry, bool) for entry in value):
            raise ValueError(f"give a list, such as {example}")
        return value

    return check


def _some_and_distinct(value: tuple[Any, ...]) -> tuple[Any, ...]:
    # An entry may be a list, which no set can hold, until its type is checked.
    if not value or len(set(map(repr, value))) != len(value):
        raise ValueError("give at least one, and each once")
    return value


Seed = Annotated[int, Field(ge=0, lt=2**63)]
Targets = Annotated[tuple[str, ...], BeforeValidator(_listed("[valence, arousal]")), AfterValidator(_some_and_distinct)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_listed("[0, 1, 2]")), AfterValidator(_some_and_distinct)]
Folds = Annotated[tuple[int, ...], BeforeValidator(_listed("[0, 1]")), AfterValidator(_some_and_distinct)]


class Variant(FrozenModel):
    """One system with its parameters; a list as a value expands to one variant per entry."""

    system: str
    """A name of `crossfold list systems`, or of a plug-in."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the system by name (`crossfold explain SYSTEM`); a list expands to one variant per entry."""

    @property
    def count(self) -> int:
        """The number of variants that `expand` yields."""
        return math.prod(len(value) for value in self.params.values() if isinstance(value, list))

    def expand(self) -> Iterator["Variant"]:
        """All combinations of the listed values."""
        lists = {key: value for key, value in self.params.items() if isinstance(value, list)}
        if empty := [key for key, value in lists.items() if not value]:
            raise UserError(f"{self.system}: {empty[0]} = [] names no value", "give at least one, or leave it out")
        for values in itertools.product(*lists.values()):
            yield Variant(system=self.system, params={**self.params, **dict(zip(lists, values, strict=True))})


class _Common(FrozenModel):
    name: str
    """What `crossfold report NAME` and `status` call it: letters of a to z, digits, and `. _ -`."""
    store: str | None = None
    """Content hash, where a workspace has several stores of the corpus."""
    recipe: str
    """A name of `crossfold list recipes`, or a YAML file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe fields that differ from the named recipe, by dotted name."""
    targets: Targets = ("valence", "arousal")
    """Labels of the corpus to predict."""
    joint_targets: bool | None = None
    """E1: one model with a head per target, instead of one model per target; else as the recipe says."""
    seeds: Seeds = (0, 1, 2)
    """Each seed is another initialisation and order of batches; all systems see the same."""

    # A workspace has a file with the name of each launched sweep.
    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("use letters of a to z, digits, . _ - and no spaces")
        return value

    @field_validator("set")
    @classmethod
    def _selection_is_one(cls, value: dict[str, Any]) -> dict[str, Any]:
        if isinstance(value.get("selection"), list):
            raise ValueError("several selections are a key of the sweep: write `selection: [...]` outside `set`")
        return value


def _variants(value: Any) -> Any:
    """`rjca`, `rjca: {iterations: 2}` and `{system: rjca, params: {...}}` are three forms of one variant."""
    if not isinstance(value, list | tuple) or not value:
        named = value if isinstance(value, str) else "concat, rjca"
        raise ValueError(f"give a list of systems, such as [{named}]")
    return [_variant(entry) for entry in value]


DosedCorpora = Annotated[
    tuple[dict[str, Any], ...], BeforeValidator(lambda given: [given] if isinstance(given, dict) else given)
]
"""One mapping, such as `{name: synthetic, conflict: [0, 0.2]}`, or several."""
Systems = Annotated[tuple[Variant, ...], BeforeValidator(_variants)]


class Sweep(_Common):
    """A grid: systems x folds x targets x seeds, and doses of a corpus where it has some."""

    corpus: str | DosedCorpora
    """A name of `crossfold list corpora`, or of a plug-in, whose features must be prepared. Or synthetic with a dose,
    which is made on the spot: `{name: synthetic, conflict: [0, 0.2]}`, or a list of such; a listed value expands to one
    corpus per entry."""
    systems: Systems
    """Names, or names with parameters: `[concat, rjca: {iterations: [1, 2]}]`."""
    folds: Folds = (0,)
    """Folds of the store; fold 0 is the official split where the corpus has one."""
    selection: tuple[Literal["reported", "held_out"], ...] | None = None
    """Which split picks the best epoch, one or both (`[reported, held_out]`); else as the recipe says."""
    modality_dropout: tuple[Dropout, ...] | None = Field(None, min_length=1)
    """Modality dropout of the recipe, one or several (`[{}, {audio: 0.3, visual: 0.3}]`); else as it says."""
    seen: tuple[int, ...] | None = None
    """Folds whose reported clips were seen when the parameters or the recipe were chosen, as by a search with
    `allow_seen`: every number of them is labelled. By default those that the choice of the recipe `demo` saw."""

    @model_validator(mode="after")
    def _one_store_is_of_one_corpus(self) -> "Sweep":
        if len(self.corpora) > 1 and self.store is not None:
            raise ValueError("store names one store, and corpus lists several doses: leave out store")
        return self

    @property
    def corpora(self) -> tuple[str, ...]:
        """The name of the corpus, or of the corpus with each of its doses. Raises `UserError` for a wrong dose."""
        if isinstance(self.corpus, str):
            return (self.corpus,)
        return tuple(dict.fromkeys(dose.corpus for given in self.corpus for dose in expand_doses(given)))

    @field_validator("seen", mode="before")
    @classmethod
    def _a_list_of_folds(cls, value: Any) -> Any:
        return value if value is None else _listed("[1]")(value)

    @field_validator("selection", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value if value is None else (value,)
        return _some_and_distinct(tuple(_listed("[reported, held_out]")(value)))


class Winner(FrozenModel):
    """The ordinary cells that the best configuration of a search runs as."""

    folds: Folds | None = None
    """By default the fold of the search, whose reported clips the search never sees."""
    seeds: Seeds = (0, 1, 2)
    """Seeds that the winner runs with."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe fields that differ from those of the search, such as a longer budget."""


_Whole = int
"""The built-in `int`, which the field of that name hides inside `Range`."""


class Range(FrozenModel):
    """One dimension of a search space: exactly one of int, log, linear and choice."""

    int: tuple[_Whole, _Whole] | None = None
    """Whole numbers from the first to the last, both included."""
    log: tuple[float, float] | None = None
    """Numbers between the two, uniform in their logarithm."""
    linear: tuple[float, float] | None = None
    """Numbers between the two, uniform."""
    choice: tuple[Any, ...] | None = None
    """One of these values."""
    points: _Whole | None = Field(None, ge=2, le=1000)
    """How many values of a `log` or `linear` range the sampler `grid` takes, both ends included."""
    when: dict[str, tuple[Any, ...]] | None = None
    """Parameters and the values of theirs for which this one is drawn; else it keeps its default."""

    @field_validator("when", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: tuple(given) if isinstance(given, list | tuple) else (given,) for key, given in value.items()}


class Budget(FrozenModel):
    """What a search may cost, each system the same; with several limits the first that is reached ends it."""

    trials: int | None = Field(None, ge=1, le=MOST_COUNT)
    """Trials that ran to their end or were stopped as hopeless; failed ones do not count."""
    hours: float | None = Field(None, gt=0)
    """Hours in which trials ran, of all launches together."""
    cell_epochs: int | None = Field(None, ge=1)
    """Epochs of training, of all cells of all trials together."""


Objective = Literal["ccc", "parameters", "flops", "seconds"]
Objectives = Annotated[
    tuple[Objective, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else _listed("[ccc, parameters]")(value)),
    AfterValidator(_some_and_distinct),
]


class _SearchFields(FrozenModel):
    fold: int = 0
    """The fold whose training clips are searched on; its reported clips are never opened."""
    inner_folds: int = Field(3, ge=2, le=MOST_COUNT)
    """Parts that these training clips are split into; a configuration is judged by its mean CCC over them."""
    budget: Budget = Budget()
    """What the search of each system may cost."""
    trials: int | None = Field(None, ge=1, le=MOST_COUNT)
    """Short for `budget: {trials: ...}`; those of earlier launches are included."""
    sampler: Literal["tpe", "gp", "cmaes", "random", "grid", "qmc"] = "tpe"
    """Chooses configurations; they are Optuna's own."""
    sampler_seed: int = Field(0, ge=0, lt=2**31)
    """Seed of Optuna's sampler."""
    scheduler: Literal["asha", "median", "hyperband", "none"] | None = None
    """Stops weak trials; else `asha`, and `none` with several objectives."""
    objective: Objectives = ("ccc",)
    """What is optimised: `ccc`, the mean over targets, inner folds and seeds, first; costs that follow are minimised,
    and the search then finds a Pareto front."""
    start: tuple[dict[str, Any], ...] = ()
    """Configurations that are judged first; the sampler draws parameters that one leaves out."""
    strict: bool = False
    """One trial at a time, so that the seed determines the sequence of trials whatever the number of workers."""
    retrain: int = Field(0, ge=0, le=100)
    """So many of the best configurations are judged again with fresh seeds, which choose the winner."""
    allow_seen: bool = False
    """Let the winner report clips that the search saw. Every number of it is labelled then."""

    @field_validator("objective")
    @classmethod
    def _ccc_first(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value[0] != "ccc":
            raise ValueError("begin with ccc, as in [ccc, parameters]")
        return value

    @property
    def limits(self) -> Budget:
        """The budget, `trials` included."""
        return self.budget if self.trials is None else self.budget.model_copy(update={"trials": self.trials})

    @property
    def stops_by(self) -> str:
        """The scheduler, its default filled in."""
        return self.scheduler or ("asha" if len(self.objective) == 1 else "none")


class Search(_Common, _SearchFields):
    """A search space over one system, judged on inner folds of the training clips of `fold`."""

    corpus: str
    """A name of `crossfold list corpora`, or of a plug-in; its features must be prepared."""
    system: str
    """A name of `crossfold list systems`, or of a plug-in."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the system that are not searched."""
    space: dict[str, Range] = Field(min_length=1)
    """Parameters of the system by name, recipe fields as `recipe.<dotted name>`."""
    winner: Winner = Winner()
    """What the best configuration then runs as."""
    group: str | None = None
    """The name of the file that asks for this search and for those of other systems."""
    repeat: int = Field(0, ge=0)
    """Which of several repetitions of the same search, from 0."""

    @property
    def winner_folds(self) -> tuple[int, ...]:
        """The folds that the winner reports."""
        return self.winner.folds or (self.fold,)


class SearchBlock(_SearchFields):
    """The block `search:` of a sweep."""

    space: dict[str, Range | None] | None = None
    """As of a `Search`; `default`, here None, is the range that a system declares. Without `space`: all of them."""
    seeds: Seeds = (0,)
    """Of the cells of trials."""
    repeats: int = Field(1, ge=1, le=1000)
    """How often the search is done, each time with another seed of the sampler."""

    @field_validator("space", mode="before")
    @classmethod
    def _default_is_none(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: None if given == "default" else given for key, given in value.items()}


class SearchSweep(_Common):
    """A sweep whose systems are searched first: each has the same budget, and its winner runs as ordinary cells."""

    corpus: str
    """A name of `crossfold list corpora`, or of a plug-in; its features must be prepared."""
    systems: Systems
    """Names, or names with the parameters that are not searched."""
    folds: Folds = (0,)
    """Folds that the winners run on."""
    search: SearchBlock
    """How each system is searched."""
    winner: dict[str, Any] = Field(default_factory=dict)
    """As of a `Search`; folds and seeds are those of the sweep unless it says others."""


AnySearch = Search | SearchSweep


def load(source: str | Path, overrides: Sequence[str] = ()) -> Sweep | AnySearch:
    """A sweep or search by file, or by the name of one that ships; `overrides` are `key=value` of `--set`.

    A key of the sweep is set directly (`seeds=[0]`), one of its block `search` there (`inner_folds=2`), any other key
    is taken as a field of the recipe (`epochs=5`, `optimizer.lr=0.01`).
    """
    return parse_sweep(read_yaml(find_sweep(source), "a sweep", EXAMPLE), str(source), overrides)


def parse_sweep(given: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> Sweep | AnySearch:
    """The sweep or search that a mapping of a file describes; see `load`."""
    data = dict(given)
    kind = _kind_of(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"--set {override!r} has no '='", "write --set key=value")
        value = parse_yaml(text, f"--set {key}={text[:40]}", "write it as in a sweep file")
        if key in kind.model_fields:
            data[key] = value
        elif kind is SearchSweep and key in SearchBlock.model_fields:
            data["search"] = {**(data["search"] or {}), key: value}
        elif key.partition(".")[0] not in Recipe.model_fields:
            known = [*kind.model_fields, *Recipe.model_fields]
            raise UserError(
                f"--set {override}: unknown key {key!r}{did_you_mean(key, known)}", "a sweep key or recipe field"
            )
        else:
            data["set"] = {**(data.get("set") or {}), key: value}  # `set:` without a value is null
    _refuse_recipe_fields(data, kind, source)
    try:
        return kind.parse(data, source)
    except UserError as error:
        raise UserError(error.problem, f"{error.remedy}; {_NEEDS[kind]}") from None


_NEEDS: dict[type[Sweep | AnySearch], str] = {
    Sweep: "a grid has name, corpus, recipe and systems",
    Search: "a search has name, corpus, recipe, system, space and a budget, such as trials",
    SearchSweep: "a search of several systems has name, corpus, recipe, systems and search",
}


def _kind_of(data: Mapping[str, Any]) -> type[Sweep | AnySearch]:
    """A search has a space, one of several systems a block `search`; without these, it is what has more of the keys."""
    if "search" in data:
        return SearchSweep
    search, grid = (
        len(data.keys() & (kind.model_fields.keys() - other.model_fields.keys()))
        for kind, other in ((Search, Sweep), (Sweep, Search))
    )
    return Search if "space" in data or search > grid else Sweep


def _refuse_recipe_fields(data: Mapping[str, Any], kind: type[Sweep | AnySearch], source: str) -> None:
    """Raises `UserError` for a recipe in the place of a sweep, and for a field of the recipe among the sweep's keys."""
    fields = [key for key in data if key not in kind.model_fields and key in Recipe.model_fields]
    if len(fields) > 1 and not data.keys() & {"corpus", "system", "systems"}:
        raise UserError(
            f"{source} is a recipe, not a sweep: it has {', '.join(fields[:3])} and no systems",
            f"name it in a sweep, as `recipe: {source}`, and run that",
        )
    if fields:
        raise UserError(
            f"{source}: {fields[0]} is a field of the recipe, not a key of a sweep",
            f"write it under `set:`, as `set: {{{fields[0]}: ...}}`",
        )


def find_sweep(source: str | Path) -> Path:
    """The file itself, or a shipped sweep of that name. Raises `UserError` with the nearest right name.

    A path such as `sweeps/paper/grjca-t2.yaml` means the shipped file in whatever folder the command runs.
    """
    path = Path(source)
    if path.is_file():
        return path
    for shipped in _shipped():
        inside = shipped.relative_to(HERE.parent)
        if path.as_posix() in (shipped.stem, shipped.name, inside.as_posix()):
            return shipped
    here = path.parent if path.parent.is_dir() else Path()
    files = [str(found.relative_to(here)) for suffix in ("*.yaml", "*.yml") for found in here.glob(suffix)]
    if close := difflib.get_close_matches(path.name if path.suffix else f"{path.name}.yaml", files, n=1, cutoff=0.8):
        near = f", did you mean {str(here / close[0])!r}?"
    else:
        near = did_you_mean(path.stem, shipped_sweeps())
    raise UserError(f"no sweep {str(source)!r}{near}", "give a YAML file or a name")


def shipped_sweeps() -> list[str]:
    """Names of the sweeps that come with Crossfold; the sweep of a paper's table has the name of the table."""
    return [path.stem for path in _shipped()]


def _shipped() -> list[Path]:
    """Crossfold's own sweeps, then one a table of a paper, then scans of papers as searches."""
    return [path for folder in (HERE, HERE / "paper", HERE / "searches") for path in sorted(folder.glob("*.yaml"))]


def _variant(entry: Any) -> Any:
    if isinstance(entry, str):
        return {"system": entry}
    if isinstance(entry, Variant) or (isinstance(entry, dict) and "system" in entry):
        return entry
    if isinstance(entry, dict) and len(entry) == 1:
        ((system, params),) = entry.items()
        if params is None or isinstance(params, dict):
            return {"system": system, "params": params or {}}
    raise ValueError(f"{entry!r} is no system: write its name, as rjca, or one as rjca: {{iterations: [2, 3]}}")
