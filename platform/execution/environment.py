"""What `env.json` says of where a cell ran: when, the machine, the versions of libraries, the commit of the code."""

import importlib.metadata
import os
import platform as host
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import crossfold
from crossfold.platform.core.files import utc_now

PACKAGES = ("platform", "fusion_models", "datasets", "sweeps", "reports")
"""The folders with code and the files that it reads; a changed document or test changes no number."""
SECONDS = 10.0
"""git has to answer within this; a network drive may take longer, and then the commit is not recorded."""


def environment() -> dict[str, Any]:
    """The facts of this moment and process; no secrets, no environment variables."""
    code = code_version()
    return {
        "finished_at": utc_now(),
        "machine": {
            "host": host.node(),
            "system": host.platform(),
            "python": host.python_version(),
            "cores": os.cpu_count(),
        },
        "versions": versions(),
        **({"code": code} if code else {}),
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    names = ("torch", "numpy", "ray")
    # That of the running code: what is installed of a checkout keeps the version it had when it was installed.
    return {"crossfold": crossfold.__version__, **{name: importlib.metadata.version(name) for name in names}}


@lru_cache(maxsize=1)
def code_version() -> dict[str, Any] | None:
    """`commit` (40 digits) and `clean` of the running code; None where it is no checkout or git does not answer.

    clean: whether the folders of the code have neither changed nor further files. Asked once a process, as what has
    been imported stays as it is.
    """
    return version_of_checkout(Path(*crossfold.__path__[:1]))


def version_of_checkout(package: Path) -> dict[str, Any] | None:
    """The same of the package whose folders, or links to them, are in `package`."""
    folders = [(package / name).resolve() for name in PACKAGES]
    root = folders[0].parent
    # A package that is installed within somebody's own repository is not a part of that repository.
    if not (root / ".git").exists() or any(folder.parent != root for folder in folders):
        return None
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    status = _git(root, "status", "--porcelain", "--", *PACKAGES)
    return {"commit": commit, "clean": not status} if commit and status is not None else None


def _git(root: Path, *words: str) -> str | None:
    """What git answers; None where it fails."""
    try:
        done = subprocess.run(
            # Without the lock, nothing is written into the checkout, which another process may be changing.
            ["git", "--no-optional-locks", "-C", str(root), *words],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            # Within a hook, such variables lead to another repository.
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
