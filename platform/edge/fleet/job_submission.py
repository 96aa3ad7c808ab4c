"""A sweep as a Ray job: the code travels along, the data stay where they are, the results land in the workspace.

What the head node needs, and how to do the same with Ray's own command line, is in `docs/ray-jobs.md`.
"""

import asyncio
import contextlib
import datetime
import importlib.metadata
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.core.yaml_files import read_yaml
from crossfold.platform.edge.fleet.ray_connection import environment, first_line
from crossfold.platform.workspace.remote.filesystem import without_password
from crossfold.platform.workspace.workspace import Workspace

START = "RAY_AUTH_MODE=token ray start --head --dashboard-host 127.0.0.1 --include-dashboard true --disable-usage-stats"
"""What starts a head that takes jobs, with the token of `~/.ray/auth_token` (docs/ray-jobs.md)."""

PASSED_ON = ("MLFLOW_TRACKING_URI",)
"""Variables that a job gets from here, in addition to all `CROSSFOLD_*`."""

POLL_SECONDS = 0.5
NO_AGENT = "No available agent"
"""What Ray answers until the agent that starts jobs has come up ..."""
HEAD_SECONDS = 60.0
"""... and how long that may take."""


@dataclass(frozen=True)
class Job:
    """What `crossfold run` of sweeps, or `crossfold search` of one, shall do on the cluster."""

    sweeps: Sequence[str | Path]
    workspace: str | Path
    """A folder that the cluster sees under the same path, or a URL that it can read and write."""
    overrides: Sequence[str] = ()
    workers: int | None = None
    plugins: Sequence[Path] = ()
    """Files that register systems; they travel with the code."""
    conditions: Sequence[str] = ()
    until: str | None = None
    """A moment with its time zone, as the head's clock may have another."""


def submit(
    job: Job,
    address: str,
    *,
    wait: bool = True,
    show: Callable[[str], None] = lambda line: None,
    entrypoint: str | None = None,
) -> int:
    """Submits a job to the head at `address`; returns its exit code.

    `wait` follows the log to the end; without, 0 is returned at once. Either way the job outlives this process.
    show: receives the log, line by line. entrypoint: another command, for tests. Raises `UserError` for what `run` and
    `search` would refuse, before anything is sent, and where the head takes no job.
    """
    name, command = _checked(job)
    place = Workspace.at(job.workspace).address
    client = _connect(address)
    with tempfile.TemporaryDirectory(prefix="crossfold-job-") as folder:
        code = Path(folder)
        copy_code(code)
        words = [command, *_copy_sweeps(job.sweeps, code), "--workspace", place, "--address", "auto"]
        words += _each("--set", job.overrides) + _each("--plugin", _copy_plugins(job.plugins, code))
        words += _each("--workers", [] if job.workers is None else [str(job.workers)])
        words += _each("--only", job.conditions) + _each("--until", [] if job.until is None else [job.until])
        submitted = _hand_over(
            client,
            address,
            entrypoint=entrypoint or shlex.join(["python", "-m", "crossfold.platform.edge.cli", *words]),
            # Waits for workers; a core for it would be one less for them.
            entrypoint_num_cpus=0,
            submission_id=submission_id(name),
            runtime_env={"working_dir": str(code), "env_vars": _environment()},
            metadata={"crossfold_sweep": name, "crossfold_workspace": without_password(place)},
        )
    show(f"submitted {submitted}; `crossfold status --workspace {without_password(place)}` shows its progress")
    return _follow(client, submitted, show) if wait else 0


def _checked(job: Job) -> tuple[str, str]:
    """The name of a job, and the command that runs it."""
    from crossfold.sweeps.sweep_files import Sweep, load

    for plugin in job.plugins:
        load_plugin(plugin)
    sweeps = [load(sweep, job.overrides) for sweep in job.sweeps]
    search = next((sweep.name for sweep in sweeps if not isinstance(sweep, Sweep)), None)
    if search is not None and len(sweeps) > 1:
        raise UserError(f"{search} is a search, and a job holds one search or several grids", "submit it by itself")
    if search is not None and job.conditions:
        raise UserError(
            f"--only {job.conditions[0]}: {search} is a search, which chooses its cells", "leave --only out"
        )
    return "-".join(sweep.name for sweep in sweeps), "run" if search is None else "search"


