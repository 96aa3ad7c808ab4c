"""The far ends of workspaces: a folder, and a bucket of a real server."""

import pytest

from tests.support.s3_server import Remote, folder_remote, s3_server


@pytest.fixture(scope="session")
def server():
    """An S3 server on loopback."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(server, tmp_path, monkeypatch) -> Remote:
    """A workspace in a bucket of its own; processes that a test starts find it, too."""
    return server.bucket(monkeypatch.setenv)


@pytest.fixture(params=["file", "s3"])
def remote(request, tmp_path) -> Remote:
    """A workspace of each kind."""
    return folder_remote(tmp_path / "place" / "lab") if request.param == "file" else request.getfixturevalue("s3")
