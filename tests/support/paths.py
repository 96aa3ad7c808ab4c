"""Where the checkout lies, and how a process that a test starts finds the code and these helpers."""

import os
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
PYTHONPATH = os.pathsep.join([str(ROOT / ".pkg"), str(ROOT)])
"""The code of this checkout and `tests.support`; workers of Ray need it too, as they import their trial by name."""


def environment(**settings: object) -> dict[str, str]:
    """The environment of a process that imports this checkout and `tests.support`, with more variables set."""
    return {**os.environ, "PYTHONPATH": PYTHONPATH} | {name: str(value) for name, value in settings.items()}
