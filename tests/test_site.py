"""The documentation as a site: it builds without a warning, and the pages that are made have everything."""

import json
import re
import subprocess
import sys

import jsonschema
import pytest
import typer

from tests.support.paths import ROOT, environment


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. A link to a file or heading that is not there, or a page without a place, ends the build."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT, env=environment(NO_MKDOCS_2_WARNING=1), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def headings(page):
    text = page.read_text(encoding="utf-8")
    return set(re.findall(r'<h[1-4] id="([^"]+)"', text))


def test_the_first_page_is_the_readme_and_leads_to_code(site):
    first = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="source/fusion_models/rjca.py.html"' in first
    assert "RJCA" in (site / "source/fusion_models/rjca.py.html").read_text(encoding="utf-8")


def test_every_command_is_described(site):
    from crossfold.platform.edge.cli.app import app

    group = typer.main.get_command(app)
    names = {name for name, command in group.commands.items() if not hasattr(command, "commands")}
    names |= {
        f"{name}-{inner}" for name, command in group.commands.items() for inner in getattr(command, "commands", ())
    }
    assert names <= headings(site / "commands.html")
    text = (site / "commands.html").read_text(encoding="utf-8")
    run = group.commands["run"]
    assert [option for parameter in run.params for option in parameter.opts if option.startswith("-")
            and f"<code>{option}</code>" not in text] == []  # fmt: skip


def test_every_field_is_described(site):
    from crossfold.sweeps.schemas import KINDS, recipe_fields

    text = (site / "fields.html").read_text(encoding="utf-8")
    keys = {own for _, _, own in recipe_fields()} | {key for model in KINDS.values() for key in model.model_fields}
    assert [key for key in keys if f"<code>{key}</code>" not in text] == []


def test_every_code_has_an_anchor_and_pages_lead_there(site):
    from crossfold.reports.register import register

    assert {code.lower() for code in register().entries} <= headings(site / "register.html")
    assert 'href="register.html#g7"' in (site / "released.html").read_text(encoding="utf-8")


def test_schemas_are_files_of_the_site(site):
    for kind in ("sweep", "search", "recipe"):
        jsonschema.Draft202012Validator.check_schema(json.loads((site / "schemas" / f"{kind}.json").read_bytes()))


def test_the_site_opens_from_a_folder(site):
    """Links name files, and no page needs a font or a style from elsewhere."""
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<link[^>]+href="https?://[^"]+\.css', text) == []
        assert "fonts.g" not in text
