"""What the searches of a workspace found, as `crossfold search` left it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from crossfold.platform.workspace.documents import read_search
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.results.systems import system_rank

STATES = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class FoundSearch:
    """One search of one system."""

    record: Mapping[str, Any]
    """The file `searches/<name>.json`."""
    trials: pd.DataFrame
    """One row a trial: number, state, value, further objectives, epochs, seconds, parameters."""

    @property
    def name(self) -> str:
        """Names the files, and with `-winner` the sweep of the winner."""
        return str(self.record["name"])

    @property
    def group(self) -> str:
        """The name of the sweep that asked for this search."""
        return str(self.record["group"])

    @property
    def system(self) -> str:
        """The system that was searched."""
        return str(self.record["search"]["system"])

    @property
    def parameters(self) -> list[str]:
        """The dimensions of the space, in its order."""
        return list(self.record["space"])

    @property
    def judged(self) -> pd.DataFrame:
        """Trials with a verdict, in their order."""
        return self.trials[self.trials["state"] != "failed"].reset_index(drop=True)

    @property
    def complete(self) -> pd.DataFrame:
        """Trials that ran to their end."""
        return self.trials[self.trials["state"] == "complete"].reset_index(drop=True)


def load_searches(workspace: Workspace) -> dict[str, list[FoundSearch]]:
    """The finished searches of a workspace, by group; records of versions before groups are left out."""
    found: dict[str, list[FoundSearch]] = {}
    for path in sorted(workspace.paths.searches.glob("[!.]*.json")):
        record = read_search(path)
        if "group" in record and path.with_suffix(".parquet").is_file():
            each = FoundSearch(record, pd.read_parquet(path.with_suffix(".parquet")))
            found.setdefault(each.group, []).append(each)
    return {group: sorted(each, key=lambda one: (system_rank(one.system), one.name)) for group, each in found.items()}
