"""What a code such as B7 stands for."""

import re
from functools import cache
from pathlib import Path

from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.yaml_files import read_yaml

CODE = re.compile(r"([A-G]\d{1,2})[a-z]?")
"""An entry, or one of its facts: `G2`, `G2c`."""


class Entry(FrozenModel):
    """What one code stands for."""

    code: str
    about: str
    says: str
    """What is printed, or what the public code does."""
    here: str
    """What Crossfold does."""

    def lines(self) -> list[str]:
        """The entry as plain text."""
        return [f"{self.code}: {self.about}", f"Papers and code: {self.says}", f"Crossfold: {self.here}"]


class Register(FrozenModel):
    """All entries, in the order of their sections."""

    papers: dict[str, str]
    """What the numbers 000 to 004 stand for."""
    sections: dict[str, str]
    """Title by the letter that codes begin with."""
    entries: dict[str, Entry]


@cache
def register() -> Register:
    """The register that ships with Crossfold."""
    data = read_yaml(Path(__file__).with_name("register.yaml"), "the register", "")
    data["entries"] = {code: {"code": code, **entry} for code, entry in data["entries"].items()}
    return Register.parse(data, "register.yaml")


def find_entry(code: str) -> Entry:
    """The entry of a code; that of a fact is the entry which holds it. Raises `UserError` for a code without one."""
    entries = register().entries
    found = CODE.fullmatch(code)
    if found is None or found[1] not in entries:
        raise UserError(
            f"the register has no entry {code!r}{did_you_mean(code, entries)}",
            "a code is a letter from A to G and a number, such as B7",
        )
    return entries[found[1]]
