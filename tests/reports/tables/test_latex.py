"""Every table, hostile names included, through a real LaTeX."""

import shutil
import subprocess

import pytest

from crossfold.reports.build import build_report
from tests.support import lab

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
