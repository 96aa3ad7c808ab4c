"""Files at a URL, through fsspec: `s3` and `gs`, and `file` for a mounted folder. Whatever goes wrong there is
`RemoteUnavailable`; only a name that is not there is `FileNotFoundError`.
"""

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from crossfold.platform.core.errors import RemoteUnavailable, UserError
from crossfold.platform.core.files import whole_file, write_bytes

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "file": "fsspec"}
"""The schemes of a workspace's URL, and the package that each needs."""
_VERSION_KEYS = ("ETag", "etag", "mtime")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)")
_LOST_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+-]+):/(?!/)(.*)")


def is_url(place: str) -> bool:
    """Whether a workspace is named by a URL. Raises `UserError` for one that lost a slash, as in a `Path`."""
    if lost := _LOST_SLASH.fullmatch(place):
        raise UserError(f"{place!r} is neither a path nor a URL", f"write {lost[1]}://{lost[2]}, or ./{place}")
    return _URL.match(place) is not None


def without_password(place: str) -> str:
    """A path or URL as people may see it."""
    return re.sub(r"://[^/@]*@", "://", place)


class RemoteFiles:
    """The files under a URL. Names are relative to it, with slashes."""

    def __init__(self, url: str) -> None:
        """Contacts nothing. Raises `UserError` for another scheme than those of `PACKAGES`, or a missing package."""
        self.url = url.rstrip("/")
        self.shown = without_password(self.url)
        """The URL without a password, for people."""
        found = _URL.match(url)
        self._scheme = found[1].lower() if found is not None and found[2] == "://" else ""
        if self._scheme not in PACKAGES:
            raise UserError(
                f"{self.shown}: a workspace is a folder, or a URL that begins with s3://, gs:// or file://",
                "mount the place, and give the folder where it is mounted",
            )
        if self._scheme != "file" and set(self.url) & set("*?["):
            raise UserError(f"{self.shown}: object stores read *, ? and [ as patterns", "give a URL without them")
        from fsspec import get_filesystem_class

        try:
            get_filesystem_class(self._scheme)
        except ImportError:
            package = PACKAGES[self._scheme]
            raise UserError(f"{self.shown} needs the package {package}", f"pip install {package}") from None

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec import filesystem

        # Other machines write here too, so a listing that is kept would be old.
        files = filesystem(self._scheme, use_listings_cache=False, skip_instance_cache=True)
        return files, str(files._strip_protocol(self.url)).rstrip("/")

    def check(self, *, write: bool = False) -> None:
        """Raises `UserError` where the place cannot be listed, or with `write`, cannot be written."""
        try:
            self.listed("")
            if write:
                name = f".written-{uuid.uuid4().hex[:8]}"
                self.write(name, b"crossfold\n")
                self.remove(name)
        except RemoteUnavailable as error:
            raise UserError(
                f"the workspace {self.shown} cannot be {'written' if write else 'read'}: {error}",
                "check the address, the network, and that this machine may use it; `crossfold doctor -w URL` tests it",
            ) from None

    def listed(self, folder: str) -> dict[str, str]:
        """Names in a folder, each with a text that changes with its content; empty where there is no such folder."""
        with self._errors() as (files, root):
            place = f"{root}/{folder}".rstrip("/")
            try:
                entries = files.ls(place, detail=True)
            except FileNotFoundError:
                return {}
        # An object store may list a folder as a part of itself.
        names = {str(entry["name"]).rstrip("/"): entry for entry in entries}
        return {name.rpartition("/")[2]: _version(entry) for name, entry in names.items() if name != place}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The contents of those files that are there, requested together."""
        found: dict[str, bytes] = {}
        with self._errors() as (files, root):
            places = {f"{root}/{name}": name for name in names}
            # Unlike `cat`, this takes brackets in a name for what they are.
            contents = files.cat_ranges(list(places), None, None, on_error="return") if places else ()
            for name, content in zip(places.values(), contents, strict=True):
                if isinstance(content, bytes):
                    found[name] = content
                elif not isinstance(content, FileNotFoundError):
                    raise content
        return found

    def fetch(self, name: str, target: Path) -> None:
        """Copies one file to this machine. Raises `FileNotFoundError`."""
        with self._errors() as (files, root):
            files.get_file(f"{root}/{name}", str(target))

    def write(self, name: str, content: bytes) -> None:
        """Creates or replaces a file; it appears whole."""
        with self._errors(missing=True) as (files, root):
            if self._scheme == "file":
                write_bytes(Path(root, name), content)
            else:
                files.pipe_file(f"{root}/{name}", content)

    def send(self, source: Path, name: str) -> None:
        """Copies one file of this machine there; it appears whole."""
        with self._errors(missing=True) as (files, root):
            if self._scheme == "file":
                with whole_file(Path(root, name)) as draft:
                    shutil.copyfile(source, draft)
            else:
                files.put_file(str(source), f"{root}/{name}")

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with what is in it; nothing if there is none."""
        with self._errors() as (files, root), contextlib.suppress(FileNotFoundError):
            files.rm(f"{root}/{name}", recursive=True)

    def claim(self, name: str, content: bytes) -> bool:
        """Creates a file that must not exist yet; false if another process has it. `remove` gives it back.

        content: unlike that of any other claim; a folder needs none, and a file without content fits on a full disk.
        The filesystem or the object store decides between two that come at once.
        """
        try:
            with self._errors(missing=True) as (files, root):
                if self._scheme == "file":
                    Path(root, name).parent.mkdir(parents=True, exist_ok=True)
                    Path(root, name).touch(exist_ok=False)
                else:
                    with files.open(f"{root}/{name}", "xb") as file:
                        file.write(content)
        except FileExistsError:
            # It may be ours: an answer was lost, and the request was repeated.
            return self.read([name]).get(name) == content
        except RemoteUnavailable:
            # Not every library raises FileExistsError for a name that is taken.
            found = self.read([name]).get(name)
            if found is None:
                raise
            return found == content
        return True

    @contextlib.contextmanager
    def _errors(self, *, missing: bool = False) -> Iterator[tuple[Any, str]]:
        """Gives the filesystem and its root. missing: of a write, where a missing name is a missing bucket."""
        try:
            yield self._opened
        except FileExistsError:
            raise
        except Exception as error:  # each library has exceptions of its own
            if isinstance(error, FileNotFoundError) and not missing:
                raise
            if isinstance(error, OSError) and error.errno is not None:
                # The number distinguishes a full disk from other trouble.
                raise RemoteUnavailable(error.errno, error.strerror, error.filename) from error
            words = next(iter(str(error).splitlines()), "")
            raise RemoteUnavailable(f"{type(error).__name__}: {words}" if words else type(error).__name__) from error


def _version(entry: Mapping[str, Any]) -> str:
    seen = next((str(entry[key]) for key in _VERSION_KEYS if entry.get(key) is not None), "")
    return f"{entry.get('size')} {seen}"
