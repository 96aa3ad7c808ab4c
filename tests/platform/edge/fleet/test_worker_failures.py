"""Deaths of workers as Ray tells them: their class, and what a driver that was killed leaves reserved."""

import os
import sys
import types

import pytest

from crossfold.platform.core.outcome import FailureClass

pytest.importorskip("ray")

MONITOR = (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.0.0.1) where the lease was "
    "running was 22.9GB / 23.5GB (0.97), which exceeds the memory usage threshold of 0.95."
)
GONE = (
    "The actor died unexpectedly before finishing this task.\nThe actor is dead because its worker process has died. "
    "Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End "
    "of file. Some common causes include: (1) the process was killed by the OOM killer due to high memory usage"
)
NODE = "The actor died because its node has died. Node Id: 12"


def cause(error, **keywords):
    from crossfold.platform.edge.fleet.worker_failures import cause_of

    return cause_of(1, error, **keywords)


def test_what_ray_ends_for_memory_is_oom_and_what_it_only_guesses_is_not():
    from ray.exceptions import OutOfMemoryError

    assert cause(OutOfMemoryError("x"))[0] == FailureClass.OOM
    assert cause(RuntimeError(MONITOR)) == (
        FailureClass.OOM, "worker 1 was ended while it ran this cell: its machine ran out of memory",
    )  # fmt: skip
    kind, said = cause(RuntimeError(GONE))
    assert kind == FailureClass.INFRA
    assert said.endswith("End of file.")
    assert cause(RuntimeError(NODE)) == (
        FailureClass.INFRA, "worker 1 was lost with its machine while it ran this cell",
    )  # fmt: skip
    health = types.SimpleNamespace(health_check_failure=RuntimeError(MONITOR))
    assert cause(health)[0] == FailureClass.OOM


def test_a_death_while_linux_ends_processes_for_memory_is_oom(tmp_path, monkeypatch):
    from crossfold.platform.edge.fleet import worker_failures

    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 3\n")
    assert worker_failures.oom_kills(vmstat) == 3
    assert worker_failures.oom_kills(tmp_path / "none") == 0
    told = []
    read = worker_failures.oom_kills
    monkeypatch.setattr(worker_failures, "oom_kills", lambda: read(vmstat))
    monkeypatch.setattr(worker_failures.ray, "get_actor", lambda *a, **k: _Queue(told))
    monkeypatch.setattr(worker_failures.ray, "get", lambda ref, timeout: None)
    notes = worker_failures.WorkerFailureCallback("queue")
    notes.after_exception(None, {0: RuntimeError(GONE)})
    vmstat.write_text("oom_kill 4\n")
    notes.after_exception(None, {0: RuntimeError(GONE)})
    notes.after_exception(None, {0: RuntimeError(GONE)})
    assert [causes[0][0] for causes in told] == [FailureClass.INFRA, FailureClass.OOM, FailureClass.INFRA]


class _Queue:
    def __init__(self, told) -> None:
        self.workers_died = types.SimpleNamespace(remote=told.append)


def test_what_a_killed_driver_reserved_is_released_sooner_where_ray_lets_us(monkeypatch):
    import cloudpickle
    import ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client as requests

    from crossfold.platform.edge.fleet import worker_failures

    monkeypatch.setattr(requests, "AUTOSCALING_REQUESTS_EXPIRE_TIME_S", 180)
    callback = cloudpickle.loads(cloudpickle.dumps(worker_failures.WorkerFailureCallback("queue")))
    assert callback._queue == "queue"
    assert requests.AUTOSCALING_REQUESTS_EXPIRE_TIME_S == worker_failures.STALE_SECONDS


@pytest.mark.parametrize(
    "constants",
    [
        {},
        {"AUTOSCALING_REQUESTS_EXPIRE_TIME_S": 180},
        {"AUTOSCALING_REQUESTS_EXPIRE_TIME_S": "3 minutes", "AUTOSCALING_REQUESTS_INTERVAL_S": 20},
        {"AUTOSCALING_REQUESTS_EXPIRE_TIME_S": 180, "AUTOSCALING_REQUESTS_INTERVAL_S": 60},
    ],
    ids=["both gone", "one gone", "of another kind", "renewed too rarely"],
)
def test_a_ray_that_has_it_otherwise_is_left_alone(monkeypatch, constants):
    from crossfold.platform.edge.fleet import worker_failures

    module = types.ModuleType("a_later_ray")
    module.__dict__.update(constants)
    monkeypatch.setitem(sys.modules, "a_later_ray", module)
    before = dict(module.__dict__)
    assert not worker_failures.release_sooner("a_later_ray")
    assert module.__dict__ == before
    assert not worker_failures.release_sooner("no.such.module")
    monkeypatch.setattr(worker_failures, "_REQUESTS", "no.such.module")
    assert worker_failures.WorkerFailureCallback("queue")._queue == "queue"


@pytest.mark.parametrize("slow", [0, 2, 3])
def test_a_machine_so_busy_that_ray_is_late_gets_three_chances(slow):
    from crossfold.platform.core.errors import FleetError
    from crossfold.platform.edge.fleet.ray_connection import start

    calls = []

    def init(**options):
        calls.append(options)
        if len(calls) <= slow:
            raise Exception("The current node timed out during startup. This could happen because ...")

    stops = []
    if slow == 3:
        with pytest.raises(FleetError, match="in 3 attempts"):
            start(init, lambda: stops.append(1), {"num_cpus": 2})
    else:
        start(init, lambda: stops.append(1), {"num_cpus": 2})
    assert calls == [{"address": "local", "include_dashboard": False, "num_cpus": 2}] * min(slow + 1, 3)
    assert len(stops) == slow


@pytest.mark.parametrize("before", [None, "http://head:8265"])
def test_processes_of_our_own_cluster_do_not_look_for_a_dashboard(monkeypatch, before):
    from ray.dashboard.utils import get_address_for_submission_client

    from crossfold.platform.edge.fleet.ray_connection import start

    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    if before:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", before)
    # What Ray Train's cleaner asks first; without the variable it would look for a cluster, and then wait.
    found = []
    start(lambda **options: found.append(get_address_for_submission_client(None)), lambda: None, {})
    assert found == ["http://127.0.0.1:1"]
    assert os.environ.get("RAY_API_SERVER_ADDRESS") == before


def test_whatever_else_keeps_ray_from_starting_is_a_sentence_with_a_remedy():
    from crossfold.platform.core.errors import UserError
    from crossfold.platform.edge.fleet.ray_connection import start

    def init(**options):
        raise ConnectionError("The port is taken.\nIt is held by process 7.")

    with pytest.raises(UserError) as error:
        start(init, lambda: None, {})
    assert error.value.problem == "Ray does not start: The port is taken"
    assert "--workers 0" in error.value.remedy


def test_one_that_releases_sooner_by_itself_keeps_its_time(monkeypatch):
    from crossfold.platform.edge.fleet import worker_failures

    module = types.ModuleType("a_quick_ray")
    module.AUTOSCALING_REQUESTS_EXPIRE_TIME_S, module.AUTOSCALING_REQUESTS_INTERVAL_S = 30, 10
    monkeypatch.setitem(sys.modules, "a_quick_ray", module)
    assert worker_failures.release_sooner("a_quick_ray")
    assert module.AUTOSCALING_REQUESTS_EXPIRE_TIME_S == 30
