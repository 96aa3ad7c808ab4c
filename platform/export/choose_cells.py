"""Which finished cells predict together under the name of a system."""

import json
from collections.abc import Iterable, Sequence

import numpy as np

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.export.predictor import why_not_deployable
from crossfold.platform.workspace.cell_record import CellRecord


def best_variant(records: Iterable[CellRecord], system: str, corpus: str | None = None) -> list[CellRecord]:
    """The cells of all folds and seeds of one variant of a system: that with the best mean CCC where there are several.

    A variant is parameters, recipe and store. Targets that are trained apart are of one variant. Raises `UserError`
    where no finished cell of the system can predict, or where its cells are of several corpora and none is named.
    """
    found = [record for record in records if record.cell.system == system and record.cell.inner is None]
    ran_on = {record.cell.corpus for record in found}
    found = [record for record in found if corpus in (None, record.cell.corpus)]
    if not found and corpus is not None and ran_on:
        raise UserError(
            f"no finished cell of {system} on {corpus}{did_you_mean(corpus, ran_on)}",
            "correct its name, or leave it out",
        )
    if not found:
        raise UserError(
            f"no finished cell of {system}{f' on {corpus}' if corpus else ''}",
            f"use `crossfold run` with a sweep that has `systems: [{system}]` first",
        )
    if len(corpora := sorted({record.cell.corpus for record in found})) > 1:
        raise UserError(f"{system} has cells of {', '.join(corpora)}", "choose one with --corpus, or give a cell id")
    able = [record for record in found if why_not_deployable(record.cell) is None]
    if not able:
        raise UserError(f"no cell of {system} can predict: {why_not_deployable(found[0].cell)}", "use another recipe")
    variants: dict[str, list[CellRecord]] = {}
    for record in able:
        identity = record.cell.identity()
        same = {key: value for key, value in identity.items() if key not in ("fold", "seed", "targets")}
        variants.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(record)
    return max(variants.values(), key=_score)


def _score(records: Sequence[CellRecord]) -> float:
    scores = [metrics["ccc"] for record in records for metrics in record.result["metrics"].values()]
    return float(np.mean(scores))
