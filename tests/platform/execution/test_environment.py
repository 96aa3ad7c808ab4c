"""What a finished cell records of the code that computed it."""

import shutil
import subprocess

import pytest

from crossfold.platform.execution.environment import PACKAGES, environment, version_of_checkout

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(root, *words):
    settings = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *settings, *words], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with the folders of the package, and links to them as an editable installation has them."""
    root, links = tmp_path / "checkout", tmp_path / "checkout" / ".pkg"
    for name in PACKAGES:
        (root / name).mkdir(parents=True)
        (root / name / "code.py").write_text("x = 1\n")
    links.mkdir()
    for name in PACKAGES:
        (links / name).symlink_to(root / name)
    git(root, "init", "--quiet")
    git(root, "add", *PACKAGES)
    git(root, "commit", "--quiet", "-m", "first")
    return root


def test_the_commit_is_clean_until_code_changes(checkout, monkeypatch):
    first = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(checkout / "none"))  # as within a hook of another repository
    assert version_of_checkout(checkout / ".pkg") == {"commit": first, "clean": True}
    monkeypatch.delenv("GIT_DIR")
    (checkout / "notes.md").write_text("no code")
    assert version_of_checkout(checkout / ".pkg")["clean"]
    own = checkout / "fusion_models" / "own.py"
    own.write_text("y = 2\n")  # a system that no commit holds yet
    assert version_of_checkout(checkout / ".pkg") == {"commit": first, "clean": False}
    own.unlink()
    (checkout / "reports" / "code.py").write_text("x = 3\n")
    assert version_of_checkout(checkout / ".pkg") == {"commit": first, "clean": False}
    git(checkout, "commit", "--quiet", "-am", "second")
    second = git(checkout, "rev-parse", "HEAD")
    assert second != first
    assert version_of_checkout(checkout / ".pkg") == {"commit": second, "clean": True}


def test_an_installation_within_another_repository_has_no_commit(checkout):
    installed = checkout / "venv" / "crossfold"
    for name in PACKAGES:
        shutil.copytree(checkout / name, installed / name)
    assert version_of_checkout(installed) is None
    shutil.rmtree(checkout / ".git")
    assert version_of_checkout(checkout / ".pkg") is None


def test_a_repository_without_a_commit_is_not_recorded(checkout):
    shutil.rmtree(checkout / ".git")
    git(checkout, "init", "--quiet")
    assert version_of_checkout(checkout / ".pkg") is None


def test_the_environment_holds_no_variable_of_the_process(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hunter2")
    found = environment()
    assert {"finished_at", "machine", "versions"} <= found.keys() <= {"finished_at", "machine", "versions", "code"}
    assert "hunter2" not in repr(found)
