"""How well gates tell damaged frames, as a table."""

import pandas as pd

from crossfold.reports.results.model import Results, Setting


def gate_table(results: Results, setting: Setting) -> pd.DataFrame:
    """Mean over the cells of a variant of what `result.json` says of its gates.

    Index: variant, gate, modality, truth, damage; columns auroc, ece, mean_damaged, mean_clean. A gate that saw only
    damaged or only clean frames in a cell has no AUROC there, and that cell does not count.
    """
    rows = []
    done = results.cells[(results.cells["setting"] == setting.key) & (results.cells["status"] == "done")]
    for cell_id, variant in done[["cell_id", "variant"]].drop_duplicates().itertuples(index=False):
        look = results.looks.get(str(cell_id))
        rows += [
            {"variant": variant, **{name: entry[name] for name in (*_KEYS[1:], *_VALUES)}}
            for entry in (look.gates if look else ())
        ]
    table = pd.DataFrame(rows, columns=[*_KEYS, *_VALUES])
    table[list(_VALUES)] = table[list(_VALUES)].apply(pd.to_numeric)
    return table.groupby(list(_KEYS))[list(_VALUES)].mean()


_KEYS = ("variant", "gate", "modality", "truth", "damage")
_VALUES = ("auroc", "ece", "mean_damaged", "mean_clean")
