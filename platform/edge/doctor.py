"""What Crossfold needs of a machine, looked at one by one, and what to do about each thing that is not right.

A row: `check`, `state` (`ok`; `optional`: work goes on without it; `missing`: it does not), `found`, `what to do`.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from packaging.requirements import Requirement

from crossfold.platform.edge.fleet.cluster import OBJECT_STORE_BYTES, cores
from crossfold.platform.edge.terminal.console import spell_workers

Row = dict[str, Any]
GIB = 2**30

DISK_BYTES = 2 * GIB
"""Free space of the workspace below which a sweep is likely to stop in its middle."""
RAY_FULL = 0.95
"""Share of the disk of Ray's session folder above which Ray itself refuses to work well."""
FEW_FILES, ENOUGH_FILES = 1024, 8192
"""Open files: without the first Ray's processes fail, without the second large clusters do."""
WORKER_BYTES = 1.2 * GIB
"""Memory of one worker with its libraries and a small cell."""
SKEW_SECONDS = 5.0
"""Between this clock and that of a file server; leases of drivers last 2 minutes, their beats are 20 s apart."""
ANSWER_SECONDS = 5.0
NETWORK_FILES = ("nfs", "cifs", "smb", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "9p", "lustre", "gpfs")
PARTS = (("av", "media"), ("espeakng_loader", "media"), ("transformers", "text"))


def row(check: str, good: bool, found: str, remedy: str = "", *, needed: bool = True) -> Row:
    """One finding; `needed`: whether work stops without it."""
    state = "ok" if good else "missing" if needed else "optional"
    return {"check": check, "state": state, "found": found, "what to do": "" if good else remedy}


def machine_rows(root: Path) -> list[Row]:
    """All findings about this machine for work in the workspace `root`, which need not exist yet."""
    found: list[Row] = []
    for look in (
        version_rows,
        network_rows,
        gpu_rows,
        ray_rows,
        lambda: mlflow_rows(root),
        lambda: workspace_rows(root),
        limit_rows,
    ):
        found += look()
    return found


def version_rows() -> list[Row]:
    """Versions of what is installed, against what this release of Crossfold declares."""
    wrong: list[str] = []
    for text in importlib.metadata.requires("crossfold") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is not installed")
            continue
        if not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} {version} is not {needed.specifier}")
    shown = ", ".join(f"{name} {_version(name)}" for name in ("crossfold", "torch", "ray", "optuna", "mlflow"))
    rows = [
        row(
            "versions",
            not wrong,
            "; ".join(wrong) or shown,
            "pip install --upgrade crossfold, or install requirements.lock of its repository",
        )
    ]
    for name, extra in PARTS:
        there = importlib.util.find_spec(name) is not None
        remedy = f"pip install 'crossfold[{extra}]'"
        rows.append(row(name, there, "installed" if there else "not installed", remedy, needed=extra == "media"))
    return rows


