"""Errors, and the sentence that helps with a wrong name."""

import difflib
from collections.abc import Iterable


class FleetError(RuntimeError):
    """The fleet, not a cell, is broken. What finished is kept, and the same command continues."""


LISTED = 12
"""The most names an error lists."""


class UserError(ValueError):
    """Something that a user can fix. Says the value, the rule it breaks, and what to do; the CLI exits with 2."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}\n  -> {remedy}" if remedy else problem)

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)


class DataError(UserError):
    """A file of a corpus or a store is not what it claims to be. Trying again does not help."""


class Diverged(ArithmeticError):
    """Training left the numbers: names the step and the tensor that stopped being finite."""


class Cancelled(Exception):
    """The driver asked this cell to stop (a pruned trial, a sweep being stopped). Not a failure."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an error about a wrong name: the nearest right one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f", did you mean {close[0]!r}?"
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"; known: {', '.join(known[:LISTED])}{more}" if known else ""


class RemoteUnavailable(OSError):
    """The place could not be reached, read or written; what was to be done there may work later."""
