"""What reports know of the cells of a workspace."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from crossfold.platform.core.cell import FOLD_RULES
from crossfold.platform.core.outcome import Failure
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.reports.results.curves import Curves
from crossfold.reports.results.systems import published, system_family, system_label
from crossfold.reports.stats.runs import Run

EMBEDDED = ("puppets", "synthetic")
"""Corpora made by Crossfold itself; no table may let their numbers pass for a paper's."""

RANDOM_WEIGHTS = "-random-weights"
"""Ends the name of a corpus whose encoders know nothing (`crossfold prepare --random-weights`)."""

MEMORIES = ("device", "process")
"""Where memory is measured; numbers of the two cannot be compared."""

COLUMNS = (
    "cell_id", "status", "setting", "system", "params", "variant", "corpus", "store", "fold", "target", "seed",
    "recipe", "protocol", "revision", "selection", "ccc", "ccc_video_mean", "pcc", "rmse", "best_epoch", "epochs",
    "train_seconds", "parameters", "flops", "memory_device", "memory_process", "failure",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """The facts that must be equal for two numbers to be in one table."""

    corpus: str
    store: str
    recipe: str
    """Name of the recipe, a label."""
    recipe_hash: str
    """First 8 hex digits of the hash of the recipe without its name; empty while no cell has recorded it."""
    selection: str
    protocol: int
    joint: bool
    """One model with a head per target, instead of one model per target (E1)."""
    fold_rule: str = field(default="", compare=False)
    """The rule of the folds of the store, a key of `FOLD_RULES`; empty where it is not known."""

    @property
    def key(self) -> str:
        """A name that is unique to the setting."""
        heads = "joint" if self.joint else "single"
        return f"{self.corpus}-{self.store}-{self.recipe_hash or 'unknown'}-p{self.protocol}-{heads}"

    @property
    def embedded(self) -> bool:
        """Whether the corpus is one that Crossfold makes itself."""
        # Puppets in another layout are `puppets-recola`, `puppets-manifest`.
        return self.corpus.startswith(EMBEDDED)

    @property
    def folds_words(self) -> str:
        """The rule of the folds in words, for every place that shows numbers of a setting."""
        if not self.fold_rule:
            return "not known: the feature store is not in this workspace"
        words = FOLD_RULES.get(self.fold_rule)
        return f"{self.fold_rule} ({words})" if words else self.fold_rule

    @property
    def own(self) -> bool:
        """Whether the corpus is somebody's own: no paper reports numbers of it, and Crossfold does not make it."""
        return not self.embedded and not published(self.corpus.removesuffix(RANDOM_WEIGHTS))

    @property
    def unprinted(self) -> bool:
        """Whether no paper can have a number of it: somebody's own corpus, or one with a dose of what is planted."""
        # Nothing of ours is named so without a dose; `datasets/corpora/embedded/dose.py` writes the names.
        return self.own or (self.embedded and "-dose" in self.corpus)

    @property
    def label(self) -> str:
        """The warning on every table and figure that is made from an embedded corpus; empty for others."""
        if self.corpus.endswith(RANDOM_WEIGHTS):
            return f"random encoder weights: {self.corpus} - a test of the pipeline, not a result"
        return f"embedded corpus: {self.corpus} - not the papers' data" if self.embedded else ""


@dataclass(frozen=True)
class Robustness:
    """Entries of `result.json` on damaged inputs (docs/results.md)."""

    stress: Sequence[Mapping[str, Any]] = ()
    """Scores under the stress suite, one entry per kind, modality and strength of damage; `left_out` as arrays."""
    gates: Sequence[Mapping[str, Any]] = ()
    """How well each gate detects damaged frames."""


@dataclass(frozen=True)
class Results:
    """Everything that a report shows, read once."""

    cells: pd.DataFrame
    """One row per cell and target, columns `COLUMNS`; `status` is done, failed or planned."""
    runs: Mapping[tuple[str, str], Run]
    """Finished (cell_id, target) -> what statistics need."""
    settings: Mapping[str, Setting]
    """By key, the one with the most finished cells first."""
    records: Mapping[str, CellRecord]
    """Finished cells on disk, for curves and predictions."""
    failures: tuple[Failure, ...] = ()
    """The last failure of each cell that did not finish afterwards."""
    superseded: int = 0
    """Finished cells left out because a later revision of their system has run in the same setting."""
    variants: Mapping[str, str] = field(default_factory=dict)
    """Variant (system and parameters, as one string) -> the name shown to readers."""
    processed: Mapping[tuple[str, str, str], Run] = field(default_factory=dict)
    """Finished (cell_id, target, post-processing) -> the same after post-processing: `fixed`, `train` or `oracle`."""
    robustness: Mapping[str, Robustness] = field(default_factory=dict)
    """Finished cell_id -> its scores on damaged inputs; cells without any are left out."""
    sweep_cells: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Name of a launched sweep -> the ids of the cells that it asked for."""
    seen: frozenset[str] = frozenset()
    """Ids of cells whose reported clips were seen when their parameters or recipe were chosen."""
    ensembles: Mapping[frozenset[str], Mapping[str, Any]] = field(default_factory=dict)
    """Ids of cells that differ in the seed only -> metrics per target of their mean prediction."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """System of a plug-in, without `+dca` -> the title that its finished cells recorded."""

    stress_tables: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By key of a setting, what `stress_table` has computed: four parts of a report ask for it."""

    def of_sweeps(self, names: Sequence[str]) -> "Results":
        """Those of the cells that some launched sweeps asked for."""
        asked = frozenset().union(*(self.sweep_cells[name] for name in names))
        cells = self.cells[self.cells["cell_id"].isin(asked)].reset_index(drop=True)
        there = set(cells["setting"])
        return replace(
            self,
            cells=cells,
            settings={key: setting for key, setting in self.settings.items() if key in there},
            records={cell_id: record for cell_id, record in self.records.items() if cell_id in asked},
            failures=tuple(failure for failure in self.failures if failure.cell_id in asked),
            sweep_cells={name: self.sweep_cells[name] for name in names},
        )

    def rows(self, setting: Setting, **where: object) -> pd.DataFrame:
        """The rows of a setting with these values, as in `results.rows(setting, status="done", fold=0)`."""
        matches = [self.cells[column] == value for column, value in {"setting": setting.key, **where}.items()]
        return self.cells[np.logical_and.reduce(matches)]

    def name_of(self, system: str) -> str:
        """What tables and figures call a system."""
        return system_label(system, self.titles)

    def family_of(self, system: str) -> str:
        """The name of the systems that one is drawn with."""
        return system_family(system, self.titles)

    @cached_property
    def curves(self) -> Curves:
        """Learning curves of the finished cells."""
        return Curves(self.records)

    @cached_property
    def groups(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """(setting, variant, target) -> its rows of `cells`."""
        # Split once: filtering all cells again for every number of a large report takes seconds.
        grouped: Any = self.cells.groupby(["setting", "variant", "target"])
        return {(str(s), str(v), str(t)): rows for (s, v, t), rows in grouped}

    @cached_property
    def finished_runs(self) -> dict[tuple[str, str, str], tuple[Run, ...]]:
        """(setting, variant, target) -> its finished runs, in order of fold and seed."""
        found: dict[tuple[str, str, str], tuple[Run, ...]] = {}
        for key, rows in self.groups.items():
            done = rows.loc[rows["status"] == "done", "cell_id"]
            found[key] = tuple(self.runs[str(cell_id), key[2]] for cell_id in done)
        return found

    @cached_property
    def variants_of(self) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
        """(setting, system) -> variant -> its parameters."""
        found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        distinct = self.cells[["setting", "system", "variant", "params"]].drop_duplicates()
        for row in distinct.to_dict("records"):
            known = found.setdefault((str(row["setting"]), str(row["system"])), {})
            known[str(row["variant"])] = json.loads(row["params"])
        return found


def differing_keys(variants: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters, in alphabetical order, in which some of the variants differ; one that is absent differs."""
    keys = sorted({key for params in variants for key in params})
    # By text, because a value may be a list, which no set can hold.
    return [key for key in keys if len({repr(params[key]) if key in params else "" for params in variants}) > 1]


def memory_of(env: Mapping[str, Any]) -> dict[str, float | None]:
    """Peak memory of a cell in MiB, of its GPU (`memory_device`) or its process; None where it was not recorded."""
    peak = env.get("peak_memory") or {}
    return {f"memory_{kind}": peak["bytes"] / 2**20 if peak.get("kind") == kind else None for kind in MEMORIES}
