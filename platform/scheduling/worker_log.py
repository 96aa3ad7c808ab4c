"""What a worker wrote to standard error before it died, kept where the driver finds it."""

import contextlib
import os

from crossfold.platform.workspace.workspace import Workspace

TAIL = 4000
"""Characters of a log that the failure log keeps."""


def log_tail(workspace: Workspace, cell_id: str) -> str:
    """The end of that log, empty where there is none."""
    with contextlib.suppress(OSError), workspace.paths.log(cell_id).open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 4 * TAIL, 0))
        text = file.read().decode("utf-8", errors="replace")
        # Python ends the stack of a crash with a list of all that is loaded, which would push the stack out.
        return "\n".join(line for line in text.splitlines() if not line.startswith("Extension modules:"))[-TAIL:]
    return ""