def network_rows() -> list[Row]:
    """torch, torchvision and torchaudio as a set: compiled code of one breaks with another torch than it was built
    for."""
    names = ("torch", "torchvision", "torchaudio")
    versions = {name: _version(name) for name in names}
    broken = []
    for name in names:
        try:
            _load(name)
        except (ImportError, OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            broken.append(f"{name} {versions[name]} does not load: {reason}")
    builds = {version.partition("+")[2] for version in versions.values() if "+" in version}
    if not broken and len(builds) > 1:
        broken.append(f"built for different devices: {', '.join(f'{n} {v}' for n, v in versions.items())}")
    remedy = "install the three together, from one index, as https://pytorch.org/get-started tells"
    return [row("torch set", not broken, "; ".join(broken) or ", ".join(versions.values()), remedy)]


def gpu_rows() -> list[Row]:
    """Each GPU: whether torch can use it. Without any, cells run on CPU cores."""
    import torch

    built, driver = torch.version.cuda, _driver()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if built is None:
        said = f"driver {driver}, but torch {torch.__version__} is built without CUDA" if driver else "none"
        remedy = "install torch with CUDA, as https://pytorch.org/get-started tells" if driver else _ON_CPU
        return [row("GPU", False, said, remedy, needed=driver is not None)]
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        count = torch.cuda.device_count()
    except RuntimeError as error:
        if driver is None:
            return [row("GPU", False, "no NVIDIA driver", _ON_CPU, needed=False)]
        reason = str(error).splitlines()[0]
        if hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
            said = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU"
            return [row("GPU", False, said, "unset it, or go on with CPU cores", needed=False)]
        said = f"driver {driver} and torch's CUDA {built} do not go together: {reason}"
        return [row("GPU", False, said, f"update the driver, or install torch built for a CUDA before {built}")]
    if count == 0:
        return [row("GPU", False, "no CUDA device", _ON_CPU, needed=False)]
    return [_gpu_row(index, built, driver) for index in range(count)]


_ON_CPU = "nothing, if CPU cores are enough: cells run on them"


def _gpu_row(index: int, built: str, driver: str | None) -> Row:
    import torch

    name = f"GPU {index}"
    try:
        facts = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        float((torch.ones(2, 2, device=f"cuda:{index}") @ torch.ones(2, 2, device=f"cuda:{index}")).sum())
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        capability = _capability(index)
        if capability and not _has_kernels(capability, torch.cuda.get_arch_list()):
            said = (
                f"compute capability {capability[0]}.{capability[1]}: torch {torch.__version__} has no kernels for it"
            )
            return row(name, False, said, "install a torch built for it (older GPUs: an older CUDA build)")
        return row(name, False, f"cannot compute: {reason}", "see nvidia-smi: is it in use, or in a failed state?")
    said = (
        f"{facts.name}, compute capability {facts.major}.{facts.minor}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        f", driver {driver or 'unknown'}, CUDA {built}"
    )
    if free < 0.5 * total:
        return row(
            name, False, said, "nvidia-smi shows who uses it; cells that do not fit are tried again", needed=False
        )
    if facts.major < 8:
        return row(name, False, said, "nothing, unless for `precision: bf16`, which is slow before 8.0", needed=False)
    return row(name, True, said)


def _capability(index: int) -> tuple[int, int] | None:
    import torch

    try:
        return torch.cuda.get_device_capability(index)
    except RuntimeError:
        return None


def _has_kernels(capability: tuple[int, int], built: list[str]) -> bool:
    """Machine code runs on later minor versions of its major one, intermediate code (`compute_`) on anything later."""
    for name in built:
        kind, _, digits = name.partition("_")
        digits = digits.rstrip("af")
        if not digits.isdigit():
            continue
        major, minor = int(digits[:-1]), int(digits[-1])
        if (kind == "sm" and major == capability[0] and minor <= capability[1]) or (
            kind == "compute" and (major, minor) <= capability
        ):
            return True
    return False


def _driver() -> str | None:
    """Version of the NVIDIA driver that is loaded here; None if there is none."""
    with contextlib.suppress(OSError):
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
        return next((word for word in first.split() if word[:1].isdigit() and "." in word), "unknown")
    return "unknown" if shutil.which("nvidia-smi") else None


def ray_rows() -> list[Row]:
    """Whether Ray can start here, or the cluster of RAY_ADDRESS can be reached."""
    rows: list[Row] = []
    address = os.environ.get("RAY_ADDRESS", "")
    if address and address not in ("auto", "local"):
        host, port = _host_of(address, 6379)
        heard = _reachable(host, port)
        rows.append(row("Ray cluster", heard, f"RAY_ADDRESS={address}", "start it, or unset RAY_ADDRESS"))
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        said = f"{free / 2**20:.0f} MiB free in /dev/shm, {OBJECT_STORE_BYTES / 2**20:.0f} MiB for Ray's messages"
        remedy = "Ray takes /tmp instead, which is slower; in a container: docker run --shm-size=1g"
        rows.append(row("shared memory", free >= OBJECT_STORE_BYTES, said, remedy, needed=False))
    session = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    if session.is_dir():
        disk = shutil.disk_usage(session)
        used = 1 - disk.free / disk.total
        said = f"{session}: {used:.0%} used, {disk.free / GIB:.0f} GiB free"
        remedy = f"Ray warns and stalls above {RAY_FULL:.0%}: remove old {session}/ray/session_*, or set RAY_TMPDIR"
        rows.append(row("Ray's sessions", used < RAY_FULL, said, remedy))
    return rows


def mlflow_rows(root: Path) -> list[Row]:
    """Whether the tracking server answers; without it cells train all the same, and tell it later."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return [row("MLflow", True, f"{root / 'mlflow.db'}")]
    parts = urllib.parse.urlsplit(uri)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    remedy = (
        "start it, or unset MLFLOW_TRACKING_URI; until then what it misses waits, and `crossfold mlflow sync` tells it"
    )
    if parts.scheme not in ("http", "https"):
        return [row("MLflow", bool(parts.scheme), f"MLFLOW_TRACKING_URI={shown}", remedy, needed=False)]
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS) as answer:
            good, said = answer.status == 200, f"{shown} answers"
    except (urllib.error.URLError, OSError, ValueError) as error:
        good, said = False, f"{shown} does not answer: {getattr(error, 'reason', error)}"
    return [row("MLflow", good, said, remedy, needed=False)]


def workspace_rows(root: Path) -> list[Row]:
    """Space, and whether the file system keeps the promises that a workspace stands on: renames, locks, one clock."""
    where = next(path for path in (root, *root.parents) if path.exists())
    if not where.is_dir() or not os.access(where, os.W_OK):
        return [row("workspace", False, f"{root}", "choose a --workspace that is a folder you may write")]
    free = shutil.disk_usage(where).free
    enough = free >= DISK_BYTES
    rows = [row("disk", enough, f"{free / GIB:.1f} GiB free for {root}", "free some, or choose another --workspace")]
    try:
        with _beside(where) as folder:
            rows += [_renames(folder), _locks(folder), _clock(folder)]
    except OSError as error:
        return [
            *rows,
            row("workspace", False, f"{root}: {error}", "choose a --workspace that is a folder you may write"),
        ]
    kind = _file_system(where)
    if kind.startswith(NETWORK_FILES) and not os.environ.get("MLFLOW_TRACKING_URI"):
        remedy = "sqlite is not safe on it from several machines: start `mlflow server`, and set MLFLOW_TRACKING_URI"
        rows.append(row("file system", False, f"{root} is on {kind}", remedy, needed=False))
    return rows


@contextlib.contextmanager
def _beside(where: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".crossfold-doctor-", dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _renames(folder: Path) -> Row:
    """A finished cell appears by the rename of a folder, and never replaces another."""
    remedy = "choose a --workspace on a local disk, NFS, Lustre or the like"
    try:
        for name in ("one", "two"):
            (folder / name).mkdir()
            (folder / name / "file").write_text(name)
        (folder / "one").rename(folder / "cell")
        try:
            (folder / "two").rename(folder / "cell")
            return row("renames", False, "a folder replaced another one that is not empty", remedy)
        except OSError:
            pass
        (folder / "new").write_text("new")
        (folder / "new").replace(folder / "cell" / "file")
        whole = (folder / "cell" / "file").read_text() == "new"
    except OSError as error:
        return row("renames", False, f"folders cannot be renamed there: {error}", remedy)
    return row("renames", whole, "folders and files are renamed whole", remedy)


def _locks(folder: Path) -> Row:
    """One driver a workspace: a lock that is held must not be had twice."""
    remedy = "mount it with locks (NFS: without `nolock`), or use one machine at a time; leases guard across machines"
    one, other = (FileLock(folder / "lock", is_singleton=False) for _ in range(2))
    try:
        with one.acquire(timeout=0):
            try:
                other.acquire(timeout=0)
            except Timeout:
                return row("locks", True, "a lock that is held is refused to others")
            other.release()
    except (OSError, NotImplementedError, Timeout) as error:
        return row("locks", False, f"files cannot be locked there: {error}", remedy)
    return row("locks", False, "a lock was given twice", remedy)


def _clock(folder: Path) -> Row:
    """The file server's clock against ours: drivers on several machines believe each other's leases."""
    probe = folder / "clock"
    before = time.time()
    probe.write_text("now")
    written, after = probe.stat().st_mtime, time.time()
    skew = max(before - written, written - after, 0.0)
    said = f"{skew:.1f} s between this clock and that of the workspace's files"
    return row("clock", skew < SKEW_SECONDS, said, "set both by NTP: leases of drivers depend on it", needed=False)


def limit_rows() -> list[Row]:
    """Open files, and memory for as many workers as there are cores."""
    rows: list[Row] = []
    with contextlib.suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = hard if soft == resource.RLIM_INFINITY else soft
        good = soft == resource.RLIM_INFINITY or files >= ENOUGH_FILES
        said, remedy = f"{files} at a time (hard limit {hard})", f"ulimit -n {max(ENOUGH_FILES, 65536)}"
        rows.append(row("open files", good, said, remedy, needed=files < FEW_FILES))
    there, workers = psutil.virtual_memory().available, cores()
    fitting = max(int(there / WORKER_BYTES), 1)
    said = f"{there / GIB:.1f} GiB available for {spell_workers(workers)}, one a core"
    rows.append(row("memory", fitting >= workers, said, f"give --workers {fitting}", needed=False))
    return rows


def _load(name: str) -> None:
    importlib.import_module(name)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _host_of(address: str, port: int) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    return parts.hostname or "", parts.port or port


def _reachable(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False


def _file_system(where: Path, mounts: Callable[[], str] = lambda: Path("/proc/mounts").read_text()) -> str:
    """The kind of file system that holds a folder; empty where the system does not say."""
    best, kind = "", ""
    with contextlib.suppress(OSError):
        for line in mounts().splitlines():
            _, point, here, *_ = line.split()
            if where.resolve().is_relative_to(point) and len(point) >= len(best):
                best, kind = point, here
    return kind
