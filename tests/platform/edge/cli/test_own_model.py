"""From nothing to a fusion model of one's own in a report, as docs/own-model.md prints it; and installed packages."""

import json
import re
import shlex
import subprocess
import sys

from tests.support.factories import synthetic_workspace
from tests.support.paths import PYTHONPATH, ROOT, environment

PAGE = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")


def test_the_page_runs_as_printed(crossfold, own_registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSFOLD_HOME", str(tmp_path / "workspace"))
    block = re.search(r"```\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    said = {}
    for line in block[1].splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "crossfold"
        code, out, err = crossfold(*words[1:])
        assert code == 0, f"{line}\n{out}\n{err}"
        said[words[1]] = out
    assert said["cite"].startswith("@misc{my_fusion")
    # The report knows the title without the file.
    leaderboard = (tmp_path / "workspace" / "reports" / "leaderboard.md").read_text()
    assert "| My fusion |" in leaderboard and "| My fusion + DCA |" in leaderboard
    assert "My fusion + DCA" in (tmp_path / "workspace" / "reports" / "report.html").read_text()
    assert "my_fusion" not in re.sub(r"`[^`]*`", "", leaderboard)


def test_a_system_of_a_file_that_was_not_given_says_what_to_give(crossfold, tmp_path):
    space = synthetic_workspace(tmp_path).root
    for command in (
        ("explain", "my_fusion"),
        ("cite", "my_fusion"),
        ("predict", "my_fusion", ROOT / "README.md", "--workspace", space),
        ("search", "search-demo", "--set", "system=my_fusion", "--set", "corpus=synthetic", "--workspace", space),
    ):
        code, _, err = crossfold(*command)
        assert code == 2, command
        assert "'my_fusion'" in err and "--plugin FILE" in err, err


def test_an_installed_package_registers_its_systems_by_an_entry_point(tmp_path):
    site = tmp_path / "site"
    module = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    entry = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert module is not None and entry is not None
    group = re.search(r'entry-points\."([\w.]+)"', entry[1])
    assert group is not None
    (site / "my_package").mkdir(parents=True)
    (site / "my_package" / "my_fusion.py").write_text(module[1])
    (site / "my_package-1.0.dist-info").mkdir()
    (site / "my_package-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n"
    )
    points = f"[{group[1]}]\nmy_fusion = my_package.my_fusion\nbroken = my_package.not_there\n"
    (site / "my_package-1.0.dist-info" / "entry_points.txt").write_text(points)

    def run(*arguments):
        command = [sys.executable, "-m", "crossfold.platform.edge.cli", *arguments]
        there = environment() | {"PYTHONPATH": f"{PYTHONPATH}:{site}"}
        return subprocess.run(command, capture_output=True, text=True, env=there, check=False)

    listed = run("list", "systems", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {"mine", "rjca"} <= {row["name"] for row in json.loads(listed.stdout)}
    unknown = run("explain", "nothing")
    assert unknown.returncode == 2
    assert "plug-in broken is unavailable: ModuleNotFoundError" in unknown.stderr
