"""Files behind an fsspec URL: listed, read and written in few calls, and every trouble told in one way.

Each library has connections, caches and errors of its own. Here a connection belongs to one thread and is made anew
once when it breaks, listings are never old, a name is absent, and whatever else goes wrong is `RemoteUnavailable`.
"""

import contextlib
import posixpath
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from crossfold.platform.core.errors import RemoteUnavailable, UserError, did_you_mean

OBJECT_STORES = frozenset(
    ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "tos", "obs", "r2", "memory", "hf")
)
"""Where an object appears whole when it has been sent, and folders need not be made."""
CREATE_ONCE = frozenset(("s3", "s3a", "gs", "gcs", "memory", "file", "local"))
"""Where `xb` is refused by the place itself if the name is taken."""
MAKE_FOLDER_ONCE = frozenset(("ftp", "sftp", "ssh", "smb", "webdav", "hdfs"))
"""Where making a folder is."""
SETTLE_SECONDS = 3.0
"""Elsewhere: from writing a name to reading whose it became."""
_PACKAGES = {"smbclient": "smbprotocol", "google": "gcsfs", "azure": "adlfs"}
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "modify", "created")
_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)(://|::)")
_CRUMPLED = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+-]+):/(?!/)(?P<rest>.*)")

T = TypeVar("T")


def is_url(place: str) -> bool:
    """Whether a workspace is named by a URL. Raises `UserError` for one that lost a slash, as in a `Path`."""
    if crumpled := _CRUMPLED.fullmatch(place):
        protocol, rest = crumpled["protocol"], crumpled["rest"]
        raise UserError(f"{place!r} is neither a path nor a URL", f"write {protocol}://{rest}, or ./{place}")
    return _URL.match(place) is not None


def without_password(place: str) -> str:
    """A path or URL as people may see it."""
    return re.sub(r"//[^/@]*@", "//", place)


