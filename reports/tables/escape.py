"""Escaping for Markdown, LaTeX and csv."""

import re

_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "−": r"$-$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "–": "--",
    "\u202f": r"\,",
    "[": "{[}",
    "]": "{]}",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "“": "``",
    "”": "''",
    "’": "'",
    "\n": " ",
}
_LATEX_LETTERS = re.compile(r"[ -~À-ÏÑ-ÖØ-Ýß-ïñ-öø-ýÿ]")
"""The letters that LaTeX sets without further packages; it stops at any other character."""
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Control characters, and those that turn the direction of the text around them."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Beginnings of a formula in a spreadsheet, in wide forms too."""


def markdown(text: str) -> str:
    """Text that Markdown and HTML print as it is."""
    text = visible(text)
    # Markdown passes HTML through, so a name could put a script on a page.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
    return _MARKDOWN.sub(r"\\\1", text)


def latex(text: str) -> str:
    """Text that LaTeX prints as it is; a character that it has no letter for becomes its number, such as [U+05D0]."""
    return "".join(
        _LATEX.get(character) or (character if _LATEX_LETTERS.match(character) else f"{{[}}U+{ord(character):04X}{{]}}")
        for character in visible(text)
    )


def visible(text: str) -> str:
    """The text with a mark in place of each invisible character, which could reorder its neighbours."""
    return _INVISIBLE.sub("\ufffd", text)


def csv_value(value: object) -> object:
    """Floats to six digits; text that a spreadsheet would run as a formula gets a quote before it."""
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, str):
        value = visible(value)
        return "'" + value if value.startswith(_FORMULA) or value.lstrip().startswith(_FORMULA) else value
    return value
