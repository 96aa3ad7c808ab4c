"""Ray for one launch: a cluster of our own, which only this user reaches, or one that others run.

A cluster of our own listens on the loopback interface alone, asks for a token that is made for it, and keeps its files
in a folder that only this user may open. docs/security.md says what listens where.
"""

import contextlib
import json
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil

from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.edge.fleet.ray_address import CLIENT, RunningCluster, find_cluster
from crossfold.platform.edge.fleet.session_folder import session_folder

OBJECT_STORE_BYTES = 150 * 2**20
"""For our own cluster. Features are mapped from files, so Ray's store only carries messages."""
NAMESPACE = "crossfold"
"""Ray namespace of the queue actors."""

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray reports dead workers on the driver's standard output, which belongs to our own view or to JSON.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # It would take SIGTERM from the launch, which then ends with a dump of its stack and not in order.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Until Ray knows that a node is lost, it waits for workers on it in vain.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}
"""Read by Ray when it is imported; what a user has set stays."""

OWN_CLUSTER_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    # The name says less than it does: at 0, Ray binds every port of its processes to the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_enable_metrics_collection": "0",
}
"""Of a cluster of our own, for as long as it runs, whatever a user has set."""

WITHOUT_UV = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""Under `uv run`, Ray would otherwise start every worker of ours through uv, which resolves the project anew."""

NO_DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
"""For processes of a cluster of our own, which has no dashboard: an address at which nothing answers. Without one, Ray
Train's cleaner of placement groups looks for 40 seconds, and the end of a short launch waits for 12 of them. The
cleaner is not needed: such a cluster ends with its driver."""

STARTS = 3
"""How often a cluster of our own is started before a launch is given up."""
SLOW_NODE = "timed out during startup"
"""Part of Ray's error for a node that took too long."""
LOOPBACK = ("127.0.0.1", "::1")
LEAVE_SECONDS = 60.0
"""How long Ray may take to end its processes."""
END_SECONDS = 5.0
"""How long processes of a cluster of our own may take to end after it; then they are killed."""
WITHOUT_RAY = "`--workers 0` runs without Ray, and `crossfold --debug` shows where Ray failed"


def connect(address: str | None, opened: contextlib.ExitStack, *, cpus: int, gpus: int | None = None) -> str:
    """Joins the cluster at `address`, or starts one of our own, until `opened` closes; returns a note for people.

    Within a connection it does nothing. cpus, gpus: of a cluster of our own; None: the GPUs that Ray finds. Raises
    `UserError` where no cluster answers at `address`, and for whatever keeps Ray from starting.
    """
    use_settings(own_cluster=not address)
    running = find_cluster(address) if address else None
    import ray

    if ray.is_initialized():
        return ""
    for name in ("ray", "ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": NAMESPACE}
    if running is not None:
        return _join(running, opened, quiet)
    opened.callback(_read_settings_again)
    opened.enter_context(environment(OWN_CLUSTER_SETTINGS | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}))
    _read_settings_again()
    folder = opened.enter_context(session_folder())
    own = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": str(folder)}
    connection = Connection(
        lambda: start(ray.init, ray.shutdown, own | quiet), lambda: end_cluster(ray.shutdown, str(folder))
    )
    opened.callback(connection.close)
    connection.open()
    node = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    if node not in LOOPBACK:
        raise FleetError(f"this version of Ray listens at {node} and not on the loopback interface alone")
    return "Ray: a cluster for this launch alone, without a dashboard; `ray start --head` and --address auto"


def _join(running: RunningCluster, opened: contextlib.ExitStack, quiet: Mapping[str, Any]) -> str:
    import ray

    opened.callback(_read_settings_again)
    opened.enter_context(environment({"RAY_AUTH_MODE": "token" if running.protected else "disabled"}))
    _read_settings_again()
    found: list[Any] = []

    def join() -> None:
        try:
            found.append(ray.init(address=running.address, **quiet, **_weights_environment()))
        except Exception as error:
            problem = f"the Ray cluster at {running.address} cannot be joined: {summary(error)}"
            raise UserError(problem, WITHOUT_RAY) from error

    if running.address.startswith(CLIENT):
        # A connection as a client belongs to the thread that made it.
        opened.callback(ray.shutdown)
        with kept_handlers():
            join()
    else:
        connection = Connection(join, ray.shutdown)
        opened.callback(connection.close)
        connection.open()
    dashboard = getattr(found[0], "dashboard_url", "")
    return f"Ray: {running}" + (f"; dashboard: http://{dashboard}" if dashboard else "")


