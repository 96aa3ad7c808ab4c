"""The address of a Ray cluster that others run: whether a cluster answers there, and whether it asks for a token."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from crossfold.platform.core.errors import UserError

PROBE_SECONDS = 5.0
"""How long a cluster may take to answer; Ray itself tries for 15 minutes, and hears no Ctrl-C meanwhile."""
CLIENT = "ray://"
"""Begins addresses of the server for clients outside the cluster."""
HEAD_CALL, CLIENT_CALL = "/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo"
"""Calls that change nothing, of the head and of its server for clients. Ray checks the token before it reads them."""
FORMS = "give auto, head:6379 or ray://head:10001"


@dataclass(frozen=True)
class RunningCluster:
    """A cluster that answers."""

    address: str
    """As `ray.init` takes it: `host:port`, or `ray://host:port`."""
    protected: bool
    """Whether it asks for a token. Without one, everybody who reaches its ports can run code on it."""

    def __str__(self) -> str:
        """For people: where it is, and whether it is protected."""
        if self.protected:
            return f"the Ray cluster at {self.address}, which is protected by a token"
        return (
            f"the Ray cluster at {self.address}, which is not protected: whoever reaches its ports can run code on it "
            "(docs/security.md)"
        )


def check_form(address: str) -> None:
    """Raises `UserError` for what is no address of a cluster."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if address.startswith(("http:", "https:")):
        raise UserError(f"{_named(address)} is the address of a dashboard", f"{FORMS}, or use `crossfold submit`")
    if not (host and colon and port.isdecimal() and port.isascii() and len(port) < 6 and 0 < int(port) < 65536):
        raise UserError(f"{_named(address)} is no address of a Ray cluster", FORMS)


def find_cluster(address: str) -> RunningCluster:
    """The cluster at an address, or with `auto` the one that Ray finds on this machine, after it has answered.

    Raises `UserError` where none answers within `PROBE_SECONDS`, and where ours is not the token that it asks for.
    """
    check_form(address)
    named = _named(address)
    if address == "auto":
        address = _automatic(named)
        named = f"{named}, here {address}"
    refused = _ask(address, named, "")
    if refused:
        token, origin = _own_token()
        remedy = "set RAY_AUTH_TOKEN_PATH to the file that the cluster was started with"
        if not token:
            raise UserError(f"{named}: the cluster asks for a token, and there is none here", remedy)
        if _ask(address, named, token):
            raise UserError(f"{named}: the cluster does not take the token of {origin}", remedy)
    return RunningCluster(address, refused)


def _named(address: str) -> str:
    """The address with where it comes from."""
    if address == os.environ.get("RAY_ADDRESS"):
        return f"RAY_ADDRESS={address}"
    return f"--address {address}"


def _automatic(named: str) -> str:
    """What Ray takes `auto` for: RAY_ADDRESS, a head process on this machine, or the last one that was started."""
    from ray._private.services import get_ray_address_from_environment

    # It would report every cluster that it finds.
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        address = str(get_ray_address_from_environment("auto", None))
    except (ConnectionError, OSError, RuntimeError, ValueError):
        address = "None"
    if address in ("None", "auto", "local"):
        raise UserError(
            f"{named}: no Ray cluster runs on this machine",
            "leave the address out for a cluster of this launch alone, or start one with `ray start --head`",
        )
    check_form(address)
    return address


def _own_token() -> tuple[str, str]:
    """The token that Ray would send, and where it comes from; without one, two empty strings."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip(), str(path)
    except (OSError, UnicodeDecodeError):
        return "", ""


def _ask(address: str, named: str, token: str) -> bool:
    """Whether the cluster refuses a call with this token. Raises `UserError` where no cluster answers."""
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else []
    call = CLIENT_CALL if address.startswith(CLIENT) else HEAD_CALL
    with grpc.insecure_channel(address.removeprefix(CLIENT), options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(call)(b"", timeout=PROBE_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.UNAUTHENTICATED:
                return True
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED):
                raise UserError(
                    f"{named}: no Ray cluster answers there; {_reason(code.name, error.details() or '')}",
                    "start it, correct the address, or unset RAY_ADDRESS and leave --address out",
                ) from None
    return False


def _reason(code: str, details: str) -> str:
    for part, reason in (
        ("Connection refused", "nothing listens there"),
        ("resol", "the name of the host is unknown"),
        ("lookup", "the name of the host is unknown"),
    ):
        if part in details:
            return reason
    silent = f"it was silent for {PROBE_SECONDS:.0f} s"
    return silent if code == "DEADLINE_EXCEEDED" else "what listens there does not speak Ray's protocol"
