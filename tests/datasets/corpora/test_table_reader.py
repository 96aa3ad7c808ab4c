"""The one reader of tables: csv and arff give the same numbers, and what is no table is refused with its line."""

import numpy as np
import pytest

from crossfold.datasets.corpora.tables import read_table
from tests.support.media import assert_readable

ARFF = """% made by a tool
@RELATION 'gold standard'
@attribute Instance_name string
@attribute 'frame time' real
@ATTRIBUTE value numeric
@attribute part {train, dev}

@data
% a comment among the rows
'train_1, take 2', 0.00, -0.153, train

"train_1", 4e-2, ?, dev
"""
CSV = "frame time;value;\n0,00;-0,153;\n4e-2;;\n"


def read(folder, name: str, text: str, **options):
    """The table of a file with this text, and what is found about it."""
    findings: list = []
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return read_table(folder / name, folder, findings, **options), findings


@pytest.mark.parametrize(("name", "text"), [("gold.arff", ARFF), ("gold.csv", CSV), ("gold.csv", "\ufeff" + CSV)])
def test_arff_and_csv_are_the_same_table(tmp_path, name, text):
    table, findings = read(tmp_path, name, text)
    assert findings == []
    assert table.columns == ("frame time", "value")
    np.testing.assert_array_equal(table.numbers("frame time", findings, "n"), [0.0, 0.04])
    np.testing.assert_array_equal(table.numbers("value", findings, "n"), [-0.153, np.nan])
    # Rows are known by their line in the file, comments and empty lines counted.
    assert [row.line for row in table.rows] == ([10, 12] if name.endswith("arff") else [2, 3])


@pytest.mark.parametrize(
    ("name", "text", "rule", "says"),
    [
        ("a.arff", ARFF.replace("-0.153", "high"), "table-row", "line 10"),
        ("a.arff", ARFF.replace(", dev\n", "\n"), "table-row", "line 12"),
        ("a.arff", ARFF.replace("dev}", "test}"), "table-readable", "line 12"),
        ("a.arff", ARFF.replace("real", "date"), "table-readable", "line 4"),
        ("a.arff", ARFF.partition("@data")[0], "table-readable", "not arff"),
        ("a.arff", ARFF.partition("% a comment")[0], "table-empty", "no row"),
        ("a.csv", "0.5\n0.25\n", "table-header", "begins with '0.5'"),
        ("a.csv", "0,5;1\n0,25;1\n", "table-header", "no header"),
        ("a.csv", "time,a\n0,1\n1,2,3\n2\n", "table-row", "line 3 has 3 cells for 2 columns, and 1 more lines"),
        ("a.csv", "time,a,\n0,1,\n1,2,3\n", "table-columns", "no name for column 3"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, name, text, rule, says):
    table, findings = read(tmp_path, name, text)
    assert (table, [f.rule for f in findings]) == (None, [rule])
    assert says in findings[0].problem
    assert_readable(findings, tmp_path)


ROWS = [["time", "value", "name"], ["0", "-0.153", "Zoë"], ["0.04", "", "a, b"], ["0.08", "1e-3", ""]]
WAYS = {
    "as it is": ("utf-8", ",", "."),
    "a byte order mark": ("utf-8-sig", ",", "."),
    "bars": ("utf-8", "|", "."),
    "bars, decimal commas": ("utf-8", "|", ","),
    "Excel, csv in Europe": ("utf-8-sig", ";", ","),
    "Excel, Unicode text": ("utf-16", "\t", "."),
    "Excel, Unicode text in Europe": ("utf-16", "\t", ","),
    "a spreadsheet on another machine": ("utf-16-be", ";", "."),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_saved_it_is_the_same_table(tmp_path, way, end):
    encoding, delimiter, point = WAYS[way]
    rows = [
        [cell if i == 0 or k == 2 else cell.replace(".", point) for k, cell in enumerate(r)] for i, r in enumerate(ROWS)
    ]
    lines = [delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in row) for row in rows]
    text = ("\ufeff" if encoding == "utf-16-be" else "") + end.join([*lines, ""])
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    findings: list = []
    table = read_table(tmp_path / "t.csv", tmp_path, findings)
    assert findings == []
    assert table.columns == ("time", "value", "name")
    np.testing.assert_array_equal(table.numbers("time", findings, "n"), [0, 0.04, 0.08])
    np.testing.assert_array_equal(table.numbers("value", findings, "n"), [-0.153, np.nan, 1e-3])
    assert list(table.cells["name"]) == ["Zoë", "a, b", ""]
    assert list(table.lines) == [2, 3, 4]


def test_bytes_that_only_begin_like_utf_16_are_no_table(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x81" * 40)
    findings: list = []
    assert read_table(tmp_path / "t.csv", tmp_path, findings) is None
    assert [(f.rule, f.remedy) for f in findings] == [("table-encoding", "save it as text with encoding UTF-8")]


def test_a_file_that_begins_with_values_takes_names_where_it_may(tmp_path):
    table, findings = read(tmp_path, "t.csv", "\n0.1,0.2\n0.3,0.4\n", numeric=True, unnamed=("valence", "arousal"))
    assert [(f.rule, f.severity) for f in findings] == [("table-header", "warning")]
    assert table.columns == ("valence", "arousal")
    np.testing.assert_array_equal(table.cells["arousal"], [0.2, 0.4])
    assert list(table.lines) == [2, 3]
    table, findings = read(tmp_path, "t.csv", "0.1,0.2,0.3\n", unnamed=("valence", "arousal"))
    assert (table, [f.rule for f in findings]) == (None, ["table-header", "table-row"])
