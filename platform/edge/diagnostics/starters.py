"""The first version of a plug-in: a file that runs as it is, for its author to change."""

import keyword
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crossfold.datasets.corpora.registry import CORPORA
from crossfold.fusion_models.catalogue import DCA_SUFFIX, systems
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import write_bytes
from crossfold.platform.core.registry import Registry

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN: dict[str, Registry[Any]] = {"system": systems, "corpus": CORPORA}


def write_starter(kind: str, name: str, folder: Path) -> Path:
    """Writes `NAME.py` into a folder and returns its path.

    kind: `system` or `corpus`. name: under which it is registered.
    Raises `UserError` for a name that is taken or that Python cannot import, and where the file is there already.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        remedy = f"use small letters, digits and _, beginning with a letter, such as my_{kind}"
        if name.endswith(DCA_SUFFIX):
            remedy = f"leave {DCA_SUFFIX} out: what yields pairs has it for nothing"
        raise UserError(f"{name!r} cannot be the name of a {kind}", remedy)
    if name in _TAKEN[kind]:
        raise UserError(f"there is a {kind} {name!r} already", f"choose another name, such as my_{name}")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "give one that is there as --out")
    path = folder / f"{name}.py"
    if path.exists():
        raise UserError(f"{path} is there already", "choose another name or another folder (--out DIR)")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    words = name.split("_")
    title = " ".join(filter(None, words)).capitalize()
    stem = "".join(word.capitalize() for word in words)
    text = environment.get_template(f"{kind}.py.j2").render(name=name, title=title, stem=stem, file=path)
    write_bytes(path, text.encode())
    return path
