"""Which pretrained weights this machine has."""

from pathlib import Path

from crossfold.platform.workspace.workspace import Workspace


def doctor_rows(space: Workspace, given: Path | None) -> list[dict[str, str]]:
    """One row of `doctor` for each set of pretrained weights."""
    from crossfold.platform.modeling.pretrained_catalogue import WEIGHTS
    from crossfold.platform.modeling.pretrained_files import weights_folder, weights_state

    folder = weights_folder(given, space)
    rows = []
    for entry in WEIGHTS.values():
        state, found = weights_state(entry, folder)
        shown = {"present": "ok", "missing": "optional", "damaged": "damaged"}[state]
        remedy = "" if state == "present" else f"put {entry.place} there, from {entry.page}"
        rows.append({"check": f"weights {entry.name}", "state": shown, "found": found, "what to do": remedy})
    return rows
