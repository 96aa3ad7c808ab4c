"""What a release is made of: its wheel, its citation, its container and the workflow of a hosted repository."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv

import dockerfile_parse
import pytest
import yaml

import crossfold
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read_yaml(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Runs the `crossfold` of the built wheel, outside the repository; its libraries are those that run the tests."""
    place = tmp_path_factory.mktemp("installed")
    # A build writes into the folder of its source, which other tests read.
    source = place / "source"
    kept_out = shutil.ignore_patterns(
        ".git", ".venv", ".uv", "*.egg-info", "__pycache__", "tests", "docs", ".crossfold"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=kept_out)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = place.glob("crossfold-*.whl")
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / "bin" / "python"
    own = place / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (own / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel], check=True, capture_output=True
    )
    outside = place / "outside"
    outside.mkdir()

    def run(*words, program="crossfold"):
        command = [str(place / "venv" / "bin" / program), *words]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(outside), "CROSSFOLD_CACHE": str(outside / "cache")}
        done = subprocess.run(command, cwd=outside, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import crossfold; print(crossfold.__file__)", program="python")
    assert where.startswith(str(own)), where
    return run


def test_the_wheel_runs_outside_the_repository(installed):
    assert installed("--version").split() == ["crossfold", crossfold.__version__]
    assert "--clips" in installed("demo", "--help")


@pytest.mark.parametrize("kind", ["systems", "recipes", "sweeps", "tables", "corpora", "weights"])
def test_the_wheel_holds_all_that_is_listed(installed, kind):
    here = subprocess.run(
        [sys.executable, "-m", "crossfold.platform.edge.cli", "list", kind, "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = [[row["name"] for row in json.loads(text)] for text in (here.stdout, installed("list", kind, "--json"))]
    assert names[0] == names[1] != []


@pytest.mark.benchmark
def test_the_demo_of_the_wheel_ends_with_a_report(installed):
    assert "report" in installed("demo", "--clips", "8")


def test_the_citation_names_the_version_and_the_papers():
    from crossfold.fusion_models.catalogue import references

    citation = read_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == crossfold.__version__
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    papers = {paper["title"].casefold(): paper for paper in citation["references"]}
    for key in ("praveen2021ca", "praveen2024dca", "praveen2024rjcma", "praveen2025grjca"):
        entry = " ".join(references()[key].split())
        paper = papers[re.search(r"title = \{(.+?)\}", entry)[1].casefold()]
        assert str(paper["year"]) in entry
        names = re.search(r"author = \{(.+?)\}", entry)[1].split(" and ")
        assert [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]] == names


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0].split()[0] == crossfold.__version__


def instructions():
    parser = dockerfile_parse.DockerfileParser(fileobj=(ROOT / "Dockerfile").open("rb+"))
    return [(step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"]


def test_the_container_installs_what_the_project_has():
    steps = instructions()
    assert [name for name, _ in steps].count("FROM") == 1
    assert set(dict(steps)) <= {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "ENTRYPOINT", "CMD"}
    arguments = dict(value.split("=") for name, value in steps if name == "ARG")
    assert arguments["TORCH_BACKEND"] == "cpu"
    assert any(c.endswith(arguments["PYTHON"]) for c in PROJECT["classifiers"])
    assert json.loads(dict(steps)["ENTRYPOINT"]) == ["crossfold"]
    assert "crossfold" in PROJECT["scripts"]
    (install,) = [value for name, value in steps if name == "RUN" and "requirements.lock" in value]
    extras = re.search(r"\.\[([\w,]+)\]", install)[1].split(",")
    assert set(extras) <= PROJECT["optional-dependencies"].keys()


def test_the_container_gets_no_more_than_the_code():
    left_out = set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())
    assert {".git", ".venv", ".uv", ".crossfold"} <= left_out
    assert not left_out & {"platform", "datasets", "fusion_models", "sweeps", "reports", ".pkg", "requirements.lock"}


def versions(lock):
    """Each package of requirements.lock with its version, as the Makefile and the Dockerfile cut them out of it."""
    command = re.search(r"(sed -n .+?) requirements\.lock", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1]
    assert command.replace("$", "$$") in (ROOT / "Makefile").read_text(encoding="utf-8")
    done = subprocess.run([*shlex.split(command), str(lock)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_light_environment_has_the_versions_of_the_lock_and_no_hashes():
    lines = versions(ROOT / "requirements.lock")
    pinned = [line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if "==" in line]
    assert len(lines) == len([line for line in pinned if not line.startswith(" ")]) > 100
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .+[^\\ ])?", line) for line in lines)


def docker_runs():
    client = shutil.which("docker")
    return client is not None and subprocess.run([client, "info"], capture_output=True, check=False).returncode == 0


@pytest.mark.benchmark
def test_the_container_lists_the_systems():
    if not docker_runs():
        pytest.skip("no docker daemon answers here")
    subprocess.run(["docker", "build", "--tag", "crossfold-test", str(ROOT)], check=True)
    listed = subprocess.run(
        ["docker", "run", "--rm", "crossfold-test", "list", "systems"], capture_output=True, text=True
    )
    assert "rjca" in listed.stdout


def test_the_workflow_covers_each_python_of_the_project_and_runs_what_is_there():
    jobs = read_yaml(".github/workflows/tests.yml")["jobs"]
    supported = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == supported
    assert PROJECT["requires-python"] == f">={supported[0]}"
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for job in jobs.values():
        for step in job["steps"]:
            program, *words = shlex.split(step.get("run", "true"))
            if program == "make":
                assert words[0] in targets
            elif "/" in program:
                assert program == ".venv/bin/crossfold" or (ROOT / program).exists()
            else:
                assert program in ("docker", "true")


@pytest.mark.parametrize("form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda p: p.stem)
def test_issue_forms_ask_for_something(form):
    content = read_yaml(form)
    assert {"name", "description", "body"} <= content.keys()
    names = [field["id"] for field in content["body"]]
    assert len(set(names)) == len(names) > 0
    assert all(field["attributes"]["label"].endswith("?") for field in content["body"])
    assert any(field.get("validations", {}).get("required") for field in content["body"])
