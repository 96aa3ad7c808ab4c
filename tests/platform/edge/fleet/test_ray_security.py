"""What a launch opens to others: nothing beyond the loopback interface, and nothing there without its token."""

import contextlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from crossfold.platform.core.errors import UserError
from tests.support.chaos import command
from tests.support.factories import synthetic_workspace, write_sweep
from tests.support.paths import environment

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def listening(processes):
    """(name, address, port) of every listening socket of some processes."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((process.name(), connection.laddr.ip, connection.laddr.port))
    return found


@pytest.mark.parametrize("devices", [1, 2])
def test_a_launch_listens_on_loopback_only_and_asks_for_its_token(tmp_path, devices):
    import grpc

    from crossfold.platform.edge.fleet.ray_address import find_cluster

    synthetic_workspace(tmp_path)
    more = {"epochs": 40, "patience": 40, "devices": devices, "loss.scope": "window"}
    sweep = write_sweep(tmp_path / "s.yaml", systems=["concat"], targets=["valence"], seeds=[0, 1], set=more)
    temporary = tmp_path / "t"
    temporary.mkdir()
    run = command("run", sweep, "-w", tmp_path / "work", "--workers", "2")
    # What a user has set for other clusters must not open this one.
    settings = environment(RAY_AUTH_MODE="disabled", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1")
    settings.pop("RAY_TMPDIR", None)
    ports, words, modes, tokens = set(), set(), set(), set()
    driver = subprocess.Popen(run, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watched = psutil.Process(driver.pid)
    asked = False
    while driver.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [watched, *watched.children(recursive=True)]
            ports |= listening(family)
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    words.add(" ".join(process.cmdline()))
                    # Between its fork and its own program a process has the name already, and no environment yet.
                    if process.name() == "gcs_server" and (its := process.environ()) and process.cmdline():
                        tokens.add(its["RAY_AUTH_TOKEN"])
                        place = next(word for word in process.cmdline() if word.startswith("--log_dir="))
                        modes.add(Path(place.partition("=")[2]).parents[2].stat().st_mode & 0o777)
            heads = [(address, port) for name, address, port in ports if name == "gcs_server"]
            if heads and not asked:
                with grpc.insecure_channel(f"127.0.0.1:{heads[0][1]}") as channel, pytest.raises(grpc.RpcError) as no:
                    channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=20)
                assert no.value.code() == grpc.StatusCode.UNAUTHENTICATED
                with pytest.raises(UserError, match=r"asks for a token|does not take the token"):
                    find_cluster(f"127.0.0.1:{heads[0][1]}")
                asked = True
        time.sleep(0.1)
    output = driver.communicate()[0]
    assert driver.returncode == 0, output
    assert asked
    assert {name for name, *_ in ports} >= {"gcs_server", "raylet"}
    assert len(ports) > 8
    assert {entry for entry in ports if entry[1] not in LOOPBACK} == set()
    (token,) = tokens
    assert len(token) == 64
    assert not [line for line in words if token in line]
    assert modes == {0o700}
    assert token not in output


def test_two_launches_have_two_tokens_and_leave_the_environment_as_it_was(monkeypatch):
    import os

    from crossfold.platform.edge.fleet.ray_connection import connect

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    import ray

    tokens = []
    for _ in range(2):
        with contextlib.ExitStack() as opened:
            assert "for this launch alone" in connect(None, opened, cpus=1)
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
            assert os.environ["RAY_AUTH_MODE"] == "token"
            assert ray.util.get_node_ip_address() in LOOPBACK
            assert ray.get(ray.remote(lambda: 7).remote(), timeout=60) == 7
            folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
            assert folder.stat().st_mode & 0o777 == 0o700
        assert not folder.exists()
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert len(set(tokens)) == 2


def hear_signals():
    import contextlib
    import os
    import signal
    import subprocess

    from crossfold.platform.edge.fleet.ray_connection import connect

    heard = []
    before = {n: signal.signal(n, lambda number, frame: heard.append(number)) for n in (signal.SIGTERM, signal.SIGINT)}
    handlers = {n: signal.getsignal(n) for n in before}
    try:
        with contextlib.ExitStack() as opened:
            killer = subprocess.Popen(["bash", "-c", f"for i in 1 2 3 4 5 6; do sleep 0.3; kill {os.getpid()}; done"])
            connect(None, opened, cpus=1)
            killer.wait()
            assert heard == [signal.SIGTERM] * 6
            assert {n: signal.getsignal(n) for n in before} == handlers
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard[6:] == [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_signals_reach_the_launch_before_within_and_after_a_connection():
    # In a process of its own: in one that other tests have used Ray in, Ray's own handler may be there already.
    code = f"{inspect.getsource(hear_signals)}\nhear_signals()"
    heard = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert heard.returncode == 0, heard.stderr


@pytest.mark.parametrize("seconds", [1.0, 3.5, 5.0, 9.0])
def test_a_launch_that_is_told_to_stop_ends_in_order_whatever_it_does(tmp_path, seconds):
    synthetic_workspace(tmp_path)
    more = {"epochs": 400, "patience": 400}
    sweep = write_sweep(tmp_path / "s.yaml", systems=["concat"], targets=["valence"], seeds=[0, 1, 2, 3], set=more)
    run = command("run", sweep, "-w", tmp_path / "work", "--workers", "2")
    driver = subprocess.Popen(run, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # Any moment will do: of the start of Python, of Ray, or of the cells.
    time.sleep(seconds)
    driver.terminate()
    output = driver.communicate(timeout=120)[0]
    assert driver.returncode == 130, output
    assert "Traceback" not in output
    assert "SIGTERM received" not in output
    assert "the same command continues" in output.lower()
