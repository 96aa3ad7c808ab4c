"""A sweep as a Ray job: the code travels as a wheel, the data stay where they are, the results land in the workspace.

The head node needs the dependencies in its `python`, a dashboard (`ray start --head --dashboard-host 127.0.0.1
--include-dashboard true --disable-usage-stats`), and the workspace under the same path, as on a shared mount.
A head with token authentication wants `RAY_AUTH_MODE=token` and `RAY_AUTH_TOKEN_PATH` here as well; one on loopback may
go without, with `RAY_AUTH_MODE=disabled` on both sides. Ray itself decides by whether `~/.ray/auth_token` exists, so
say which.

From a checkout the same goes through Ray's own command line, where the link farm takes the place of the wheel:

    ray job submit --address http://127.0.0.1:8265 --entrypoint-num-cpus 0 --working-dir . \\
        --runtime-env-json '{"py_modules": [".pkg/crossfold"]}' \\
        -- python -m crossfold.platform.edge.cli run demo --workspace /shared/workspace --address auto
"""

import asyncio
import contextlib
import datetime
import importlib.metadata
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.edge.fleet.cluster import environment
from crossfold.platform.workspace.remote.filesystem import without_password
from crossfold.platform.workspace.workspace import Workspace

START = "ray start --head --dashboard-host 127.0.0.1 --include-dashboard true --disable-usage-stats"
"""What starts a head that takes jobs."""

PASSED_ON = ("MLFLOW_TRACKING_URI",)
"""Variables that a job gets from here, beside all `CROSSFOLD_*`."""

POLL_SECONDS = 0.5
NO_AGENT = "No available agent"
"""What Ray answers until the agent that starts jobs has come up ..."""
HEAD_SECONDS = 60.0
"""... and how long that may take."""

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def submit(
    sweeps: Sequence[str | Path],
    address: str,
    workspace: str | Path,
    *,
    wait: bool = True,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    plugins: Sequence[Path] = (),
    conditions: Sequence[str] = (),
    until: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
    entrypoint: str | None = None,
) -> int:
    """Submits `crossfold run` of sweeps (or `search` of one) to the head at `address`; returns its exit code.

    `workspace`: a folder that the cluster sees under the same path, or a URL that it can read and write.
    `wait` follows the log to the end; without, 0 is returned at once. Either way the job outlives this process.
    plugins: files that register systems; they travel with the code.
    conditions, until: see `crossfold run`; a moment with its time zone, as the head's clock may have another.
    tell: receives the log, line by line. entrypoint: another command, for tests.
    """
    from crossfold.sweeps.sweep_files import Search, load

    for plugin in plugins:
        load_plugin(plugin)
    asked = [load(sweep, overrides) for sweep in sweeps]
    name = "-".join(one.name for one in asked)
    search = next((one.name for one in asked if isinstance(one, Search)), None)
    if search is not None and len(asked) > 1:
        raise UserError(f"{search} is a search, and a job holds one search or several grids", "submit it by itself")
    if search is not None and conditions:
        raise UserError(f"--only {conditions[0]}: {search} is a search, which chooses its cells", "leave --only out")
    place = Workspace.at(workspace).address
    client = _connect(address)
    with tempfile.TemporaryDirectory(prefix="crossfold-job-") as folder:
        code = Path(folder) / "code"
        unpack_wheel(code)
        command = ["run" if search is None else "search", *_ship_sweeps(sweeps, code)]
        command += ["--workspace", place, "--address", "auto"]
        command += _each("--set", overrides) + _each("--plugin", _ship_plugins(plugins, code))
        command += _each("--workers", [] if workers is None else [str(workers)])
        command += _each("--only", conditions) + _each("--until", [] if until is None else [until])
        job = _hand_over(
            client,
            address,
            entrypoint=entrypoint or shlex.join(["python", "-m", "crossfold.platform.edge.cli", *command]),
            # Waits for workers; a core for it would be one less for them.
            entrypoint_num_cpus=0,
            submission_id=submission_id(name),
            runtime_env={"working_dir": str(code), "env_vars": _environment()},
            metadata={"crossfold_sweep": name, "crossfold_workspace": without_password(place)},
        )
    tell(f"submitted {job}; `crossfold status --workspace {without_password(place)}` shows how it goes")
    return _follow(client, job, tell) if wait else 0


def job_status(address: str, job: str) -> str:
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    try:
        return str(_connect(address).get_job_status(job))
    except RuntimeError as error:
        raise UserError(f"no job {job!r} at {address}: {_first_line(error)}", "`ray job list` shows them") from None


def submission_id(sweep: str) -> str:
    """A name that tells the sweep and the time, and is never used twice."""
    now = datetime.datetime.now(datetime.UTC)
    return f"crossfold-{sweep}-{now:%Y%m%d-%H%M%S-%f}"


def unpack_wheel(folder: Path) -> None:
    """Builds the wheel of this very code and unpacks it: `crossfold/` and its metadata.

    Unpacked, because Ray installs a wheel with the `pip` of the node, which an environment made by uv has not.
    """
    with tempfile.TemporaryDirectory(prefix="crossfold-wheel-") as made:
        shutil.unpack_archive(build_wheel(Path(made)), folder, "zip")


