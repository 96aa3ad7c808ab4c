"""What Crossfold needs of a machine, and what to do about each thing that is missing.

A row: `check`, `state` (`ok`; `optional`: work goes on without it; `missing`: it does not), `found`, `what to do`.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import math
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
from crossfold.platform.workspace.workspace import Workspace

FEW_FILES, ENOUGH_FILES = 1024, 8192
"""Open files: with fewer than the first Ray's processes fail, with fewer than the second large clusters do."""
WORKER_BYTES = 1.2 * GIB
"""Memory of one worker with its libraries and a small cell."""
EXTRAS = {"av": "media", "espeakng_loader": "media", "transformers": "text"}
MISSING = "not installed"
ON_CPU = "nothing, if CPU cores are enough: cells run on them"
IN_USE = "see nvidia-smi: is it in use, or in a failed state?"


def machine_rows(root: Path) -> list[Row]:
    """All findings about this machine for work in the workspace `root`, which need not exist yet."""
    machine = [*version_rows(), *torch_rows(), *gpu_rows(), *ray_rows()]
    return [*machine, *mlflow_rows(root), *workspace_rows(root), *limit_rows()]


def version_rows() -> list[Row]:
    """Versions of what is installed, against what this release of Crossfold declares."""
    wrong: list[str] = []
    for needed in map(Requirement, importlib.metadata.requires("crossfold") or ()):
        # What belongs to another extra than training is listed below.
        extras = ("", "predict", "train")
        if needed.name == "crossfold" or (
            needed.marker is not None and not any(needed.marker.evaluate({"extra": extra}) for extra in extras)
        ):
            continue
        version = _version(needed.name)
        if version == MISSING:
            wrong.append(f"{needed.name} is not installed")
        elif not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} {version} is not {needed.specifier}")
    shown = ", ".join(f"{name} {_version(name)}" for name in ("crossfold", "torch", "ray", "optuna", "mlflow"))
    remedy = "pip install --upgrade crossfold, or install requirements.lock of its repository"
    rows = [row("versions", not wrong, "; ".join(wrong) or shown, remedy)]
    for name, extra in EXTRAS.items():
        there = importlib.util.find_spec(name) is not None
        remedy = f"pip install 'crossfold[{extra}]'"
        rows.append(row(name, there, "installed" if there else MISSING, remedy, needed=extra == "media"))
    return rows


def torch_rows() -> list[Row]:
    """Whether torch, torchvision and torchaudio fit together: compiled code of one fails with another torch than it
    was built for."""
    versions = {name: _version(name) for name in ("torch", "torchvision", "torchaudio")}
    broken = []
    for name, version in versions.items():
        try:
            _load(name)
        except (ImportError, OSError, RuntimeError) as error:
            broken.append(f"{name} {version} does not load: {_first_line(error)}")
    # What follows the plus names the device: cpu, cu130.
    builds = {version.partition("+")[2] for version in versions.values() if "+" in version}
    if not broken and len(builds) > 1:
        broken.append(f"built for different devices: {', '.join(f'{n} {v}' for n, v in versions.items())}")
    remedy = "install the three together, from one index, as https://pytorch.org/get-started says"
    return [row("torch set", not broken, "; ".join(broken) or ", ".join(versions.values()), remedy)]


def gpu_rows() -> list[Row]:
    """Each GPU: whether torch can use it. Without any, cells run on CPU cores."""
    import torch

    built, driver = torch.version.cuda, _driver()
    if built is None:
        if driver is None:
            return [row("GPU", False, "none", ON_CPU, needed=False)]
        found = f"driver {driver}, but torch {torch.__version__} is built without CUDA"
        return [row("GPU", False, found, "install torch with CUDA, as https://pytorch.org/get-started says")]
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        count = torch.cuda.device_count()
    except RuntimeError as error:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if driver is None:
            return [row("GPU", False, "no NVIDIA driver", ON_CPU, needed=False)]
        if hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
            found = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU"
            return [row("GPU", False, found, "unset it, or go on with CPU cores", needed=False)]
        found = f"driver {driver} and torch's CUDA {built} do not fit together: {_first_line(error)}"
        return [row("GPU", False, found, f"update the driver, or install torch built for a CUDA before {built}")]
    # A driver without a device is a container that was started without one.
    none = [row("GPU", False, "no CUDA device", ON_CPU, needed=False)]
    return [_gpu_row(index, built, driver) for index in range(count)] or none


def _gpu_row(index: int, built: str, driver: str | None) -> Row:
    import torch

    name = f"GPU {index}"
    try:
        facts = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        capability = f"compute capability {facts.major}.{facts.minor}"
    except RuntimeError as error:
        return row(name, False, f"gives no information: {_first_line(error)}", IN_USE)
    # Properties of a GPU say nothing about whether this torch has code for it; a product does.
    try:
        float((torch.ones(2, 2, device=f"cuda:{index}") @ torch.ones(2, 2, device=f"cuda:{index}")).sum())
    except RuntimeError as error:
        if "no kernel image" in str(error):
            found = f"{capability}: torch {torch.__version__} has no kernels for it"
            return row(name, False, found, "install a torch built for it (older GPUs: an older CUDA build)")
        return row(name, False, f"cannot compute: {_first_line(error)}", IN_USE)
    memory = f"{free / GIB:.0f} of {total / GIB:.0f} GiB free"
    found = f"{facts.name}, {capability}, {memory}, driver {driver or 'unknown'}, CUDA {built}"
    if free < 0.5 * total:
        remedy = "nvidia-smi shows who uses it; cells that do not fit are repeated"
    else:
        remedy = "nothing, unless for `precision: bf16`, which is slow before 8.0" if facts.major < 8 else ""
    return row(name, not remedy, found, remedy, needed=False)


def _driver() -> str | None:
    """Version of the NVIDIA driver that is loaded here; None if there is none."""
    with contextlib.suppress(OSError):
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
        return next((word for word in first.split() if word[:1].isdigit() and "." in word), "unknown")
    return "unknown" if shutil.which("nvidia-smi") else None


def limit_rows() -> list[Row]:
    """Open files, and memory for as many workers as there are cores."""
    rows: list[Row] = []
    # Windows has no such limits.
    with contextlib.suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = math.inf if soft == resource.RLIM_INFINITY else soft
        found, remedy = f"{files} at a time (hard limit {hard})", f"ulimit -n {max(ENOUGH_FILES, 65536)}"
        rows.append(row("open files", files >= ENOUGH_FILES, found, remedy, needed=files < FEW_FILES))
    available, workers = psutil.virtual_memory().available, cores()
    fitting = max(int(available / WORKER_BYTES), 1)
    found = f"{available / GIB:.1f} GiB available for {format_workers(workers)}, one per core"
    return [*rows, row("memory", fitting >= workers, found, f"give --workers {fitting}", needed=False)]


def weights_rows(space: Workspace, given: Path | None) -> list[Row]:
    """Each set of pretrained weights, in the folder `given` or that of the workspace."""
    from crossfold.platform.modeling.pretrained_catalogue import WEIGHTS
    from crossfold.platform.modeling.pretrained_files import weights_folder, weights_state

    rows, folder = [], weights_folder(given, space)
    for entry in WEIGHTS.values():
        state, found = weights_state(entry, folder)
        remedy = f"put {entry.place} there, from {entry.page}"
        finding = row(f"weights {entry.name}", state == "present", found, remedy, needed=False)
        rows.append(finding | ({"state": "damaged"} if state == "damaged" else {}))
    return rows


def _load(name: str) -> None:
    importlib.import_module(name)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
