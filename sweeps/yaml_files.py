"""YAML files that people write, read strictly: one mapping, each key once, and each error in one sentence."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from crossfold.platform.core.errors import UserError

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


def read_yaml(path: Path, what: str, example: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    what: the kind of file, as `a sweep`; example: the smallest one that works, shown where the file is of another kind.
    Raises `UserError` that names the file, and the line where there is one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=_Loader)
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8", f"save it in UTF-8; {what} is a YAML file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", f"give {what} as a YAML file") from None
    except yaml.MarkedYAMLError as error:
        raise _explained(path, text, error) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}", "correct the file") from None
    if not isinstance(data, dict):
        found = _KINDS.get(type(data), f"holds {data!r}")
        shown = "\n".join(f"     {line}" for line in example.splitlines())
        raise UserError(f"{path} {found}, not a mapping of keys", f"{what} looks like this:\n{shown}")
    return data


def _explained(path: Path, text: str, error: yaml.MarkedYAMLError) -> UserError:
    """The fault in plain words, with its line."""
    mark = error.problem_mark or error.context_mark
    problem, remedy = error.problem or "it cannot be read", "correct this line"
    lines = text.splitlines() or [""]
    # PyYAML marks an unexpected end after the last line.
    line = min(mark.line if mark is not None else 0, len(lines) - 1)
    if "\t" in lines[line][: len(lines[line]) - len(lines[line].lstrip())]:
        problem, remedy = "it is indented by a tab", "indent with spaces"
    elif "is given twice" in problem:
        remedy = "leave one of them"
    return UserError(f"{path}, line {line + 1}: {problem}", remedy)
