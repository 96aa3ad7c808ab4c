"""A real S3 server on loopback, and what tests ask of the far end of a workspace."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec


@dataclass
class Remote:
    """The far end of a workspace, read and changed without any code of ours."""

    url: str
    files: Any
    root: str

    def names(self, folder: str = "") -> list[str]:
        """All files below a folder, relative to the workspace."""
        return sorted(str(name).removeprefix(f"{self.root}/") for name in self.files.find(f"{self.root}/{folder}"))

    def read(self, name: str) -> bytes:
        return self.files.cat_file(f"{self.root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        self.files.pipe_file(f"{self.root}/{name}", content)


def folder_remote(folder: Path) -> Remote:
    """A workspace at a `file://` URL."""
    return Remote(f"file://{folder}", fsspec.filesystem("file"), str(folder))


@dataclass
class Server:
    """A running server."""

    endpoint: str
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def bucket(self, setenv: Callable[[str, str], None]) -> Remote:
        """A workspace in a new bucket; `setenv` gives the address and keys to this process and those it starts."""
        setenv("AWS_ENDPOINT_URL", self.endpoint)
        setenv("AWS_ACCESS_KEY_ID", "lab")
        setenv("AWS_SECRET_ACCESS_KEY", "secret")
        setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
        name = f"bucket{next(self.numbers)}"
        files.mkdir(name)
        return Remote(f"s3://{name}/lab", files, f"{name}/lab")


@contextlib.contextmanager
def s3_server() -> Iterator[Server]:
    """An S3 server of this process, on a free port; it has conditional writes, as AWS has."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Server(f"http://{host}:{port}")
    finally:
        server.stop()
