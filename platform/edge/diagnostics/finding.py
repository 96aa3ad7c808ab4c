"""One row of `crossfold doctor`."""

from typing import Any

Row = dict[str, Any]
GIB = 2**30


def row(check: str, good: bool, found: str, remedy: str = "", *, needed: bool = True) -> Row:
    """One finding; `needed`: whether work stops without it."""
    # `doctor` fails a script only for what stops work.
    state = "ok" if good else "missing" if needed else "optional"
    return {"check": check, "state": state, "found": found, "what to do": "" if good else remedy}