class RemoteFiles:
    """What lies under a URL. Names are relative to it, with slashes."""

    def __init__(self, url: str) -> None:
        """Nothing is contacted. Raises `UserError` for a protocol that is unknown, or lacks its package."""
        found = _URL.match(url)
        assert found is not None, url
        self.url = url.rstrip("/")
        self.shown = without_password(self.url)
        """The URL without a password, for people."""
        self.protocol = found["protocol"].lower()
        _require(self.protocol, self.shown)
        self._thread = threading.local()
        self._made: set[str] = set()

    def check(self, *, write: bool = False) -> None:
        """Raises `UserError` where the place cannot be listed, or with `write`, cannot be written."""
        remedy = "check the address, the network, and that this machine may use it; `crossfold doctor -w URL` looks too"
        try:
            self.listed("")
            if write:
                name = f".written-{uuid.uuid4().hex[:8]}"
                self.write(name, b"crossfold\n")
                self.remove(name)
        except RemoteUnavailable as error:
            what = "written" if write else "read"
            raise UserError(f"the workspace {self.shown} cannot be {what}: {error}", remedy) from None

    def listed(self, folder: str) -> dict[str, str]:
        """Names in a folder, each with a text that changes with its content; empty where there is no such folder."""

        def look(files: Any, root: str) -> dict[str, str]:
            files.invalidate_cache()
            try:
                entries = files.ls(_joined(root, folder), detail=True)
            except FileNotFoundError:
                return {}
            # Some list a folder as a part of itself.
            itself = _joined(root, folder).strip("/")
            places = [(str(entry["name"]).strip("/"), entry) for entry in entries]
            return {place.rpartition("/")[2]: _version(entry) for place, entry in places if place != itself}

        return self._call(look)

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The contents of those files that are there, asked for together."""
        wanted = list(names)
        if not wanted:
            return {}

        def look(files: Any, root: str) -> dict[str, bytes]:
            places = {files._strip_protocol(_joined(root, name)): name for name in wanted}
            found = {}
            for place, content in files.cat(list(places), on_error="return").items():
                if isinstance(content, bytes):
                    found[places[place]] = content
                elif not isinstance(content, FileNotFoundError | KeyError):
                    raise content
            return found

        return self._call(look)

    def fetch(self, name: str, target: Path) -> None:
        """Copies one file here. Raises `FileNotFoundError`."""
        self._call(lambda files, root: files.get_file(_joined(root, name), str(target)))

    def write(self, name: str, content: bytes) -> None:
        """Makes a file, or makes it anew; nobody sees half of it."""
        self._put(name, lambda files, place: files.pipe_file(place, content))

    def send(self, source: Path, name: str) -> None:
        """Copies one file there; nobody sees half of it."""

        def put(files: Any, place: str) -> None:
            if self.protocol in OBJECT_STORES:
                files.put_file(str(source), place)
                return
            # `put_file` would look for the folder each time.
            with source.open("rb") as here, files.open(place, "wb") as there:
                shutil.copyfileobj(here, there, 2**20)

        self._put(name, put)

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with what is in it; nothing if there is none."""

        def drop(files: Any, root: str) -> None:
            files.invalidate_cache()
            place = _joined(root, name)
            with contextlib.suppress(FileNotFoundError):
                entries = files.ls(place.rpartition("/")[0], detail=True)
                found = [entry for entry in entries if str(entry["name"]).strip("/") == place.strip("/")]
                if found and found[0]["type"] == "directory":
                    self._made.clear()
                    files.rm(place, recursive=True)
                elif found:
                    files.rm_file(place)

        self._call(drop)

    def claim(self, name: str, content: bytes) -> bool:
        """Takes a name that only one can have; False if somebody else has it. `remove` gives it back.

        Certain where the place can create a file or folder exclusively; elsewhere whoever is read back after
        `SETTLE_SECONDS` has it.
        """
        parent, _, last = name.rpartition("/")
        self._make(parent)
        if self.protocol in CREATE_ONCE:

            def create(files: Any, root: str) -> bool:
                try:
                    with files.open(_joined(root, name), "xb") as file:
                        file.write(content)
                except FileExistsError:
                    return False
                return True

            try:
                return self._call(create, again=False)
            except RemoteUnavailable:
                # Some say in words of their own that the name is taken.
                if last in self.listed(parent):
                    return False
                raise
        if self.protocol in MAKE_FOLDER_ONCE:
            for patience in (2, 1, 0):
                try:
                    self._call(lambda files, root: files.mkdir(_joined(root, name), create_parents=False), again=False)
                except RemoteUnavailable:
                    if last in self.listed(parent):
                        return False
                    # It may have been given back between the two looks.
                    if not patience:
                        raise
                else:
                    return True
        if self.read([name]):
            return False
        self.write(name, content)
        time.sleep(SETTLE_SECONDS)
        return self.read([name]).get(name) == content

    def _put(self, name: str, put: Callable[[Any, str], None]) -> None:
        parent, _, last = name.rpartition("/")
        self._make(parent)

        def whole(files: Any, root: str) -> None:
            place = _joined(root, name)
            if self.protocol in OBJECT_STORES:
                put(files, place)
                return
            beside = _joined(root, posixpath.join(parent, f".{last}.{uuid.uuid4().hex[:8]}.part"))
            try:
                put(files, beside)
                _rename(files, beside, place)
            except BaseException:
                with contextlib.suppress(Exception):
                    files.rm_file(beside)
                raise

        try:
            self._call(whole)
        except FileNotFoundError as error:
            # Somebody removed a folder that was there.
            self._made.clear()
            raise RemoteUnavailable(f"{self.shown}: {error}") from error

    def _make(self, folder: str) -> None:
        if self.protocol in OBJECT_STORES or folder in self._made:
            return
        self._call(lambda files, root: files.makedirs(_joined(root, folder), exist_ok=True))
        self._made.add(folder)

    def _call(self, operation: Callable[[Any, str], T], *, again: bool = True) -> T:
        """Runs an operation on this thread's connection, and once more on a new one where it breaks."""
        for last in (False, True) if again else (True,):
            try:
                if getattr(self._thread, "opened", None) is None:
                    self._thread.opened = self._connect()
                return operation(*self._thread.opened)
            except FileNotFoundError:
                raise
            except Exception as error:  # what a library raises for a broken line is its own affair
                self._thread.opened = None
                if last:
                    words = next(iter(str(error).splitlines()), "")
                    raise RemoteUnavailable(
                        f"{type(error).__name__}: {words}" if words else type(error).__name__
                    ) from error
        raise AssertionError("unreachable")

    def _connect(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(self.url, skip_instance_cache=True)
        return files, str(root)


def _require(protocol: str, shown: str) -> None:
    from fsspec import available_protocols, get_filesystem_class

    try:
        get_filesystem_class(protocol)
    except ValueError:
        known = available_protocols()
        raise UserError(
            f"{shown}: no protocol is called {protocol!r}{did_you_mean(protocol, known)}",
            "such as s3://bucket/folder, gs://, abfs://, sftp://, ftp://, or file:///mount/folder",
        ) from None
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or protocol
        package = _PACKAGES.get(missing.partition(".")[0], missing.partition(".")[0])
        raise UserError(
            f"{shown}: {protocol} needs the package {package}, which is not installed", f"pip install {package}"
        ) from None


def _joined(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}".rstrip("/") or "/"


def _version(entry: Mapping[str, Any]) -> str:
    seen = next((str(entry[key]) for key in _VERSION_KEYS if entry.get(key) is not None), "")
    return f"{entry.get('size')} {seen}"


def _rename(files: Any, source: str, target: str) -> None:
    try:
        files.mv(source, target)
    except Exception:  # some refuse to rename onto a name that is taken
        files.rm_file(target)
        files.mv(source, target)
