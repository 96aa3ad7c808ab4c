"""Every table, hostile names included, through a real LaTeX."""

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib
import pytest

from crossfold.reports.build import build_report, build_tables
from crossfold.reports.results.load import load_results
from crossfold.reports.tables.escape import latex
from crossfold.reports.tables.formats import to_latex
from crossfold.reports.tables.grid import further_grids, main_grid
from crossfold.reports.tables.published import table_ids
from tests.support import lab

TIMES = Path(matplotlib.get_data_path()) / "fonts" / "afm" / "ptmr8a.afm"
PREAMBLE = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs,graphicx}\begin{document}"
HOSTILE = '<b> | \\input{x} $a_b^c$ & 50% #1 ~*`[l](u)`"{} é ß × “שלום” \u202eevil\u202c 🙂 \x07'


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_every_table_compiles_and_none_is_wider_than_its_line(workspace, tmp_path):
    store = lab.make_store(workspace.root)
    variants = (*lab.VARIANTS, lab.Fake(HOSTILE, {"note": HOSTILE}, 0.3))
    for cell, noise in lab.cells_of(store, variants, folds=(0,), seeds=(0, 1)):
        lab.finish(workspace, store, cell, noise)
    tables = build_report(workspace, formats=["tex"], out=tmp_path).paths
    inputs = "\n".join(rf"\input{{{path.name}}}\clearpage" for path in tables)
    (tmp_path / "all.tex").write_text(f"{PREAMBLE}\n{inputs}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_no_part_of_a_table_is_scaled_to_letters_that_cannot_be_read(finished):
    """By the widths of Times at 9 pt, as IEEE and ACM set tables, on the 516 points of their two columns."""
    codes = re.findall(r"^C (\d+) ; WX (\d+)", TIMES.read_text(), re.MULTILINE)
    breadth = {chr(int(code)): int(units) for code, units in codes}
    split = 0
    for table in build_tables(load_results(finished), table_ids()):
        text = to_latex(table)
        parts = re.findall(r"\\begin{tabular}{\w+}(.*?)\\end{tabular}", text, re.DOTALL)
        assert len(parts) == text.count("\\resizebox") >= 1
        split += len(parts) > 1 + len(further_grids(table))
        heads = set()
        for part in parts:
            rows = [line.removesuffix(" \\\\").split(" & ") for line in part.splitlines() if line.endswith(" \\\\")]
            rows = [row for row in rows if not any("multicolumn" in cell for cell in row)]
            heads |= set(rows[0])
            assert len({len(row) for row in rows}) == 1
            plain = [[re.sub(r"\\text\w+{([^}]*)}|[{}$\\]", r"\1", cell) for cell in row] for row in rows]
            units = [[sum(breadth.get(letter, 500) for letter in cell) for cell in row] for row in plain]
            points = [9 / 1000 * max(column) + 12 for column in zip(*units, strict=True)]
            assert sum(points) * 6.5 / 9 <= 516, (table.id, rows[0])
        assert heads >= {latex(head) for head in main_grid(table).heads}
    assert split > 3
