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
