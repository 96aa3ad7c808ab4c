"""Every block of code in README and docs is run, read by what reads it, or left out for a reason that is true of it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT, environment

DOCUMENTS = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *(ROOT / "docs").glob("*.md")]
RUN_ELSEWHERE = {
    "docs/own-model.md": "tests/platform/edge/cli/test_own_model.py",
    "docs/python.md": "tests/platform/edge/api/test_python_api.py",
}
"""Pages with a test of their own that runs all of their blocks."""

SHORTER = {
    "corpus puppets": ["--clips", "8", "--seconds", "5"],
    "run": shlex.split("--workers 0 --set epochs=1 --only seed=0 fold=0 target=valence system=concat"),
}
"""Options that are added when a command runs here, so that it ends soon; all else is as printed."""


@dataclass(frozen=True)
class Block:
    """A fenced block, or consecutive lines that are indented by four blanks and call Crossfold."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks():
    for document in sorted(DOCUMENTS):
        text = document.read_text(encoding="utf-8")
        page = document.relative_to(ROOT).as_posix()
        fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
        for found in fenced.finditer(text):
            yield Block(page, text[: found.start()].count("\n") + 1, found[1], found[2])
        outside = fenced.sub(lambda block: "\n" * block[0].count("\n"), text)
        for found in re.finditer(r"(?:^    crossfold .*\n)+", outside, re.MULTILINE):
            yield Block(page, outside[: found.start()].count("\n") + 1, "", found[0])


BLOCKS = list(blocks())


def of(*languages):
    found = [block for block in BLOCKS if block.language in languages and block.page not in RUN_ELSEWHERE]
    assert found
    return pytest.mark.parametrize("block", found, ids=str)


def test_every_block_is_of_a_kind_that_is_tested():
    assert {block.language for block in BLOCKS} <= {"", "bash", "json", "mermaid", "python", "toml", "yaml"}
    # The picture of the packages is compared with the code in tests/test_documents.py.
    assert [block.page for block in BLOCKS if block.language == "mermaid"] == ["docs/architecture.md"]


@pytest.mark.parametrize("page", RUN_ELSEWHERE)
def test_a_page_with_a_test_of_its_own_is_read_there(page):
    assert f'"docs" / "{Path(page).name}"' in (ROOT / RUN_ELSEWHERE[page]).read_text(encoding="utf-8")


@of("python")
def test_python_runs(block, tmp_path):
    subprocess.run([sys.executable, "-c", block.text], cwd=tmp_path, env=environment(), check=True)


@of("json")
def test_json_is_json_once_its_gaps_are_closed(block):
    text = block.text.replace("{...}", "{}").replace(", ...", "")
    assert json.loads(text if text.startswith("{") else f"{{{text}}}")


@of("yaml")
def test_yaml_is_read_by_what_reads_it(block, tmp_path):
    from crossfold.datasets.corpora.manifest.labels import read_declared
    from crossfold.platform.core.recipe import Recipe
    from crossfold.sweeps.sweep_files import Sweep, load, parse_sweep

    keys = yaml.safe_load(block.text)
    if "systems:" in block.text or "space:" in block.text:
        path = tmp_path / "mine.yaml"
        path.write_text(block.text, encoding="utf-8")
        assert load(path).name
    elif not isinstance(keys.get("targets"), dict) and keys.keys() <= {*Sweep.model_fields, *Recipe.model_fields}:
        # Some lines of a sweep, or of its recipe.
        lines = {"name": "mine", "corpus": "synthetic", "recipe": "demo", "systems": ["concat"]}
        of_recipe = {key: value for key, value in keys.items() if key not in Sweep.model_fields}
        whole = lines | {key: value for key, value in keys.items() if key not in of_recipe}
        assert parse_sweep(whole | ({"set": of_recipe} if of_recipe else {}), str(block)).name == "mine"
    else:
        (tmp_path / "manifest.yaml").write_text(block.text, encoding="utf-8")
        findings = []
        assert read_declared(tmp_path, findings).targets
        assert not findings


def test_toml_is_toml():
    for block in BLOCKS:
        if block.language == "toml":
            assert tomllib.loads(block.text), block


