"""Files at a URL: what is refused before any contact, and each operation against a real server."""

import os
import sys
from pathlib import Path

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace.remote.filesystem import RemoteFiles, is_url


@pytest.mark.parametrize(
    "place", ["sftp://lab:secret@host/lab", "gcs://bucket/lab", "simplecache::s3://b/lab", "s4://b"]
)
def test_another_scheme_is_refused_before_work_with_what_to_do(place):
    with pytest.raises(UserError) as error:
        RemoteFiles(place)
    shown = place.replace("lab:secret@", "")
    assert error.value.problem == f"{shown}: a workspace is a folder, or a URL that begins with s3://, gs:// or file://"
    assert error.value.remedy == "mount the place, and give the folder where it is mounted"


def test_a_url_that_lost_a_slash_is_refused():
    with pytest.raises(UserError, match=r"is neither a path nor a URL\n.*write s3://bucket/lab"):
        is_url("s3:/bucket/lab")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match="gs://bucket/lab needs the package gcsfs") as error:
        RemoteFiles("gs://bucket/lab")
    assert error.value.remedy == "pip install gcsfs"


@pytest.mark.parametrize("name", ["lab[1]", "a*b", "a?b#c", "x::y", "p%20q", "~me", "me@lab"])
def test_a_folder_may_have_any_name(tmp_path, name):
    (tmp_path / "lab1").mkdir()
    (tmp_path / "lab1" / "a.json").write_bytes(b"of another workspace")
    (tmp_path / name).mkdir()
    files = RemoteFiles(f"file://{tmp_path / name}")
    assert files.read(["a.json"]) == {}
    files.write("a.json", b"{}")
    assert files.claim("claim", b"1")
    assert not files.claim("claim", b"2")
    assert files.read(["a.json", "claim", "none"]) == {"a.json": b"{}", "claim": b""}
    files.remove("a.json")
    assert [path.name for path in (tmp_path / name).iterdir()] == ["claim"]
    assert (tmp_path / "lab1" / "a.json").exists()
    assert files.shown == files.url


def test_a_bucket_whose_name_is_a_pattern_is_refused():
    with pytest.raises(UserError, match=r"object stores read \*, \? and \[ as patterns"):
        RemoteFiles("s3://bucket/lab[1]")


@pytest.mark.parametrize(
    ("place", "expected"), [("s3://b/lab", True), ("a::s3://b", True), ("/mnt/lab", False), ("./a:b", False)]
)
def test_what_counts_as_a_url(place, expected):
    assert is_url(place) is expected


def test_files_of_a_bucket(s3):
    """Each operation, against a real server."""
    files = RemoteFiles(s3.url)
    assert files.listed("") == {}
    files.write("a/b.json", b"{}")
    before = files.listed("a")
    files.write("a/b.json", b"{1}")
    assert before.keys() == files.listed("a").keys() == {"b.json"}
    assert before != files.listed("a"), "the version shows that the content changed"
    assert files.listed("").keys() == {"a"}
    assert files.read(["a/b.json", "a/none.json", "none/b.json"]) == {"a/b.json": b"{1}"}
    with pytest.raises(FileNotFoundError):
        files.fetch("a/none.json", Path("unused"))
    s3.write("a/c.json", b"from elsewhere")
    assert files.listed("a").keys() == {"b.json", "c.json"}, "no listing is old"
    files.remove("a/none.json")
    files.remove("a/b.json")
    assert s3.names() == ["a/c.json"]
    files.remove("a")
    assert s3.names() == []


def test_a_large_file_of_several_parts_goes_to_a_bucket_and_comes_back(s3, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(12 * 2**20))
    files = RemoteFiles(s3.url)
    files.send(source, "stores/large")
    files.fetch("stores/large", target)
    assert target.read_bytes() == source.read_bytes()


def test_a_claim_has_one_owner_until_it_is_removed(remote):
    files = RemoteFiles(remote.url)
    assert files.claim("driver.claim", b"one")
    assert not RemoteFiles(remote.url).claim("driver.claim", b"two")
    again = files.claim("driver.claim", b"one")
    assert again is not remote.url.startswith("file:"), "a request to a server may be repeated when its answer is lost"
    files.remove("driver.claim")
    assert RemoteFiles(remote.url).claim("driver.claim", b"two")