def submission_id(sweep: str) -> str:
    """A name that holds the sweep and the time, and is never used twice."""
    now = datetime.datetime.now(datetime.UTC)
    return f"crossfold-{sweep}-{now:%Y%m%d-%H%M%S-%f}"


def copy_code(folder: Path) -> None:
    """Copies this very code into `folder`: `crossfold/` with its data files, and the metadata of the package."""
    import crossfold

    # In a checkout the folders are links, which become copies.
    for place in {Path(place).resolve() for place in crossfold.__path__}:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(place, folder / "crossfold", ignore=ignored, dirs_exist_ok=True)
    installed = importlib.metadata.distribution("crossfold")
    metadata = folder / f"crossfold-{installed.version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(installed.read_text("METADATA") or "", encoding="utf-8")


def _copy_sweeps(sweeps: Sequence[str | Path], folder: Path) -> list[str]:
    """Copies sweep files, and recipe files they name, next to the code; returns how to name the sweeps there."""
    files = [Path(sweep) for sweep in sweeps if Path(sweep).is_file()]
    for path in files:
        if len({other.resolve() for other in files if other.name == path.name}) > 1:
            raise UserError(f"two sweep files are called {path.name}", "rename one of them")
        shutil.copy2(path, folder / path.name)
        # The job looks up a relative path from the folder that it runs in.
        recipe = Path(str(read_yaml(path, "a sweep", "corpus: puppets\nrecipe: mine.yaml").get("recipe", "")))
        if recipe.suffix == ".yaml" and recipe.is_file() and not recipe.is_absolute():
            copy = path_inside(folder, recipe.as_posix())
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(recipe, copy)
    return [Path(sweep).name if Path(sweep).is_file() else str(sweep) for sweep in sweeps]


def _copy_plugins(plugins: Sequence[Path], folder: Path) -> list[str]:
    """Copies plugins next to the code; returns how to name them there."""
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
            f"{address} asks for a token: {first_line(error)}",
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH as on the head",
        ) from None
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"no Ray head answers at {address}: {first_line(error)}", f"start one: {START}") from None
    # The client sets up Ray's logging, which would report every upload.
    logging.getLogger("ray").setLevel(logging.WARNING)
    return client


def _hand_over(client: Any, address: str, **job: Any) -> str:
    """Submits the job; a head that has just started takes none for some seconds."""
    patience = time.monotonic() + HEAD_SECONDS
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            reason = first_line(error)
            if NO_AGENT not in reason:
                raise UserError(f"{address} took no job: {reason}", "look at `ray status` there") from None
            if time.monotonic() > patience:
                raise UserError(
                    f"{address} took no job for {HEAD_SECONDS:.0f} s: {reason}",
                    "its dashboard agent did not start: another Ray cluster on that machine may hold port 52365; stop "
                    "that one, or start the head with --dashboard-agent-listen-port of its own",
                ) from None
        time.sleep(POLL_SECONDS)


def _follow(client: Any, job: str, show: Callable[[str], None]) -> int:
    """Passes the log on until the job ends; returns its exit code."""
    try:
        asyncio.run(_tail(client, job, show))
        while not (status := client.get_job_status(job)).is_terminal():
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        show(f"no longer following; {job} goes on (`ray job logs {job} --follow`, `ray job stop {job}`)")
        raise
    if str(status) == "SUCCEEDED":
        return 0
    info = client.get_job_info(job)
    show(f"{job} {status}: {info.message or ''}")
    return int(info.driver_exit_code or 1)


async def _tail(client: Any, job: str, show: Callable[[str], None]) -> None:
    rest = ""
    # The job goes on when its log breaks off; its status says when it ends.
    with contextlib.suppress(RuntimeError, OSError):
        async for piece in client.tail_job_logs(job):
            *lines, rest = (rest + piece).split("\n")
            for line in lines:
                show(line)
    if rest:
        show(rest)
