"""What mkdocs adds to the pages of this folder: files of the repository that they link to, and pages of the code.

Pages that are made cannot fall behind the code: every command, every field of a file, every code of the register.
"""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from crossfold.platform.edge.cli.app import app
from crossfold.reports.register import register
from crossfold.sweeps.schemas import KINDS, schema

ROOT = Path(__file__).resolve().parent.parent
OF_THE_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "CHANGELOG.md": "changelog.md",
}
"""Documents in the root of the repository, and the pages that they become."""
SHOWN_AS = OF_THE_ROOT | {
    "reports/register/register.yaml": "register.md",
    "sweeps/schemas.py": "fields.md",
    "platform/edge/cli/app.py": "commands.md",
}
"""Files of the repository that have a better page than their text."""
_LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")
_BLOCK = re.compile(r"(```.*?```)", re.DOTALL)
_NOT_PROSE = re.compile(r"(```.*?```|`[^`\n]*`|\[[^]\n]*\]\([^)\n]*\)|^#[^\n]*$)", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(?<![\w#&/.+-])([A-G]\d{1,2})[a-z]?(?![\w-])")
MOST_NAMES = 8
"""That a table lists; more are what a command lists."""
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds documents of the root, the pages that are made, and a page for each file that a page links to."""
    made = {
        **{page: (ROOT / name).read_text(encoding="utf-8") for name, page in OF_THE_ROOT.items()},
        "commands.md": "\n".join(command_page()),
        "fields.md": "\n".join(field_page()),
        "register.md": "\n".join(register_page()),
        **{f"schemas/{kind}.json": json.dumps(schema(kind), indent=1) for kind in KINDS},
    }
    texts = {file.src_uri: file.content_string for file in files.documentation_pages()} | made
    linked = {path for page, text in texts.items() if page.endswith(".md") for path in repository_links(page, text)}
    for path in sorted(linked - SHOWN_AS.keys()):
        if (ROOT / path).is_file() and not path.startswith("docs/"):
            made[source_page(path)] = source_text(path)
    for path in sorted(linked):
        if (ROOT / path).is_dir():
            made[source_page(path)] = folder_text(path)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
        if page.startswith("source/"):
            files.src_uris[page].inclusion = files.src_uris[page].inclusion.NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to files of the repository at their pages, and codes such as B7 at the register."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown

    def rewritten(found: re.Match[str]) -> str:
        target = target_of(here, found[2])
        return f"{found[1]}{posixpath.relpath(target, posixpath.dirname(here) or '.')}{found[3] or ''}{found[4]}"

    known = register().entries

    def linked(found: re.Match[str]) -> str:
        return f"[{found[0]}](register.md#{found[1].lower()})" if found[1] in known else found[0]

    markdown = "".join(p if p.startswith("```") else _LINK.sub(rewritten, p) for p in _BLOCK.split(markdown))
    # Every second part is what stands in brackets of the expression: code, a link, a heading.
    return "".join(p if index % 2 else _CODE.sub(linked, p) for index, p in enumerate(_NOT_PROSE.split(markdown)))


def repository_path(page: str, link: str) -> str:
    """The file of the repository that a link of a page leads to."""
    origin = {made: name for name, made in OF_THE_ROOT.items()}.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def repository_links(page: str, text: str) -> Iterator[str]:
    """The files that a page links to, from the root of the repository."""
    for part in _BLOCK.split(text):
        if not part.startswith("```"):
            yield from (repository_path(page, found[2]) for found in _LINK.finditer(part))


def target_of(page: str, link: str) -> str:
    """The page of the site for a link of a page."""
    path = repository_path(page, link)
    if path in SHOWN_AS:
        return SHOWN_AS[path]
    inside = path.removeprefix("docs/")
    return inside if inside != path and not (ROOT / path).is_dir() else source_page(path)


def source_page(path: str) -> str:
    """The page that shows a file or a folder of the repository."""
    return f"source/{path}.md"


def source_text(path: str) -> str:
    """A file of the repository as a page."""
    text = (ROOT / path).read_text(encoding="utf-8").rstrip()
    return f"# {path}\n\n````{_LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n````\n"


def folder_text(path: str) -> str:
    """A folder of the repository as a page with all its files."""
    parts = [source_text(file.relative_to(ROOT).as_posix()) for file in sorted((ROOT / path).iterdir())]
    return f"# {path}\n\n" + "\n".join(part.replace("# ", "## ", 1) for part in parts)


def command_page() -> Iterator[str]:
    """Every command, with its arguments and options."""
    yield "# Commands\n\nThis page is made from the code. `crossfold COMMAND --help` prints the same.\n"
    yield from _commands(typer.main.get_command(app), "crossfold")


def _commands(group: Any, name: str) -> Iterator[str]:
    for own, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {own}")
            continue
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        words = [f"{name} {own}", *(_usage(argument) for argument in arguments), "[OPTIONS]" if options else ""]
        yield f"## {name.removeprefix('crossfold').strip()} {own}\n".replace("##  ", "## ")
        yield f"{command.help}\n\n```text\n{' '.join(filter(None, words))}\n```\n"
        rows = [(f"`{_usage(argument)}`", argument.help or "", "") for argument in arguments]
        rows += [
            (", ".join(f"`{n}`" for n in (*o.opts, *o.secondary_opts)), o.help or "", _default(o)) for o in options
        ]
        yield from _table(("argument or option", "what it means", "default"), rows)


def _usage(argument: Any) -> str:
    word = argument.metavar or argument.name.upper()
    word = word.strip("[]{}").upper() if argument.metavar is None or "{" in word else word
    word += "..." if argument.nargs != 1 and not word.endswith("...") else ""
    return word if argument.required else f"[{word}]"


def _default(option: Any) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    return "" if option.default in (None, False) or callable(option.default) else f"`{option.default}`"


def field_page() -> Iterator[str]:
    """Every field of sweeps, searches and recipes, from the schemas that editors use."""
    yield "# Sweep, search and recipe files\n"
    yield (
        "This page is made from the code. Editors complete and check these files by their JSON schemas: "
        "[sweep](schemas/sweep.json), [search](schemas/search.json), [recipe](schemas/recipe.json). "
        "`crossfold schema sweep` prints one. With the YAML extension of many editors, a first line such as "
        "`# yaml-language-server: $schema=sweep.json` names the schema of a file.\n"
    )
    parts_of_recipes = schema("recipe")["$defs"].keys()
    for kind in KINDS:
        found = schema(kind)
        tops = [form["$ref"].rpartition("/")[2] for form in found.get("anyOf", [found])]
        own = parts_of_recipes if kind == "recipe" else found["$defs"].keys() - parts_of_recipes
        yield f"## A {kind} file\n"
        for name in [*tops, *sorted(own - {*tops, "RecipeChanges"})]:
            model = found["$defs"][name]
            if name.startswith("params of ") or not model.get("properties"):
                continue
            if name != tops[0]:
                yield f"### {name}\n"
            yield f"{model.get('description', '')}\n"
            needed = model.get("required", ())
            rows = [
                (f"`{key}`", _form(field), "needed" if key in needed else _value(field), field.get("description", ""))
                for key, field in model["properties"].items()
            ]
            yield from _table(("key", "value", "default", "what it means"), rows)
    yield "## Parameters of the systems\n"
    yield "In a sweep each may be a list of values, of which each is a variant of its own.\n"
    for name, params in schema("sweep")["$defs"].items():
        if name.startswith("params of ") and params["properties"]:
            yield f"### {name.removeprefix('params of ')}\n"
            rows = [(f"`{key}`", _form(field["anyOf"][0]), _value(field), field.get("description", ""))
                    for key, field in params["properties"].items()]  # fmt: skip
            yield from _table(("parameter", "value", "default", "what it means"), rows)


def _form(field: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if len(field.get("enum", ())) > MOST_NAMES:
        return "one of these names"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if several := field.get("anyOf", field.get("oneOf")):
        return "; or ".join(dict.fromkeys(_form(one) for one in several))
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`",
             "array": "list", "object": "mapping", "null": "null"}  # fmt: skip
    kinds = field.get("type", "")
    said = " or ".join(words[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind) or "any value"
    signs = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{sign} {field[key]:,}" for key, sign in signs.items() if key in field]
    return ", ".join([said, *limits])


def _value(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    text = json.dumps(field["default"])
    return f"`{text}`" if len(text) < 60 else ""


def register_page() -> Iterator[str]:
    """Every entry of the register, under an anchor of its code."""
    found = register()
    yield "# Codes: what the papers leave open\n"
    yield (
        "Print and public code are silent in places, and contradict themselves or each other in others. Each such "
        "place has a code. Codes stand in footnotes of the report, in recipes, equations and descriptions; a letter "
        "after a code, as in G2c, is one fact of its entry. `crossfold explain B7` prints an entry.\n"
    )
    yield from _table(("number", "paper"), [(f"`{number}`", title) for number, title in found.papers.items()])
    for letter, title in found.sections.items():
        yield f"## {title}\n"
        for code, entry in found.entries.items():
            if code.startswith(letter):
                yield f"### {code} {entry.about} {{#{code.lower()}}}\n\n{entry.says}\n\n**Crossfold:** {entry.here}\n"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = [" ".join(str(cell).split()).replace("|", "\\|") for row in rows for cell in row]
    if not lines:
        return
    width = len(heads)
    yield f"| {' | '.join(heads)} |\n|{'---|' * width}"
    yield from (f"| {' | '.join(lines[start : start + width])} |" for start in range(0, len(lines), width))
    yield ""
