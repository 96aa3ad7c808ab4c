"""Jobs: what is shipped, what is asked of Ray, and a real head that runs a sweep end to end."""

import contextlib
import datetime
import importlib.metadata
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.fleet import job_submission
from crossfold.platform.edge.fleet.job_submission import Job, submit
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.scheduling.time_budget import budget_seconds
from crossfold.platform.workspace.workspace import Workspace
from tests.support.paths import ROOT
from tests.support.waiting import wait_for

VERSION = importlib.metadata.version("crossfold")

SWEEP = """
name: tiny
corpus: synthetic
recipe: demo
set: {epochs: 2, window: 60, hop: 40}
systems: [concat, jca]
targets: [valence]
folds: [0]
seeds: [0]
"""


class FakeClient:
    """Keeps what was submitted; the job prints two lines and ends as the test says."""

    def __init__(self, status: str = "SUCCEEDED", code: int | None = 0) -> None:
        self.submitted: dict = {}
        self.shipped: set[str] = set()
        self._status, self._code = status, code

    def submit_job(self, **job) -> str:
        self.submitted = job
        code = Path(job["runtime_env"]["working_dir"])
        self.shipped = {str(path.relative_to(code)) for path in code.rglob("*") if path.is_file()}
        return job["submission_id"]

    async def tail_job_logs(self, job):
        for piece in ("one\ntw", "o\nthree"):
            yield piece

    def get_job_status(self, job):
        from ray.job_submission import JobStatus

        return JobStatus(self._status)

    def get_job_info(self, job):
        return type("Info", (), {"message": "it broke", "driver_exit_code": self._code})()


