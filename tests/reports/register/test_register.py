"""Every code that stands in the repository leads to an entry of the register."""

import re

import pytest
import yaml

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.app import main
from crossfold.reports.register import CODE, find_entry, register
from crossfold.reports.tables.published import footnotes
from tests.support.paths import ROOT

SUFFIXES = {".py", ".yaml", ".md", ".j2", ".js"}
FOLDERS = ("datasets", "docs", "fusion_models", "platform", "reports", "sweeps")
WORD = re.compile(r"(?<![\w#&/.+-])[A-G]\d{1,2}[a-z]?(?![\w-])")


def codes_in(path):
    # Decimal places of a format, as in `:.2f`, and hexadecimal digits do not begin a word.
    return WORD.findall(path.read_text(encoding="utf-8"))


def test_every_code_of_the_repository_has_an_entry():
    files = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES]
    used = {(code, path.relative_to(ROOT).as_posix()) for path in files for code in codes_in(path)}
    assert len({code for code, _ in used}) > 80
    assert sorted((code, path) for code, path in used if CODE.fullmatch(code)[1] not in register().entries) == []


def test_every_footnote_of_a_table_has_an_entry():
    codes = [key for key in footnotes() if CODE.fullmatch(key)]
    assert len(codes) > 20
    assert [code for code in codes if find_entry(code) is None] == []


def test_entries_are_sorted_and_belong_to_sections():
    entries = list(register().entries)
    assert entries == sorted(entries, key=lambda code: (code[0], int(code[1:])))
    assert {code[0] for code in entries} == register().sections.keys()


def test_each_fact_of_an_entry_that_is_cited_is_in_its_text():
    """`G2c` needs a part (c) of G2; codes of which a table has two footnotes, as F2b, are no parts."""
    texts = {code: entry.says for code, entry in register().entries.items()}
    cited = {code for path in (ROOT / "docs").glob("*.md") for code in codes_in(path) if code[-1].isalpha()}
    assert "G2c" in cited
    assert [code for code in cited if f"({code[-1]})" not in texts[code[:-1]]] == []


def test_systems_recipes_and_options_in_the_register_are_there():
    from crossfold.fusion_models.catalogue import system_names
    from crossfold.sweeps.recipe_files import shipped_recipes
    from crossfold.sweeps.schemas import recipe_fields, system_params
    from crossfold.sweeps.sweep_files import shipped_sweeps

    fields = {name for name, _, _ in recipe_fields()} | {"recipes +released"}
    fields |= {name for params in system_params().values() for name in params["properties"]}
    names = {*system_names(), *shipped_recipes(), *shipped_sweeps(), *fields}
    text = yaml.safe_dump({code: entry.here for code, entry in register().entries.items()}, width=10**6)
    quoted = {word.partition(":")[0] for word in re.findall(r"`([^`]+)`", text)}
    values = {
        "relative",
        "grouped",
        "as_released",
        "drop_both",
        "mask",
        "all",
        "last",
        "dense",
        "batch",
        "release",
        "+released",
        "not measurable",
    }
    assert {word for word in quoted if not word.startswith("crossfold ")} - names - values == set()


@pytest.mark.parametrize("code", ["B7", "G2c"])
def test_the_command_prints_an_entry(code, capsys):
    with pytest.raises(SystemExit) as end:
        main(["explain", code])
    assert not end.value.code
    said = capsys.readouterr().out
    assert said.startswith(f"{code[:2]}: ")
    assert "Crossfold: " in said


def test_an_unknown_code_is_refused():
    with pytest.raises(UserError, match="no entry 'C99'"):
        find_entry("C99")
