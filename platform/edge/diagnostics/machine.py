"""What Crossfold needs of a machine, looked at one by one, and what to do about each thing that is not right.

A row: `check`, `state` (`ok`; `optional`: work goes on without it; `missing`: it does not), `found`, `what to do`.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from crossfold.platform.edge.diagnostics.filesystem import workspace_rows
from crossfold.platform.edge.diagnostics.finding import GIB, Row, row
from crossfold.platform.edge.diagnostics.services import mlflow_rows, ray_rows
from crossfold.platform.edge.fleet.cluster import cores
from crossfold.platform.edge.terminal.console import format_workers

FEW_FILES, ENOUGH_FILES = 1024, 8192
"""Open files: without the first Ray's processes fail, without the second large clusters do."""
WORKER_BYTES = 1.2 * GIB
"""Memory of one worker with its libraries and a small cell."""
PARTS = (("av", "media"), ("espeakng_loader", "media"), ("transformers", "text"))


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
    said = f"{there / GIB:.1f} GiB available for {format_workers(workers)}, one a core"
    rows.append(row("memory", fitting >= workers, said, f"give --workers {fitting}", needed=False))
    return rows


def _load(name: str) -> None:
    importlib.import_module(name)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
