"""The pictures of README and docs are those that `make pictures` makes, and each says what it shows."""

import re

import pytest
from PIL import Image

from tests.support.paths import ROOT
from tests.support.pictures import COLUMNS, DOCS, PICTURES, TERMINAL, commands_of, draw_terminal

SHOWN = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
DOCUMENTS = [ROOT / "README.md", *DOCS.glob("*.md")]
MOST_BYTES = 200_000


def test_every_picture_is_made_by_the_script_and_every_one_that_it_makes_is_shown():
    there = {path.relative_to(ROOT) for kind in ("png", "svg", "jpg", "gif") for path in ROOT.glob(f"docs/**/*.{kind}")}
    made = {(DOCS / name).relative_to(ROOT) for name in (*PICTURES, TERMINAL)}
    shown = {
        (document.parent / target).resolve().relative_to(ROOT)
        for document in DOCUMENTS
        for _, target in SHOWN.findall(document.read_text(encoding="utf-8"))
    }
    assert there == made == shown


def test_a_picture_says_what_it_shows_to_who_cannot_see_it():
    for document in DOCUMENTS:
        for text, target in SHOWN.findall(document.read_text(encoding="utf-8")):
            assert len(text.split()) > 8, f"{document.name}: {target}"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_the_size_of_the_script_and_is_small(name):
    with Image.open(DOCS / name) as image:
        assert image.size == PICTURES[name]
    assert (DOCS / name).stat().st_size < MOST_BYTES


def test_the_drawing_of_the_terminal_shows_commands_of_the_page_and_names_no_font_of_another_host():
    text = (DOCS / TERMINAL).read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert "font-face" not in text
    assert set(re.findall(r"https?://([\w.-]+)", text)) <= {"www.w3.org", "www.textualize.io"}
    commands, _ = commands_of(DOCS / "first-report.md")
    plain = re.sub(r"<[^>]+>", "", text).replace("&#160;", " ")
    assert "$ crossfold plan first.yaml" in plain and ["plan", "first.yaml"] in commands
    assert "$ crossfold report" in plain and ["report"] in commands


def test_a_long_line_is_wrapped_in_the_drawing(tmp_path):
    draw_terminal([("crossfold plan", "word " * COLUMNS)], tmp_path / TERMINAL)
    lines = re.findall(r"<text [^>]*>([^<]*)</text>", (tmp_path / TERMINAL).read_text(encoding="utf-8"))
    assert max(map(len, lines)) <= COLUMNS * len("&#160;")
    assert len([line for line in lines if "word" in line]) == 5