def commands(block):
    """Each command of a block, without what is set before it and the comment behind it."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s&&\s", re.sub(r"\s+#\s.*", "", line.strip())):
            if command := re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part).strip():
                yield command


COMMANDS = [
    pytest.param(block.page, command, id=f"{block}: {command[:60]}")
    for block in BLOCKS
    if block.language in ("", "bash") and block.page not in RUN_ELSEWHERE
    for command in commands(block)
]


def is_of_paper(command):
    """A sweep of a paper, whose corpus has a licence or which has many cells."""
    from crossfold.sweeps.sweep_files import Sweep, load, shipped_sweeps

    words = command.split()
    asked = load(words[2]) if words[1] in ("plan", "run") and words[2] in shipped_sweeps() else None
    return isinstance(asked, Sweep) and asked.corpus in ("affwild2", "recola")


def is_of_this_machine(command):
    """Make, docker, git or a program of the environment: what it names is there."""
    program, *words = command.split()
    if program == "make":
        return re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE) is not None
    if program.startswith(".venv/bin/"):
        files = [word for word in words if "/" in word]
        return all((ROOT / name).exists() for name in files)
    return program in ("docker", "git", "cd")


REASONS = {
    "names files or hashes of the reader": (
        r"\b(DIR|FILE|SWEEP|CELL|WEIGHTS|REPOSITORY|(HASH|YOUR)_\w+)\b|/data/|\bvideo\.mp4"
    ),
    "changes the shell or the home folder of the reader": r"^\(umask |^export |^source |~/|--install-completion",
    "needs machines or buckets of the reader": r"--address |ray start|ray job|s3://|/shared/",
    "does not end by itself": r"--watch|--serve",
    "needs a browser": r"--figures",
    "a sweep of a paper, whose corpus has a licence": is_of_paper,
    "installs or builds": is_of_this_machine,
}  # fmt: skip
"""Why a command is not run here; each is true of the command."""


def reason_of(command):
    for reason, holds in REASONS.items():
        if re.search(holds, command) if isinstance(holds, str) else holds(command):
            return reason
    return None


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_can_be_parsed(page, command):
    """It has a known command, all that this needs, and values of the right kind."""
    import click
    import typer

    from crossfold.platform.edge.cli.app import app

    words = shlex.split(command)
    if words[0] != "crossfold":
        assert reason_of(command), f"{page}: {command}: neither a command of Crossfold nor known"
        return
    group = typer.main.get_command(app)
    if words[1].startswith("-"):
        assert words[1] in {option for param in group.params for option in param.opts}
        return
    name, found, rest = group.resolve_command(click.Context(group), words[1:])
    if hasattr(found, "commands"):
        name, found, rest = found.resolve_command(click.Context(found), rest)
    rest = rest[: rest.index(">")] if ">" in rest else rest
    found.make_context(name, list(rest))


PAGES = sorted({block.page for block in BLOCKS if block.language in ("", "bash")} - RUN_ELSEWHERE.keys())


@pytest.fixture
def small_workspace(tmp_path, crossfold):
    """A workspace with finished cells of two systems, `./.crossfold` of the folder, for pages that begin with one."""
    from tests.support.factories import synthetic_workspace, write_sweep

    synthetic_workspace(tmp_path).root.rename(tmp_path / ".crossfold")
    sweep = write_sweep(tmp_path / "small.yaml")
    code, out, err = crossfold("run", sweep, "--workers", "0", "--workspace", tmp_path / ".crossfold")
    assert code == 0, out + err
    for name in OTHER_WORKSPACES:
        shutil.copytree(tmp_path / ".crossfold", tmp_path / name)


OTHER_WORKSPACES = ("after", "before", "mine", "theirs")
"""Names that pages have for further workspaces."""
MAKES_ITS_OWN = ("README.md", "docs/first-report.md")
"""Pages that begin with a corpus; the others speak of a workspace that is there."""


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_order(page, crossfold, tmp_path, monkeypatch, request):
    """In one folder for each page, in which its sweeps are saved."""
    runnable = [
        command for of_page, command in (c.values for c in COMMANDS) if of_page == page and not reason_of(command)
    ]
    if not runnable:
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CROSSFOLD_HOME", raising=False)
    if page not in MAKES_ITS_OWN:
        request.getfixturevalue("small_workspace")
    for block in BLOCKS:
        if block.page == page and block.language == "yaml":
            for name in ("sweep.yaml", "first.yaml"):
                Path(name).write_text(block.text, encoding="utf-8")
    for command in runnable:
        words = shlex.split(command)[1:]
        words = words[: words.index(">")] if ">" in words else words
        short = next((more for start, more in SHORTER.items() if " ".join(words).startswith(start)), [])
        code, out, err = crossfold(*words, *short)
        assert code == 0, f"{page}: {command}\n{out}\n{err}"
    if page in MAKES_ITS_OWN:
        assert Path(".crossfold/reports/report.html").is_file()
        assert list(Path(".crossfold/cells").iterdir())
