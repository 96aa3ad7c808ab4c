"""How well gates detect damaged frames, as a table."""

import pandas as pd

from crossfold.reports.results.model import Results, Robustness, Setting

_KEYS = ["variant", "gate", "modality", "truth", "damage"]
_VALUES = ["auroc", "ece", "mean_damaged", "mean_clean"]


def gate_rows(results: Results, setting: Setting) -> pd.DataFrame:
    """The gate scores in `result.json` of every finished cell: columns seed, those of `gate_table`, and its index."""
    cells = results.rows(setting, status="done")[["cell_id", "variant", "seed"]].drop_duplicates()
    rows = [
        {**entry, "variant": variant, "seed": seed}
        for cell_id, variant, seed in cells.itertuples(index=False)
        for entry in results.robustness.get(str(cell_id), Robustness()).gates
    ]
    table = pd.DataFrame(rows, columns=["seed", *_KEYS, *_VALUES])
    table[_VALUES] = table[_VALUES].apply(pd.to_numeric)
    return table


def gate_table(results: Results, setting: Setting) -> pd.DataFrame:
    """Mean over the cells of a variant of `gate_rows`.

    Index: variant, gate, modality, truth, damage; columns auroc, ece, mean_damaged, mean_clean. A gate that saw only
    damaged or only clean frames in a cell has no AUROC there, and that cell does not count.
    """
    return gate_rows(results, setting).groupby(_KEYS)[_VALUES].mean()
