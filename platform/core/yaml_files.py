"""YAML and JSON that people write, read within limits, with each error in one sentence; of YAML each key once.

Every file and every value of an option that is YAML is read here, because a few lines of YAML can ask for gigabytes
(aliases of aliases) or overflow the stack (lists in lists).
"""

import codecs
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from crossfold.platform.core.errors import UserError

MOST_BYTES = 8_000_000
"""Of a file or value; a sweep of 100,000 seeds has fewer than one million."""
MOST_DEPTH = 40
"""Levels of lists and mappings in each other; sweeps and recipes have four."""
MOST_VALUES = 1_000_000
"""Values of a document, those that aliases repeat counted each time."""
MOST_JSON_BYTES = 64 * 2**20
"""Of a file in JSON; a transcript of ten hours has fewer than ten million."""
MOST_JSON_DEPTH = 60
"""Lists and objects in each other; what a recogniser writes has six."""
_WRITTEN = re.compile(r"[\t\n\r -~]")  # tables, YAML and JSON have some of these
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = re.compile(r"[^\[\]{}]+")

# Ten times faster where PyYAML was built with libyaml: a sweep may list thousands of seeds.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_KINDS = {type(None): "is empty", list: "holds a list", str: "holds one line of text"}


class _Loader(_BASE):  # type: ignore[misc]
    """YAML that refuses a key given twice, of which PyYAML would silently drop one value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        counts = Counter(key.value for key in keys)
        for key in reversed(keys):
            if counts[key.value] > 1:
                raise yaml.MarkedYAMLError(None, None, f"key {key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


def decode_text(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 where a byte order mark says so: spreadsheets and some terminals write that.

    The mark is no part of the text, and every line ends with a line feed. Raises `UnicodeDecodeError`.
    """
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if marked else "utf-8-sig")
    if marked and not _WRITTEN.search(text):
        data.decode("utf-8")  # it is no text that begins like that, and this says so
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_yaml(text: str, source: str, remedy: str) -> Any:
    """The value that a text in YAML stands for.

    source: names the text in errors, as `--set seeds=[0]` or a file; remedy: what to do about text that is not YAML.
    Raises `UserError`, with the line where the text has several.
    """
    _check_limits(text, source, remedy)
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _explained(source, text, remedy, error) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # A number of 5,000 digits or the 45th of May is a ValueError of Python's own.
        raise UserError(f"{source} holds a value that cannot be read: {_first_line(error)}", remedy) from None


def read_yaml_text(path: Path, what: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, of at most `MOST_BYTES`.

    what: the kind of file, as `a sweep`. Raises `UserError` that names the file.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(f"{path} has {size:,} bytes; {what} has at most {MOST_BYTES:,}", "give another file")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8", f"save it in UTF-8; {what} is a YAML file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", f"give {what} as a YAML file") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{str(path)!r} is no path: {error}", f"give {what} as a YAML file") from None


def read_yaml(path: Path, what: str, example: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    what: the kind of file, as `a sweep`; example: the smallest one that works, shown where the file is of another kind.
    Raises `UserError` that names the file, and the line where there is one.
    """
    data = parse_yaml(read_yaml_text(path, what), str(path), "correct the file")
    if not isinstance(data, dict):
        found = _KINDS.get(type(data), f"holds {str(data)[:40]}")
        shown = "\n".join(f"     {line}" for line in example.splitlines())
        raise UserError(f"{path} {found}, not a mapping of keys", f"{what} looks like this:\n{shown}")
    return data


def read_json_text(path: Path) -> str:
    """The text of a file, as `decode_text` has it. Raises `UserError` that names the file."""
    try:
        if (size := path.stat().st_size) > MOST_JSON_BYTES:
            raise UserError(f"{path} has {size:,} bytes; at most {MOST_JSON_BYTES:,} are read", "give another file")
        return decode_text(path.read_bytes())
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})", "write it again, in UTF-8") from None


def parse_json(text: str) -> Any:
    """The value that a text in JSON stands for. Raises `ValueError` that says why it stands for none."""
    # Brackets in strings are no levels; they are taken out before levels are counted.
    depth = deepest = 0
    for bracket in _NO_BRACKETS.sub("", _STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MOST_JSON_DEPTH:
        raise ValueError(f"more than {MOST_JSON_DEPTH} lists or objects in each other")
    try:
        return json.loads(text)
    except RecursionError:  # brackets that the count above took for part of a broken string
        raise ValueError(f"more than {MOST_JSON_DEPTH} lists or objects in each other") from None


def _check_limits(text: str, source: str, remedy: str) -> None:
    """Follows the events of the parser, which need no memory, before anything is built of them."""
    if len(text) > MOST_BYTES:
        raise UserError(f"{source} has {len(text):,} characters; the most is {MOST_BYTES:,}", remedy)
    # Values of the open lists and mappings, and the anchor of each; a document is one more level.
    sizes, anchors, known = [0], [""], {}
    try:
        for event in yaml.parse(text, Loader=_BASE):
            if isinstance(event, yaml.CollectionStartEvent):
                sizes.append(1)
                anchors.append(event.anchor or "")
                if len(sizes) > MOST_DEPTH + 1:
                    raise UserError(f"{source} has more than {MOST_DEPTH} lists or mappings in each other", remedy)
            elif isinstance(event, yaml.CollectionEndEvent):
                size = sizes.pop()
                known[anchors.pop()] = size
                sizes[-1] += size
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor in anchors:
                    raise UserError(f"{source} holds a list or mapping that contains itself", remedy)
                sizes[-1] += known.get(event.anchor or "", 1)
            elif isinstance(event, yaml.ScalarEvent):
                sizes[-1] += 1
            if sum(sizes) > MOST_VALUES:
                raise UserError(f"{source} stands for more than {MOST_VALUES:,} values", remedy)
    except yaml.YAMLError:
        return  # reading it says what is wrong, and where


def _explained(source: str, text: str, remedy: str, error: yaml.MarkedYAMLError) -> UserError:
    """The fault in plain words, with its line."""
    mark = error.problem_mark or error.context_mark
    problem = error.problem or "it cannot be read"
    lines = text.splitlines() or [""]
    # PyYAML marks an unexpected end after the last line.
    line = min(mark.line if mark is not None else 0, len(lines) - 1)
    if "\n" not in text.strip() and not Path(source).suffix:
        # The value of an option has no line that one could look up.
        return UserError(f"{source} is not a value in YAML: {problem}", remedy)
    remedy = "correct this line"
    if "\t" in lines[line][: len(lines[line]) - len(lines[line].lstrip())]:
        problem, remedy = "it is indented by a tab", "indent with spaces"
    elif "is given twice" in problem:
        remedy = "leave one of them"
    return UserError(f"{source}, line {line + 1}: {problem}", remedy)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
