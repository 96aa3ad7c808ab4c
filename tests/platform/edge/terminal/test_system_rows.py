"""The list of systems: kept without torch, and never older than the files of the systems."""

import json
import os
import subprocess
import sys

from crossfold.platform.edge.terminal.system_rows import system_list

ASK = """
import json, sys
from crossfold.platform.edge.terminal.system_rows import system_list
print(json.dumps([system_list(), "torch" in sys.modules]))
"""


def ask(cache):
    env = {**os.environ, "CROSSFOLD_CACHE": str(cache)}
    return json.loads(subprocess.run([sys.executable, "-c", ASK], env=env, stdout=subprocess.PIPE, check=True).stdout)


def test_the_list_is_kept_and_read_without_torch(tmp_path):
    rows, imported = ask(tmp_path)
    assert imported
    assert {"hgrjca", "ca+dca"} <= {row["name"] for row in rows}
    (kept,) = tmp_path.glob("systems-*.json")
    assert ask(tmp_path) == [rows, False]
    kept.write_text("[{")
    assert ask(tmp_path) == [rows, True]
    assert ask(tmp_path) == [rows, False]


def test_a_list_that_cannot_be_kept_is_the_same(tmp_path):
    (tmp_path / "file").write_text("")
    rows, _ = ask(tmp_path / "file")
    assert rows == json.loads(json.dumps(system_list()))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
