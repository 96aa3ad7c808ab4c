"""Documents name only what is there: files, links, commands, options; and the picture of the packages is up to date."""

import ast
import os
import re
import shlex

import pytest

from tests.support.paths import ROOT
from tests.test_architecture import ANYTHING, ONE_ROOM, ROOMS, TOP_LEVEL

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("datasets/**/*.md")]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FILE = re.compile(r"(?:[\w.+-]+/)*[\w.+-]+\.(?:py|yaml|json|md|png|toml|lock|sh|j2|css|js|sample)|(?:[\w.+-]+/)+")
"""A file with one of our suffixes, or a folder: ends with a slash."""

OF_A_USER = re.compile(
    # In a workspace, in a data folder, or an example's name.
    r"(?:cells|failures|stores|reports|launches|unfinished|running|rescored|ensembles|conflicts|damaged|gone|outbox|corpora"
    r"|weights|features|transcripts|ratings_\w+|cropped_aligned|emotional_behaviour|searches|bert-base-uncased"
    r"|vosk-model-en-us-0\.22|fullstop-punctuation-multilang-large|DIR|FILE|OUT)(?:/.*)?"
    r"|(?:cell|result|env|manifest|memory|gpu-memory|forecast|startup|driver|[A-Z]+\.seen)\.json|(?:sweep|A|B|urgent|other|mine|first|manifest)\.yaml"
    r"|my_(?:model|fusion|corpus)\.py|(?:preprocessor_)?config\.json|claims\.md|train_1\..*|\d+\.jpg"
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def text_outside_code(document):
    return re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def files_named_in(document):
    """Everything between backticks that looks like a path, and whether it is one of ours."""
    for quoted in re.findall(r"`([^`\n]+)`", text_outside_code(document)):
        for word in quoted.split():
            word = word.strip(",;:()")
            if FILE.fullmatch(word) and not OF_A_USER.fullmatch(word):
                yield word


def found(word, document):
    """A path is full, as seen from the root or the document; a bare name is that of some file."""
    places = [ROOT / word, document.parent / word]
    if "/" not in word:
        places += [place for top in TOP_LEVEL for place in (ROOT / top).rglob(word)]
    return any(place.exists() for place in places)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file(document):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_outside_code(document))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_in_backticks_is_there(document):
    assert [word for word in files_named_in(document) if not found(word, document)] == []