@pytest.fixture
def client(monkeypatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr(job_submission, "_connect", lambda address: fake)
    return fake


def test_the_code_that_travels_has_its_data_and_its_metadata_but_no_tests(tmp_path):
    job_submission.copy_code(tmp_path)
    held = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert {
        "crossfold/platform/execution/run_cell.py",
        "crossfold/sweeps/recipes/demo.yaml",
        "crossfold/reports/page/templates/report.js",
        f"crossfold-{VERSION}.dist-info/METADATA",
    } <= held
    assert not [path for path in held if "tests" in Path(path).parts or path.endswith(".pyc")]
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_a_job_ships_code_and_sweep_and_names_the_workspace(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSFOLD_SOMETHING", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    (tmp_path / "mine.yaml").write_text(SWEEP.replace("recipe: demo", "recipe: recipes/own.yaml"))
    (tmp_path / "recipes").mkdir()
    shutil.copy(ROOT / "sweeps" / "recipes" / "demo.yaml", tmp_path / "recipes" / "own.yaml")
    said: list[str] = []
    code = submit(
        Job(["mine.yaml"], Path("space"), overrides=("epochs=3",), workers=2), "http://head", show=said.append
    )
    job = client.submitted
    assert code == 0
    assert said[1:] == ["one", "two", "three"]
    assert job["entrypoint"] == (
        "python -m crossfold.platform.edge.cli run mine.yaml "
        f"--workspace {tmp_path / 'space'} --address auto --set epochs=3 --workers 2"
    )
    assert job["entrypoint_num_cpus"] == 0
    assert job["submission_id"].startswith("crossfold-tiny-")
    assert {"mine.yaml", "recipes/own.yaml", "crossfold/platform/execution/run_cell.py"} <= client.shipped
    assert job["runtime_env"]["env_vars"]["MLFLOW_TRACKING_URI"] == "http://mlflow"
    assert job["runtime_env"]["env_vars"]["CROSSFOLD_SOMETHING"] == "1"
    assert "SECRET_TOKEN" not in job["runtime_env"]["env_vars"]


@pytest.mark.parametrize(
    ("answers", "patience", "refusal"),
    [
        ([job_submission.NO_AGENT] * 3, 60.0, ""),
        (["the disk is full"], 60.0, "http://head took no job: .*the disk is full"),
        ([job_submission.NO_AGENT] * 9, 0.0, "took no job for 0 s.*No available agent"),
    ],
)
def test_a_head_that_has_just_started_is_given_time_and_one_that_refuses_is_told(
    client, tmp_path, monkeypatch, answers, patience, refusal
):
    monkeypatch.setattr(job_submission, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(job_submission, "HEAD_SECONDS", patience)
    left, seen, accept = list(answers), [], client.submit_job

    def submit_job(**job):
        seen.append(job["submission_id"])
        if left:
            raise RuntimeError(f"Request failed with status code 500: {left.pop()}, please try again later..\n")
        return accept(**job)

    monkeypatch.setattr(client, "submit_job", submit_job)
    with pytest.raises(UserError, match=refusal) if refusal else contextlib.nullcontext():
        assert submit(Job(["demo"], tmp_path), "http://head") == 0
    assert len(seen) == len(answers) + (not refusal) - len(left)
    assert len(set(seen)) == 1


def test_a_search_is_submitted_as_a_search_and_a_shipped_sweep_by_name(client, tmp_path):
    submit(Job(["search-demo"], tmp_path), "http://head", wait=False)
    assert " search search-demo " in client.submitted["entrypoint"]
    with pytest.raises(UserError, match="search-demo is a search, and a job holds one search or several grids"):
        submit(Job(["demo", "search-demo"], tmp_path), "http://head")
    with pytest.raises(UserError, match="leave --only out"):
        submit(Job(["search-demo"], tmp_path, conditions=["fold=0"]), "http://head")


def test_a_job_has_the_priorities_the_conditions_and_the_time_of_a_run(client, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from crossfold.platform.edge.cli.app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    command = [
        "submit",
        "tiny.yaml",
        "demo",
        "--address",
        "http://head",
        "-w",
        "/lab",
        "--only",
        "system=jca",
        "--only",
        "fold=0",
    ]
    try:
        told = CliRunner().invoke(app, [*command, "--for", "2h"])
    finally:
        monkeypatch.undo()
        time.tzset()
    assert told.exit_code == 0, told.output
    words = shlex.split(client.submitted["entrypoint"])
    assert words[3:6] == ["run", "tiny.yaml", "demo"]
    assert words[words.index("--only") :][:4] == ["--only", "system=jca", "--only", "fold=0"]
    until = datetime.datetime.fromisoformat(words[words.index("--until") + 1])
    assert until.utcoffset() == datetime.timedelta(hours=9)
    # The head may be in another time zone, and counts the same seconds.
    assert budget_seconds(until.isoformat(), None) == pytest.approx(7200, abs=60)
    assert client.submitted["submission_id"].startswith("crossfold-tiny-demo-")


def test_two_sweep_files_of_one_name_are_refused(client, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tiny.yaml").write_text(SWEEP)
    with pytest.raises(UserError, match=r"two sweep files are called tiny\.yaml"):
        submit(Job([tmp_path / "a" / "tiny.yaml", tmp_path / "b" / "tiny.yaml"], tmp_path), "http://head")
    assert client.submitted == {}


def test_plugins_travel_along(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "louder.py").write_text("LOUD = True\n")
    (tmp_path / "louder.py").write_text("LOUD = False\n")
    submit(Job(["demo"], tmp_path, plugins=(Path("mine/louder.py"),)), "http://head", wait=False)
    assert " --plugin plugins/louder.py" in client.submitted["entrypoint"]
    assert "plugins/louder.py" in client.shipped
    with pytest.raises(UserError, match=r"two plugins are called louder\.py"):
        submit(Job(["demo"], tmp_path, plugins=(Path("mine/louder.py"), Path("louder.py"))), "http://head")
    with pytest.raises(UserError, match="is not a Python file"):
        submit(Job(["demo"], tmp_path, plugins=(Path("none.py"),)), "http://head")


def test_a_wrong_sweep_is_refused_before_anything_is_sent(client, tmp_path):
    with pytest.raises(UserError, match="demo"):
        submit(Job(["demoo"], tmp_path), "http://head")
    assert client.submitted == {}


@pytest.mark.parametrize(("status", "exit_code", "code"), [("FAILED", 1, 1), ("FAILED", 2, 2), ("STOPPED", None, 1)])
def test_the_exit_code_of_the_job_is_passed_on(monkeypatch, tmp_path, status, exit_code, code):
    monkeypatch.setattr(job_submission, "_connect", lambda address: FakeClient(status, exit_code))
    assert submit(Job(["demo"], tmp_path), "http://head") == code


def test_submission_ids_differ():
    assert len({job_submission.submission_id("s") for _ in range(100)}) == 100


def test_a_head_that_does_not_answer_says_what_to_start(tmp_path):
    with pytest.raises(UserError, match="ray start --head"):
        submit(Job(["demo"], tmp_path), f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("address", ["auto", "ray://head:10001", "127.0.0.1:6379"])
def test_another_kind_of_address_says_which_is_wanted(tmp_path, address):
    with pytest.raises(UserError, match="http://127"):
        submit(Job(["demo"], tmp_path), address)


def test_the_code_that_travels_runs_where_nothing_is_installed(tmp_path, monkeypatch):
    """And it can be sent on from there."""
    job_submission.copy_code(tmp_path / "first")
    import crossfold

    installed = job_submission.importlib.metadata.PathDistribution(
        tmp_path / "first" / f"crossfold-{VERSION}.dist-info"
    )
    monkeypatch.setattr(crossfold, "__path__", [str(tmp_path / "first" / "crossfold")])
    monkeypatch.setattr(job_submission.importlib.metadata, "distribution", lambda name: installed)
    job_submission.copy_code(tmp_path / "again")
    first, again = ({p.relative_to(f) for p in f.rglob("*")} for f in (tmp_path / "first", tmp_path / "again"))
    assert first == again
    where = (
        "import crossfold.platform.core.cell as c, importlib.metadata as m; print(c.__file__, m.version('crossfold'))"
    )
    told = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path / "again", capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(tmp_path / "again")},
    )  # fmt: skip
    assert told.stdout.split() == [str(tmp_path / "again" / "crossfold" / "platform" / "core" / "cell.py"), VERSION]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found[1:]


@contextlib.contextmanager
def ray_head():
    """A head of our own on free ports; stopped by its own process ids."""
    scripts = Path(sys.executable).parent
    folder = tempfile.mkdtemp(prefix="cf", dir="/tmp")  # noqa: TID251 - Ray's sockets allow no long path
    url_port = free_port()
    ports = {
        "port": free_port(), "dashboard-port": url_port, "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": free_port(), "metrics-export-port": free_port(),
    }  # fmt: skip
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        "RAY_AUTH_MODE": "disabled",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    head = subprocess.Popen(
        [str(scripts / "ray"), "start", "--head", "--block", "--dashboard-host", "127.0.0.1",
         "--include-dashboard", "true", "--disable-usage-stats", "--num-cpus", "1", "--temp-dir", folder,
         "--object-store-memory", str(100 * 2**20), *(f"--{name}={port}" for name, port in ports.items())],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: answers(url_port), 60)
        yield f"http://127.0.0.1:{url_port}"
    finally:
        mine = descendants(head.pid)
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(5)
        for pid in [head.pid, *mine]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def answers(port: int) -> bool:
    import urllib.request

    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def head():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_head() as address:
            yield address


@pytest.fixture
def space(tmp_path) -> Workspace:
    """A workspace with the store of a small synthetic corpus."""
    crossfold = [sys.executable, "-m", "crossfold.platform.edge.cli"]
    corpus = ["corpus", "synthetic", str(tmp_path / "corpus"), "--clips", "8", "--frames", "200"]
    prepare = ["prepare", "synthetic", "--root", str(tmp_path / "corpus"), "--workspace", str(tmp_path / "space")]
    for command in (corpus, prepare):
        subprocess.run([*crossfold, *command], check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    return Workspace(tmp_path / "space")


WHERE = """
import ray
ray.init(address="auto", log_to_driver=False)

@ray.remote
def where():
    import importlib.metadata, os, crossfold.platform.core.cell as contracts
    os.chdir("/")
    return contracts.__file__, importlib.metadata.version("crossfold")

import crossfold.platform.core.cell as contracts
print("driver", contracts.__file__)
print("task", *ray.get(where.remote()))
"""


@pytest.mark.slow
def test_driver_and_workers_import_the_shipped_code(head, tmp_path):
    script = tmp_path / "where.py"
    script.write_text(WHERE)
    said: list[str] = []
    code = submit(Job(["demo"], tmp_path), head, show=said.append, entrypoint=f'python -c "$(cat {script})"')
    assert code == 0, said
    told = dict(line.split(" ", 1) for line in said if line.startswith(("driver", "task")))
    for place in told.values():
        assert "runtime_resources" in place and str(ROOT) not in place


def status(head: str, job: str) -> str:
    from ray.job_submission import JobSubmissionClient

    return str(JobSubmissionClient(head).get_job_status(job))


@pytest.mark.slow
def test_a_job_goes_on_without_its_client(head, tmp_path):
    said: list[str] = []
    marker = tmp_path / "done"
    submit(Job(["demo"], tmp_path), head, wait=False, show=said.append, entrypoint=f"sleep 2; touch {marker}; exit 3")
    job = said[0].split()[1].rstrip(";")
    assert status(head, job) in ("PENDING", "RUNNING")
    wait_for(marker.exists, 30)
    wait_for(lambda: status(head, job) == "FAILED", 20)


@pytest.mark.slow
def test_a_sweep_runs_as_a_job_that_is_stopped_and_goes_on_by_the_same_command(head, space, tmp_path):
    from ray.job_submission import JobSubmissionClient

    epochs = "epochs: 150, patience: 150, optimizer.plateau_patience: 150"
    sweep = tmp_path / "long.yaml"
    sweep.write_text(SWEEP.replace("epochs: 2", epochs).replace("[concat, jca]", "[concat]"))
    said: list[str] = []
    submit(Job([sweep], space.root), head, wait=False, show=said.append)
    job = said[0].split()[1].rstrip(";")
    wait_for(lambda: list((space.root / "running").glob("*/*")), 120)
    assert JobSubmissionClient(head).stop_job(job)
    wait_for(lambda: status(head, job) == "STOPPED", 60)
    (checkpoint,) = (space.root / "running").glob("*/*")
    assert not space.finished()

    code = submit(Job([sweep], space.root), head, show=said.append)
    assert code == 0, "\n".join(said)
    (record,) = space.records()
    assert record.cell_id == checkpoint.parent.name
    # What the first job did stands in the curve as it was.
    assert list(record.curve["epoch"]) == list(range(150))
    alone = Workspace(tmp_path / "alone")
    shutil.copytree(space.paths.stores, alone.paths.stores)
    assert attempt_cell(record.cell, alone).status == "done"
    for name in ("result.json", "curve.parquet", "predictions.npz", "best.safetensors"):
        assert (alone.paths.cell(record.cell_id) / name).read_bytes() == (record.path / name).read_bytes()
    # The same job again finds everything done.
    assert submit(Job([sweep], space.root), head, show=said.append) == 0
    assert any("nothing to run" in line for line in said)
