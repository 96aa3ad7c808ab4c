"""A name from data never leads out of its folder, whatever it is the name of."""

from pathlib import Path

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside
from crossfold.platform.core.layout import WorkspacePaths

BAD = [
    "", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "./x", ".hidden", "a/.hidden", "a//b", "a/", "//x",
    "C:x", "c:\\x", "a\\b", "\\\\server\\share", "a\x00b", "a\nb", "a\x7fb", "x" * 300, "é" * 200, "a/" + "x" * 300,
    "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_leads_elsewhere_is_refused_in_a_sentence(name, tmp_path):
    with pytest.raises(UserError, match="cannot name a file in") as error:
        path_inside(tmp_path, name)
    assert "rename it" in error.value.remedy
    assert "\n" not in error.value.problem


@pytest.mark.parametrize("name", ["clip", "clip.mp4", "a b", "Ünïcode 日本", "session/clip", "-x", "=1+1", "a..b", "~"])
def test_a_name_that_stays_inside_is_taken_as_it_is(name):
    assert path_inside(Path("/out"), name) == Path("/out") / name


@pytest.mark.parametrize("name", ["../x", "/etc", "..", "a\x00"])
def test_cells_stores_and_launches_of_such_names_have_no_place(name, tmp_path):
    paths = WorkspacePaths(tmp_path)
    for place in (paths.cell, paths.scratch, paths.checkpoint, paths.log, lambda n: paths.store(n, "0")):
        with pytest.raises(UserError, match="cannot name a file in"):
            place(name)
    for place in (paths.status_of, paths.pending_in_mlflow):
        try:
            assert tmp_path in place(name).resolve().parents
        except UserError as error:
            assert "cannot name a file in" in str(error)
