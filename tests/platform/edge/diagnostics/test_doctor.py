"""`crossfold doctor` notices and names each fault alone, and says what to do."""

import http.server
import importlib.metadata
import json
import resource
import shutil
import socket
import tempfile
import threading
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from crossfold.platform.edge.cli.app import main
from crossfold.platform.edge.diagnostics import machine as doctor
from crossfold.platform.edge.diagnostics import services
from crossfold.platform.edge.diagnostics.filesystem import _file_system
from crossfold.platform.edge.diagnostics.machine import machine_rows

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_TMPDIR", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def found(rows, check):
    (row,) = [row for row in rows if row["check"] == check]
    return row


def test_a_machine_that_tests_run_on_has_what_is_needed(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--workspace", str(tmp_path / "new" / "workspace"), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row for row in rows if row["state"] in ("missing", "damaged")] == []
    assert not ended.value.code
    assert {"versions", "torch set", "Ray's sessions", "MLflow", "disk", "renames", "locks", "clock", "open files"} <= {
        row["check"] for row in rows
    }
    assert all(bool(row["what to do"]) == (row["state"] != "ok") for row in rows)
    assert list(tmp_path.iterdir()) == [], "checking leaves nothing behind"


def test_what_is_missing_ends_with_2(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--workspace", str(tmp_path / "file"), "--json"])
    assert ended.value.code == 2
    assert found(json.loads(capsys.readouterr().out), "workspace")["state"] == "missing"


def test_versions_are_compared_with_what_is_declared(monkeypatch):
    real = importlib.metadata.version

    def version(name, *more):
        if name == "optuna":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.9.0" if name == "torch" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    row = doctor.version_rows()[0]
    assert row["state"] == "missing"
    assert "torch 2.9.0 is not" in row["found"]
    assert "optuna is not installed" in row["found"]
    assert "ray" not in row["found"]


def test_torch_torchvision_and_torchaudio_are_checked_together(monkeypatch):
    def load(name):
        if name == "torchaudio":
            raise OSError("undefined symbol: _ZN3c104cuda\nmore")

    monkeypatch.setattr(doctor, "_load", load)
    (row,) = doctor.torch_rows()
    assert (row["state"], "does not load: undefined symbol: _ZN3c104cuda" in row["found"]) == ("missing", True)
    monkeypatch.undo()
    versions = {"torch": "2.14.1+cu130", "torchvision": "0.29.2+cpu", "torchaudio": "2.11.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    (row,) = doctor.torch_rows()
    assert (row["state"], "different devices" in row["found"]) == ("missing", True)


def broken(text):
    def raises(*arguments, **named):
        raise RuntimeError(text)

    return raises


@pytest.mark.parametrize(
    ("built", "driver", "hidden", "error", "state", "words"),
    [
        ("13.0", None, None, "no driver", "optional", "no NVIDIA driver"),
        (None, None, None, "", "optional", "none"),
        (None, "570.1", None, "", "missing", "built without CUDA"),
        ("13.0", "470.1", None, "driver is too old", "missing", "do not fit together: driver is too old"),
        ("13.0", "570.1", "", "no device", "optional", "hides every GPU"),
    ],
)
def test_a_gpu_that_cannot_be_had(monkeypatch, built, driver, hidden, error, state, words):
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "init", broken(error))
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (row,) = doctor.gpu_rows()
    assert (row["state"], words in row["found"]) == (state, True), row


@pytest.mark.parametrize(
    ("capability", "free", "error", "state", "words"),
    [
        ((9, 0), 70, None, "ok", "Fake 9000, compute capability 9.0, 70 of 80 GiB free, driver 570.1"),
        ((9, 0), 10, None, "optional", "10 of 80 GiB free"),
        ((7, 5), 70, None, "optional", "compute capability 7.5"),
        ((6, 1), 70, "no kernel image is available", "missing", "has no kernels for it"),
        ((9, 0), 70, "an illegal access\nmore", "missing", "cannot compute: an illegal access"),
    ],
)
def test_a_gpu_that_is_there(monkeypatch, capability, free, error, state, words):
    cuda = torch.cuda
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(doctor, "_driver", lambda: "570.1")
    monkeypatch.setattr(cuda, "init", lambda: None)
    monkeypatch.setattr(cuda, "device_count", lambda: 1)
    facts = SimpleNamespace(name="Fake 9000", major=capability[0], minor=capability[1])
    monkeypatch.setattr(cuda, "get_device_properties", lambda index: facts)
    monkeypatch.setattr(cuda, "mem_get_info", lambda index: (free * 2**30, 80 * 2**30))
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", broken(error) if error else lambda *shape, device: ones(*shape))
    (row,) = doctor.gpu_rows()
    assert (row["state"], words in row["found"]) == (state, True), row


def test_ray_needs_shared_memory_a_disk_that_is_not_full_and_its_cluster(monkeypatch, tmp_path):
    sizes = {Path("/dev/shm"): Usage(2**26, 0, 2**26), tmp_path: Usage(100, 97, 3)}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: sizes[Path(path)])
    monkeypatch.setattr(services, "session_place", lambda: tmp_path)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{closed.getsockname()[1]}")
        rows = doctor.ray_rows()
    assert (found(rows, "shared memory")["state"], found(rows, "Ray's sessions")["state"]) == ("optional", "missing")
    assert "--shm-size" in found(rows, "shared memory")["what to do"]
    assert found(rows, "Ray cluster")["state"] == "missing"


def test_a_folder_of_ray_with_too_long_a_path_or_none_at_all_is_said(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    row = found(services.ray_rows(), "Ray's sessions")
    assert (row["state"], "too long" in row["found"]) == ("missing", True)
    monkeypatch.setenv("RAY_TMPDIR", "/no/such")
    row = found(services.ray_rows(), "Ray's sessions")
    assert (row["state"], row["found"]) == ("missing", "/no/such is no folder")
    # Of a batch system: Ray gets a short folder instead.
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert found(services.ray_rows(), "Ray's sessions")["found"].startswith("/tmp:")


def test_the_tracking_server_is_asked(monkeypatch, tmp_path):
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert doctor.mlflow_rows(tmp_path)[0]["state"] == "ok"
    server.shutdown()
    server.server_close()
    (row,) = doctor.mlflow_rows(tmp_path)
    assert (row["state"], "does not answer" in row["found"]) == ("optional", True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("//", "//me:secret@"))
    assert "secret" not in str(doctor.mlflow_rows(tmp_path))


def test_a_disk_without_room_renames_locks_or_the_right_time(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, 2**20))
    monkeypatch.setattr(Path, "rename", lambda path, target: (path / "file").replace(target))
    monkeypatch.setattr("crossfold.platform.edge.diagnostics.filesystem.FileLock", lambda *how, **more: FreeForAll())
    monkeypatch.setattr(time, "time", lambda: 10_000.0)
    rows = doctor.workspace_rows(tmp_path)
    states = {row["check"]: row["state"] for row in rows}
    assert states == {"disk": "missing", "renames": "missing", "locks": "missing", "clock": "optional"}
    assert "given twice" in found(rows, "locks")["found"]
    monkeypatch.setattr(
        "crossfold.platform.edge.diagnostics.filesystem.FileLock",
        lambda *how, **more: FreeForAll(OSError("No locks available")),
    )
    assert "No locks available" in found(doctor.workspace_rows(tmp_path), "locks")["found"]


class FreeForAll:
    """A lock that every process gets, or none."""

    def __init__(self, error=None):
        self.error = error

    def acquire(self, timeout):
        if self.error is not None:
            raise self.error
        return self

    def release(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_a_workspace_on_a_network_file_system_needs_a_tracking_server(monkeypatch, tmp_path):
    mounts = [("/proc", "proc"), ("/", "ext4"), ("/srv/share", "autofs"), ("/srv/share", "nfs4")]
    parts = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: parts)
    assert _file_system(Path("/srv/share/lab/ws")) == "nfs4"
    assert _file_system(Path("/srv/other")) == "ext4"
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [])
    assert _file_system(Path("/srv/other")) == ""
    monkeypatch.setattr("crossfold.platform.edge.diagnostics.filesystem._file_system", lambda where: "nfs4")
    assert "mlflow server" in found(doctor.workspace_rows(tmp_path), "file system")["what to do"]


@pytest.mark.parametrize(("soft", "state"), [(256, "missing"), (4096, "optional"), (65536, "ok")])
def test_open_files_and_memory(monkeypatch, soft, state):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, 65536))
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * 2**30))
    monkeypatch.setattr(doctor, "cores", lambda: 8)
    rows = doctor.limit_rows()
    assert found(rows, "open files")["state"] == state
    assert found(rows, "memory")["what to do"] == "give --workers 2"


def test_every_check_is_made(tmp_path, monkeypatch):
    for name in ("version_rows", "torch_rows", "gpu_rows", "ray_rows", "limit_rows"):
        monkeypatch.setattr(doctor, name, lambda name=name: [doctor.row(name, True, "")])
    for name in ("mlflow_rows", "workspace_rows"):
        monkeypatch.setattr(doctor, name, lambda root, name=name: [doctor.row(name, True, "")])
    assert len(machine_rows(tmp_path)) == 7
