"""Torch process groups of Ray Train workers that listen at the address of their node and at no other.

Ray's own `TorchConfig` lets the first worker's store listen on every network interface, and it asks for no token:
whoever reached it could change what the workers send each other.
"""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
import torch.distributed as dist
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig

from crossfold.platform.edge.fleet.ray_connection import LOOPBACK

LEAVE_SECONDS = 30.0
"""How long the workers may take to end their groups."""
_held: list[Any] = []
"""The store of this process and its socket, which live as long as the process."""


@dataclass
class NodeTorchConfig(TorchConfig):
    """As `TorchConfig`, with the process group that `NodeBackend` sets up."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Sets the group up and ends it."""
        return NodeBackend


class NodeBackend(Backend):
    """Sets up the process group of a worker group; the store is in the first worker."""

    # nccl lets workers on one node reach each other's GPUs.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Returns when every worker has joined."""
        options: Any = backend_config
        world, seconds = len(worker_group), options.timeout_s
        host, port = worker_group.execute_single(0, open_store, world, seconds)
        shared = {"host": host, "port": port, "world": world, "backend": options.backend, "seconds": seconds}
        ray.get([worker_group.execute_single_async(rank, join_group, rank, **shared) for rank in range(world)])

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Ends the group in each worker."""
        ray.get(worker_group.execute_async(leave_group), timeout=LEAVE_SECONDS)


def open_store(world: int, seconds: float) -> tuple[str, int]:
    """Opens the store of a group of `world` workers in this process; returns its host and port."""
    host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.bind((host, 0))
    listening.listen()
    port: int = listening.getsockname()[1]
    timeout = timedelta(seconds=seconds)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, world, True, timeout, wait_for_workers=False, master_listen_fd=listening.fileno(), use_libuv=True
    )
    # The store closes the socket.
    listening.detach()
    _held.append(store)
    return host, port


def join_group(rank: int, *, host: str, port: int, world: int, backend: str, seconds: float) -> None:
    """Joins the group as one of its `world` workers."""
    if host in LOOPBACK:
        # Otherwise gloo and nccl listen at the address that the name of the machine stands for.
        name = next(name for name, found in psutil.net_if_addrs().items() if any(a.address == host for a in found))
        os.environ |= {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    timeout = timedelta(seconds=seconds)
    store = _held[-1] if rank == 0 else dist.TCPStore(host, port, world, False, timeout)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)


def leave_group() -> None:
    """Ends this process's part in the group."""
    if dist.is_initialized():
        dist.destroy_process_group()
    _held.clear()
