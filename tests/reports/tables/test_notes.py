"""Every note of every table is true of what was run, and a caption says how to read its numbers."""

import re

import pytest

from crossfold.platform.core.cell import FOLD_RULES
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.all_tables import build_tables
from crossfold.reports.results.load import load_results
from crossfold.reports.tables.entries import Entry
from crossfold.reports.tables.formats import to_latex, to_markdown
from crossfold.reports.tables.notes import CONDITIONS, legend, note_text
from crossfold.reports.tables.published import Note, declared, footnotes, table_ids, table_spec
from crossfold.sweeps.recipe_files import load_recipe
from tests.support import lab

RUNS = {
    "puppets": {"corpus": "puppets", "post": "", "seeds": (0, 1, 2)},
    "synthetic, processed, one seed": {"corpus": "synthetic", "post": "fixed", "seeds": (0,)},
    "a stand-in of Aff-Wild2": {"corpus": "affwild2", "post": "", "seeds": (0, 1, 2)},
    "a stand-in of Aff-Wild2, processed, two seeds": {"corpus": "affwild2", "post": "fixed", "seeds": (0, 1)},
    "folds as released": {"corpus": "affwild2", "post": "", "seeds": (0,), "rule": "as_released"},
    "folds of an earlier version": {"corpus": "affwild2", "post": "", "seeds": (0,), "rule": "grouped_upwards"},
}


@pytest.fixture(scope="module", params=RUNS.values(), ids=RUNS)
def ran(request, tmp_path_factory):
    """What was run, and every table of it."""
    workspace = Workspace(tmp_path_factory.mktemp("notes") / "workspace")
    rule = request.param.get("rule", "grouped")
    store = lab.make_store(workspace.root, request.param["corpus"], fold_rule=rule)
    assert store.fold_rule == rule
    variants = tuple(fake for fake in lab.VARIANTS if fake.system != "concat")
    text = (lab.Fake("rjcma", {"iterations": 3}, 0.4), lab.Fake("grjca", {"iterations": 3, "temperature": 0.1}, 0.4))
    recipe = load_recipe("dca2024")
    for cell, noise in lab.cells_of(store, (*variants, *text), seeds=request.param["seeds"], recipe=recipe):
        lab.finish(workspace, store, cell, noise, post=request.param["post"])
    results = load_results(workspace)
    return request.param, results, build_tables(results, table_ids())


def said_in(table):
    return "\n".join([*table.sentences, *table.findings, *table.notes, *(text for _, text in table.footnotes)])


def test_each_sentence_stands_where_its_condition_holds_and_nowhere_else(ran):
    run, results, tables = ran
    home = run["corpus"] == "affwild2"
    count = 0
    for table in tables[1:]:
        spec, said = table_spec(table.id), said_in(table)
        cells = results.cells.set_index("cell_id")
        done = {line.label: [e for e in line.entries if e.mean is not None] for line in table.lines}
        measured = [entry for entries in done.values() for entry in entries]
        folds = {int(cells.loc[[cell], "fold"].iloc[0]) for entry in measured for cell in entry.cell_ids}
        has = {note for row in spec.rows for note in row.footnotes} | {
            key for key, note in footnotes().items() if note in spec.notes
        }
        can = any(not spec.asked(row, column).why_not for row in spec.rows for column in spec.columns)
        cited = [row.label for row in spec.rows if "cited" in row.footnotes]
        true = {
            "were smoothed by the chain": has & {"F2", "F2b"} and measured and run["post"] == "fixed" == spec.post,
            "went through the same chain": False,  # no run here was scored with the oracle
            "76 validation videos of the second": False,  # the stand-in reports eight
            **{
                f"(rule {rule})": "E13" in has and home and folds - {0} and rule == run.get("rule", "grouped")
                for rule in FOLD_RULES
            },
            "The measured base": "C15" in has
            and any("w/o" in label and done[label] for label in done if "JCA" in label),
            "The row is measured with this table's recipe": spec.recipe == "dca2024" and any(map(done.get, cited)),
            "store of this row is named below": False,
            "not scored with the post-processing": measured and spec.post not in ("raw", run["post"]),
            f"Rule of the folds: {run.get('rule', 'grouped')} (": measured,
            "Interval: 95%": any(entry.interval for entry in measured),
            "± is the spread over seeds": any("±" in entry.text for entry in measured),
            "No cell of this table is measured yet": can and not measured,
            "compare order and sign": measured
            and spec.printed
            and (run["corpus"] != spec.corpus or spec.recipe != "dca2024"),
        }
        wrong = {words for words, holds in true.items() if (words in said) != bool(holds)}
        assert not wrong, f"{table.id}: {wrong}"
        count += sum(bool(holds) for holds in true.values())
    assert count > 15


def test_nothing_is_said_of_measurements_without_a_condition():
    """Else a sentence such as "all measurements use 356 videos" would stand under any table."""
    notes = [*footnotes().values(), *(note for table in table_ids()[1:] for note in table_spec(table).notes)]
    spoken = [note.says for note in notes if re.search("[Mm]easured|measurement", note.says)]
    assert [words for words in spoken if "cannot be measured" not in words] == []
    used = {name for note in notes for name in note.where}
    assert used == set(CONDITIONS)
    assert all(key in str(declared().tables) for key in footnotes()), "each footnote belongs to a table"


def test_a_caption_says_what_the_spread_and_the_interval_are(ran):
    run, _, tables = ran
    for table in tables:
        measured = [entry for entry in table.entries if entry.mean is not None]
        assert ("Measured CCC" in table.legend) == ("highest measured CCC" in table.legend) == bool(measured)
        assert ("published numbers as in print" in table.legend) == any(entry.bold for entry in table.entries)
        for written in (to_markdown(table), to_latex(table)):
            head = written.split("\\label")[0] if "\\label" in written else written.split("\n|")[0]
            assert ("mean over folds of the mean over seeds" in head) == bool(measured), table.id
            assert "tau" not in head
            assert "with the same sign" not in head
        if measured:
            assert ("±: spread over seeds" in table.legend) == (len(run["seeds"]) > 1)
            over = "videos and seeds" if len(run["seeds"]) > 2 else "videos alone"
            assert f"brackets: 95% interval over {over}." in table.legend


def test_the_official_split_is_named_where_its_videos_were_reported():
    note, spec = footnotes()["C17"], table_spec("dca-t1")
    setting = type("Home", (), {"corpus": "affwild2", "recipe": "dca2024"})
    for videos, holds in (((76,), True), ((24,), False)):
        entries = [Entry("0.5", "agrees", mean=0.5, folds=(0,), videos=videos)]
        assert ("76 validation videos" in note_text(note, spec, setting, entries)) == holds
    assert note_text(Note(where={"measured": "It ran."}), spec, setting, []) == ""
    assert legend([]) == ""
