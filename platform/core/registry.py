"""A registry of named things that live one per file, found by importing a folder."""

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.moved_modules import alias_moved_modules

T = TypeVar("T")

ENTRY_POINTS = "crossfold.plugins"
"""The group of entry points under which an installed package names the modules that register its things."""


class Registry(Generic[T]):
    """Named entries of one kind, each registered by a decorator in a file of its own."""

    def __init__(self, kind: str, package: str, *, plural: str = "") -> None:
        """`kind` is the word for error messages; `package` is imported, file by file, on first use."""
        self.kind = kind
        self._plural = plural or f"{kind}s"
        self._package = package
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._searched = False
        self.remedy = f"`crossfold list {self._plural}` shows all; one in a file of yours needs --plugin FILE"
        """What to do about an unknown name."""

    def register(self, name: str, *, origin: str) -> Callable[[T], T]:
        """Decorator that files an entry under `name`; two files (`origin`) that claim one name are an error."""

        def enter(entry: T) -> T:
            if name in self._entries and self._origins[name] != origin:
                raise UserError(
                    f"{self.kind} {name!r} is registered by both {self._origins[name]} and {origin}",
                    "rename one of them",
                )
            self._entries[name] = entry
            self._origins[name] = origin
            return entry

        return enter

    def get(self, name: str) -> T:
        """The entry, or a `UserError` with the nearest right name."""
        self._search()
        if name in self._entries:
            return self._entries[name]
        broken = "".join(f"; {module} is unavailable: {why}" for module, why in self._broken.items())
        raise UserError(
            f"unknown {self.kind} {name!r}{did_you_mean(name, list(self._entries))}{broken}",
            self.remedy,
        )

    def __contains__(self, name: str) -> bool:
        self._search()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._search()
        return iter(sorted(self._entries))

    @property
    def unavailable(self) -> dict[str, str]:
        """Files, and plug-ins of installed packages, that could not be imported, with the reason."""
        self._search()
        return dict(self._broken)

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        package = importlib.import_module(self._package)
        for found in pkgutil.iter_modules(package.__path__):
            try:
                importlib.import_module(f"{self._package}.{found.name}")
            except ImportError as error:
                self._broken[found.name] = str(error)
        self._broken |= _load_installed()


_unusable: dict[str, str] = {}


@cache
def _installed() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=ENTRY_POINTS))


def _load_installed() -> dict[str, str]:
    """Imports what installed packages name under `ENTRY_POINTS`, once; returns what could not be imported, and why."""
    waiting = _installed()
    while waiting:
        entry = waiting.pop()  # before it is loaded: what it imports may search another registry
        try:
            entry.load()
        except Exception as error:  # a package that is broken must not stop the use of others
            _unusable[f"plug-in {entry.name}"] = f"{type(error).__name__}: {error}"
    return _unusable


def load_plugin(path: Path) -> None:
    """Runs a user's file so that its decorators register what it defines (`--plugin my_model.py`).

    Raises `UserError` where the file cannot be run. Modules may be imported by the names of `moved_modules`, too.
    """
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"plugin {path} is not a Python file", "give the path of one that registers a system")
    spec = importlib.util.spec_from_file_location(f"crossfold_plugin_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses with late annotations look their module up here.
    sys.modules[spec.name] = module
    alias_moved_modules()
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's file may raise, `SystemExit` and classes of its own too
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == path.resolve()
        ]
        where = f", line {lines[-1]}" if lines else ""
        raise UserError(f"plugin {path}{where}: {type(error).__name__}: {error}", "fix the file") from error