def use_settings(*, own_cluster: bool, more: Mapping[str, str] | None = None) -> None:
    """Puts our settings into the environment, before Ray is imported. What the user has set stays."""
    settings = RAY_SETTINGS | dict(more or {}) | (WITHOUT_UV if own_cluster else {})
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def start(init: Callable[..., Any], shutdown: Callable[[], Any], options: Mapping[str, Any]) -> None:
    """Starts a cluster of our own, again if Ray's limit of 30 s for its node was too short on a very busy machine.

    Raises `FleetError` when the last of `STARTS` fails as well, `UserError` for every other reason.
    """
    for remaining in reversed(range(STARTS)):
        try:
            with environment(NO_DASHBOARD):
                init(address="local", include_dashboard=False, **options)
            return
        except Exception as error:
            # Ray raises no class of its own here.
            shutdown()
            if SLOW_NODE not in str(error):
                raise UserError(f"Ray does not start: {first_line(error)}", WITHOUT_RAY) from error
            if not remaining:
                busy = f"Ray did not start in {STARTS} attempts: the machine is too busy, or short of memory"
                raise FleetError(f"{busy}; `--workers 0` runs without Ray") from error


def end_cluster(shutdown: Callable[[], Any], folder: str) -> None:
    """Ends a cluster of our own with all of its processes, which were started with the path of its folder.

    Ray ends the workers that it has. One that was about to leave by itself is none of these any more, and where its end
    waits for something, as that of a controller for a thread, it would stay for ever.
    """
    first = [child for child in psutil.Process().children() if folder in _command_line(child)]
    # Workers have names of their own: they are known as children, and only while their parent lives.
    processes = [*first, *(each for child in first for each in _descendants(child))]
    shutdown()
    _, left = psutil.wait_procs(processes, END_SECONDS)
    for process in left:
        # psutil refuses where the number of the process is that of another one by now.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, END_SECONDS)


def _command_line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        found = process.children(recursive=True)
    return found


class Connection:
    """Holds Ray's connection of this process in a thread of its own.

    From the main thread, Ray would take SIGTERM from the launch, and hear no Ctrl-C while it connects. The thread lives
    as long as the connection, because Linux ends the processes of a cluster of ours with the thread that started them.
    """

    def __init__(self, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
        """begin: connects. end: disconnects. Both are called in the thread."""
        self._begin = begin
        self._end = end
        self._begun = threading.Event()
        self._leaving = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._hold, name="ray-connection", daemon=True)

    def open(self) -> None:
        """Connects; raises what `begin` raises."""
        self._thread.start()
        self._begun.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Disconnects, also where `open` was interrupted."""
        self._leaving.set()
        if self._thread.ident is not None:
            self._thread.join(LEAVE_SECONDS)

    def _hold(self) -> None:
        try:
            self._begin()
        except BaseException as error:
            self._error = error
        self._begun.set()
        self._leaving.wait()
        self._end()


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """Restores the handlers of SIGINT and SIGTERM after the block."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of the environment while the block runs, for this process and all that it starts."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _read_settings_again() -> None:
    """Lets Ray see the environment as it is now: it reads some variables once, and it may have been imported before."""
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(name, "1") != "0"
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def first_line(error: BaseException) -> str:
    """What an error says, in one line without a period at its end."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def summary(error: BaseException) -> str:
    """What an error of Ray says in one line: such errors hold tracebacks, of which the last line names the reason."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    return ": ".join(dict.fromkeys([first_line(error), *lines[-1:]]))


def _weights_environment() -> dict[str, Any]:
    """Passes `CROSSFOLD_WEIGHTS` to the workers of a cluster; Ray refuses a variable that its job has set already."""
    folder = os.environ.get("CROSSFOLD_WEIGHTS")
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    if folder is None or "CROSSFOLD_WEIGHTS" in (job.get("env_vars") or {}):
        return {}
    return {"runtime_env": {"env_vars": {"CROSSFOLD_WEIGHTS": folder}}}