def build_wheel(folder: Path) -> Path:
    """Builds a wheel offline: from the checkout by its build backend, or from the installed files."""
    source = _source_tree()
    if source is None:
        return _repack(folder)
    copy = folder / "source"
    # A build leaves files beside the source, so it gets a copy; links become folders.
    shutil.copytree(source / ".pkg", copy / ".pkg", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(source / name, copy / name)
    built = subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=copy, capture_output=True, text=True)
    if built.returncode:
        raise UserError(
            f"the wheel of {source} could not be built: {built.stderr.strip().splitlines()[-1:]}",
            "install setuptools>=77 in this environment",
        )
    return folder / built.stdout.split()[-1]


def _source_tree() -> Path | None:
    """The checkout this code runs from, if it is one."""
    import crossfold

    for place in map(Path, crossfold.__path__):
        root = place.parents[1]
        if (root / "pyproject.toml").is_file() and place.parent == root / ".pkg":
            return root
    return None


def _repack(folder: Path) -> Path:
    """A wheel of the files that an installed wheel left, without its scripts."""
    installed = importlib.metadata.distribution("crossfold")
    path = folder / f"crossfold-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in installed.files or ():
            if file.parts[0] != ".." and file.suffix != ".pyc":
                wheel.write(str(file.locate()), str(file))
    return path


def _ship_sweeps(sweeps: Sequence[str | Path], folder: Path) -> list[str]:
    """Puts sweep files, and recipe files they name, beside the code; returns what to call the sweeps there."""
    files = [Path(sweep) for sweep in sweeps if Path(sweep).is_file()]
    for path in files:
        if len({other.resolve() for other in files if other.name == path.name}) > 1:
            raise UserError(f"two sweep files are called {path.name}", "rename one of them")
        shutil.copy2(path, folder / path.name)
        recipe = Path(str(yaml.safe_load(path.read_text()).get("recipe", "")))
        if recipe.suffix == ".yaml" and recipe.is_file() and not recipe.is_absolute():
            (folder / recipe).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(recipe, folder / recipe)
    return [Path(sweep).name if Path(sweep).is_file() else str(sweep) for sweep in sweeps]


def _ship_plugins(plugins: Sequence[Path], folder: Path) -> list[str]:
    """Puts plugins beside the code; returns what to call them there."""
    names = [f"plugins/{plugin.name}" for plugin in plugins]
    for name, plugin in zip(names, plugins, strict=True):
        if names.count(name) > 1:
            raise UserError(f"two plugins are called {plugin.name}", "rename one of them")
        (folder / "plugins").mkdir(exist_ok=True)
        shutil.copy2(plugin, folder / name)
    return names


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key.startswith("CROSSFOLD_") or key in PASSED_ON}


def _connect(address: str) -> Any:
    if not address.startswith(("http://", "https://")):
        raise UserError(
            f"{address!r} is not the address of a Ray dashboard", "give a URL such as http://127.0.0.1:8265"
        )
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        # Ray lets this variable win over what it is called with; here the caller has said where.
        with environment({"RAY_API_SERVER_ADDRESS": address}):
            client = JobSubmissionClient(address)
    except (AuthenticationError, PermissionError) as error:
        raise UserError(
            f"{address} asks for a token: {_first_line(error)}",
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH as on the head",
        ) from None
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"no Ray head answers at {address}: {_first_line(error)}", f"start one: {START}") from None
    # The client sets up Ray's logging, which would tell of every upload.
    logging.getLogger("ray").setLevel(logging.WARNING)
    return client


def _hand_over(client: Any, address: str, **job: Any) -> str:
    """Submits the job; a head that has just started takes none for some seconds."""
    patience = time.monotonic() + HEAD_SECONDS
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            reason = _first_line(error)
            if NO_AGENT not in reason:
                raise UserError(f"{address} took no job: {reason}", "look at `ray status` there") from None
            if time.monotonic() > patience:
                raise UserError(
                    f"{address} took no job for {HEAD_SECONDS:.0f} s: {reason}",
                    "its dashboard agent did not start: another Ray cluster on that machine may hold port 52365; stop "
                    "that one, or start the head with --dashboard-agent-listen-port of its own",
                ) from None
        time.sleep(POLL_SECONDS)


def _follow(client: Any, job: str, tell: Callable[[str], None]) -> int:
    """Passes the log on until the job ends; returns its exit code."""
    try:
        asyncio.run(_tail(client, job, tell))
        while not (status := client.get_job_status(job)).is_terminal():
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        tell(f"no longer following; {job} goes on (`ray job logs {job} --follow`, `ray job stop {job}`)")
        raise
    if str(status) == "SUCCEEDED":
        return 0
    info = client.get_job_info(job)
    tell(f"{job} {status}: {info.message or ''}")
    return int(info.driver_exit_code or 1)


async def _tail(client: Any, job: str, tell: Callable[[str], None]) -> None:
    rest = ""
    # A log that breaks off is no reason to give the job up: its status is asked until it ends.
    with contextlib.suppress(RuntimeError, OSError):
        async for piece in client.tail_job_logs(job):
            *lines, rest = (rest + piece).split("\n")
            for line in lines:
                tell(line)
    if rest:
        tell(rest)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
