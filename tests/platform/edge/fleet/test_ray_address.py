"""The address of a cluster: whatever way it comes, a cluster answers within seconds, or one sentence says why not."""

import socket
import threading
import time

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.fleet import ray_address
from crossfold.platform.edge.fleet.ray_address import RunningCluster, check_form, find_cluster
from crossfold.platform.scheduling.fleet_options import FleetOptions


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8265", "https://head:8265", "head", "head:", ":6379", "head:x", "head:0", "head:65536",
        "head:6379/", "head:²", "ray://", "ray://head", "ray://:10001", "", " ", "head:" + "9" * 5000, "head:-1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_at_once(address):
    with pytest.raises(UserError, match=r"is no address|of a dashboard") as error:
        check_form(address)
    assert "head:6379" in error.value.remedy


@pytest.mark.parametrize("address", ["auto", "local", "head:6379", "ray://head:10001", "[::1]:6379", "10.0.0.1:1"])
def test_what_is_an_address_passes(address):
    check_form(address)


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_where_nothing_listens_one_sentence_says_so(form, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(UserError, match=f"--address {address}: .*nothing listens there"):
            find_cluster(address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=f"RAY_ADDRESS={address}: .*nothing listens there") as error:
            find_cluster(FleetOptions().cluster)
        assert "unset RAY_ADDRESS" in error.value.remedy
        with pytest.raises(UserError, match=f"here {address}: .*nothing listens there"):
            find_cluster("auto")


def test_who_listens_and_never_speaks_is_given_up_on(monkeypatch):
    monkeypatch.setattr(ray_address, "PROBE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="it was silent for"):
        find_cluster(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("reply", [b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00" * 64, b""])
def test_who_speaks_another_protocol_is_no_cluster(reply):
    def answer(server):
        for _ in range(20):
            try:
                there, _ = server.accept()
            except OSError:
                return
            there.sendall(reply)
            time.sleep(0.05)
            there.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        with pytest.raises(UserError, match=r"does not speak Ray's protocol|was silent"):
            find_cluster(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"no-such-host\.invalid:6379: .*the name of the host is unknown"):
        find_cluster("no-such-host.invalid:6379")


def test_auto_without_any_cluster_is_one_sentence(monkeypatch):
    import ray._private.services as services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    with pytest.raises(UserError, match="--address auto: no Ray cluster runs on this machine"):
        find_cluster("auto")


@pytest.mark.parametrize(("given", "variable", "expected"), [
    (None, "", None), (None, "local", None), ("local", "", None), ("local", "head:1", None), ("auto", "", "auto"),
    (None, "head:1", "head:1"), ("other:2", "head:1", "other:2"),
])  # fmt: skip
def test_local_means_a_cluster_of_our_own(monkeypatch, given, variable, expected):
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert FleetOptions(address=given).cluster == expected


def test_people_read_whether_a_cluster_is_protected():
    assert "protected by a token" in str(RunningCluster("head:6379", True))
    assert "not protected" in str(RunningCluster("head:6379", False))
    assert "docs/security.md" in str(RunningCluster("head:6379", False))


def test_without_workers_of_ray_no_cluster_is_asked(monkeypatch):
    from crossfold.platform.edge.launch.preflight import check_cluster

    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    check_cluster(FleetOptions(workers=0))
    with pytest.raises(UserError, match="RAY_ADDRESS=nonsense is no address"):
        check_cluster(FleetOptions(workers=1))