PRIVATE_WORDS = re.compile(
    r"\b(?:tells?|told|telling|beside|nobody|somebody|everybody|mend(?:s|ed|ing)?|batter(?:y|ies)|ledgers?|thaw(?:s|ed|ing)?"
    r"|last words|leftovers|rooms?|train along|trains along|lends?|lent)\b",
    re.IGNORECASE,
)
"""The field or plain English has other words: report, next to, no one, fix, stress suite, failure log, unfreeze."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_prose_uses_the_words_of_the_field(document):
    prose = re.sub(r"`[^`]*`", "", text_outside_code(document))
    assert PRIVATE_WORDS.findall(prose) == []


def commands_in(document):
    """Lines of code blocks, and of words in backticks, that begin with `crossfold`."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    quoted = re.findall(r"`(crossfold [^`\n]+)`", text_outside_code(document))
    for line in [*lines, *quoted]:
        for part in line.partition("  #")[0].partition(" # ")[0].split("&&"):
            words = [word for word in part.split() if not re.fullmatch(r"[A-Z_]+=\S+", word)]
            if words[:1] == ["crossfold"]:
                yield " ".join(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_and_option_is_known(document):
    import typer

    from crossfold.platform.edge.cli.app import app

    group = typer.main.get_command(app)
    wrong = []
    for line in commands_in(document):
        words = shlex.split(line.replace("...", "").replace("'", '"'))[1:]
        command = group
        while words and not words[0].startswith("-") and hasattr(command, "commands"):
            names = words.pop(0).rstrip(",").split("|")
            wrong += [f"{line}: no command {name}" for name in names if name not in command.commands]
            command = command.commands.get(names[0], group)
            if command is group:
                break
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        asked = {word.partition("=")[0].strip("[],") for word in words if re.match(r"\[?-", word)}
        wrong += [f"{line}: no option {option}" for option in asked - known - {"--help"}]
    assert not wrong, "\n".join(wrong)


def whole(room):
    return "fusion_models" if room in ONE_ROOM else room


def imports_of_rooms():
    """Each package and those that it imports, where no longer path leads there."""
    rooms = {}
    for room, others in ROOMS.items():
        known = ROOMS if ANYTHING in others else others
        rooms.setdefault(whole(room), set()).update({whole(other) for other in known} - {whole(room)})
    # The front door of `edge` holds one module, for models of earlier versions.
    del rooms["platform/edge"]
    rooms["platform/edge/cli"].discard("platform/edge")

    def reached(room):
        return set().union(*({other} | reached(other) for other in rooms[room]))

    return {
        room: sorted(other for other in others if not any(other in reached(via) for via in others - {other}))
        for room, others in rooms.items()
    }


TITLES = {
    "fusion_models": "Features of the modalities to Z: a file for each system, their blocks, and the backbones.",
    "sweeps": "What to run, as data: YAML files, recipes, and the way from a sweep to its cells.",
    "reports": "`build.py`, `serve.py` and `compare.py`: one or several workspaces become tables, figures and pages.",
}
"""Of packages without an `__init__.py`; the others say it in their docstring."""


def title_of(room):
    init = ROOT / room / "__init__.py"
    if not init.exists():
        return TITLES[room]
    return " ".join(ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))).partition("\n\n")[0].split())


def picture():
    """Packages as a mermaid graph, one box for each top-level folder, and a table that says what each is."""
    arrows = imports_of_rooms()
    lines = ["```mermaid", "flowchart TB"]
    lines += [f'  {room}["{room}"]' for room in ("sweeps", "fusion_models")]
    for top in ("platform/edge", "reports", "platform", "datasets"):
        inside = [
            room
            for room in arrows
            if (room == top or room.startswith(top + "/"))
            and not (top == "platform" and room.startswith("platform/edge/"))
        ]
        lines.append(f'  subgraph {top.replace("/", "_")}_box ["{top}"]')
        lines += [
            f'    {node(room)}["{room.removeprefix(top + "/") if room != top else "build, serve"}"]' for room in inside
        ]
        lines.append("  end")
    lines += [f"  {node(room)} --> {node(other)}" for room, others in arrows.items() for other in others]
    rows = [f"| `{room}` | {title_of(room)} |" for room in arrows]
    return "\n".join([*lines, "```", "", "| package | what it is |", "|---|---|", *rows, ""])


def node(room):
    return room.replace("/", "_")


def test_the_picture_is_drawn_from_the_table():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    head, begin, rest = text.partition("tests/test_documents.py -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    assert begin
    assert end
    drawn = f"{head}{begin}\n{picture()}\n{end}{tail}"
    if "CROSSFOLD_REGENERATE" in os.environ:
        ARCHITECTURE.write_text(drawn, encoding="utf-8")
    assert ARCHITECTURE.read_text(encoding="utf-8") == drawn, "run this test with CROSSFOLD_REGENERATE=1"


def test_the_table_of_changes_has_25_rows_that_name_files():
    _, _, section = ARCHITECTURE.read_text(encoding="utf-8").partition("## I want to change ...")
    rows = re.findall(r"^\| (?!---|I want)(.+?) \| (.+) \|$", section.partition("\n## ")[0], flags=re.MULTILINE)
    assert len(rows) == 25
    assert len({wish for wish, _ in rows}) == 25
    for wish, place in rows:
        named = [word for word in re.findall(r"`([^`]+)`", place) if FILE.fullmatch(word)]
        assert named, wish
        assert [word for word in named if not (ROOT / word).exists()] == [], wish


def test_one_number_is_followed_in_at_most_twelve_links():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition("## Follow one number\n")
    links = re.findall(r"\]\(([^)]+\.(?:py|yaml))\)", section.partition("\n## ")[0])
    assert 8 <= len(links) <= 12
    assert len(set(links)) == len(links)
