"""The benchmarks of the repository, run and collected: ratios against named rivals, and what moved between two runs.

There is one list of benchmarks, the tests in `tests/benchmarks`; the fixtures `compared` and `figure` there record.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import crossfold
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import utc_now

PROPERTY = "ratio"
"""The name under which a benchmark records a ratio among the properties of its test."""
FIGURE = "figure"
"""The same of a figure without a rival."""
FEWEST = 3
"""Turns that show a spread; a ratio of fewer has none, so that nothing is said about whether it moved."""
_ROOT = Path(__file__).resolve().parents[3]
_CLONE = "clone the repository, and run `make bench` or `crossfold bench` there"


@dataclass(frozen=True)
class Ratio:
    """How many times longer a rival takes than Crossfold, from turns that were interleaved in one run."""

    name: str
    rival: str
    ratio: float
    """Median over the turns; more than 1 where Crossfold is faster."""
    low: float
    high: float
    """Quartiles over the turns."""
    turns: int
    own: float
    """Median of what Crossfold took, in `unit`."""
    unit: str = "s"
    share: float | None = None
    """Of the physical limit, where one was measured in the same run."""
    goal: float | None = None
    """The ratio that is aimed at, where one is stated; reaching it is no condition of the benchmark."""

    def moved_from(self, before: "Ratio") -> bool:
        """Whether the quartiles of the two do not overlap: more than noise within a run explains."""
        return self.spread and before.spread and (self.low > before.high or self.high < before.low)

    @property
    def spread(self) -> bool:
        """Whether there were turns enough to show one."""
        return self.turns >= FEWEST


@dataclass(frozen=True)
class Figure:
    """What was measured without a rival."""

    name: str
    value: float
    unit: str
    why: str
    """Why there is no rival, in a sentence."""
    share: float | None = None
    """Of the physical limit, where one was measured in the same run."""


@dataclass(frozen=True)
class BenchmarkRun:
    """The ratios of one run, and where and when they were measured."""

    date: str
    machine: dict[str, Any]
    ratios: tuple[Ratio, ...]
    failed: tuple[str, ...] = ()
    """Benchmarks that did not pass."""
    figures: tuple[Figure, ...] = ()
    """What has no rival."""

    def as_json(self) -> dict[str, Any]:
        """Plain data, as `read_run` takes it."""
        return asdict(self)


def run_benchmarks(only: str | None = None, keep: Callable[[BenchmarkRun], None] = lambda run: None) -> BenchmarkRun:
    """Runs the benchmarks, or those whose names match `only` as `pytest -k` does, in this process.

    What they print goes to standard output. Raises `UserError` without a clone of the repository, without pytest, and
    where no benchmark matches.

    keep: called with what is measured so far, after each benchmark: all of them take long, and may be interrupted.
    """
    folder = _ROOT / "tests" / "benchmarks"
    if not folder.is_dir():
        raise UserError("bench needs the repository: the rivals that it measures against do not ship", _CLONE)
    if importlib.util.find_spec("pytest") is None:
        raise UserError("bench needs pytest, which is not installed", "install Crossfold with `[dev]`, as `make` does")
    import pytest

    collected = _Collector(keep)
    selection = [] if only is None else ["-k", only]
    options = ["-q", "-s", "-p", "no:cacheprovider", "-rfEs", "--durations=10", "--benchmarks"]
    code = pytest.main([*options, str(folder), *selection], plugins=[collected])
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UserError(f"no benchmark matches {only!r}", f"--only takes a part of a name, as of a file in {folder}")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise UserError(f"pytest ended with {code!r}", "what it printed says why")
    return collected.run


def read_run(path: Path) -> BenchmarkRun:
    """A run that `crossfold bench --json` wrote, of this version or another. Raises `UserError` for any other file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        ratios = tuple(Ratio(**_known(Ratio, each)) for each in found["ratios"])
        # The first files had none.
        figures = tuple(Figure(**_known(Figure, each)) for each in found.get("figures", ()))
        return BenchmarkRun(str(found["date"]), dict(found["machine"]), ratios, tuple(found["failed"]), figures)
    except (OSError, ValueError, TypeError, KeyError) as error:
        problem = f"{path} is no result of `crossfold bench`" if path.exists() else f"{path} does not exist"
        raise UserError(problem, "write one with `crossfold bench --json FILE`") from error


def _known(kind: type[Ratio | Figure], entry: dict[str, Any]) -> dict[str, Any]:
    """What this version knows of an entry: the first files say `seconds` for `own`, and later ones may say more."""
    named = {"own": entry["seconds"]} | entry if "seconds" in entry else entry
    return {each.name: named[each.name] for each in fields(kind) if each.name in named}


def comparison_rows(before: BenchmarkRun, after: BenchmarkRun) -> list[dict[str, Any]]:
    """One row for each ratio of either run; `moved` says whether it changed by more than the noise within a run."""
    old, new = ({(each.name, each.rival): each for each in run.ratios} for run in (before, after))
    rows: list[dict[str, Any]] = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        change = None if a is None or b is None else b.ratio / a.ratio - 1
        moved = "" if a is None or b is None else _moved(a, b)
        rows.append({"name": key[0], "rival": key[1], "before": a, "after": b, "change": change, "moved": moved})
    return rows


def figure_rows(before: BenchmarkRun, after: BenchmarkRun) -> list[dict[str, Any]]:
    """One row for each figure of either run, with the share by which it changed."""
    old, new = ({each.name: each for each in run.figures} for run in (before, after))
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        change = None if a is None or b is None or not a.value else b.value / a.value - 1
        rows.append({"name": name, "before": a, "after": b, "change": change})
    return rows


def _moved(before: Ratio, after: Ratio) -> str:
    if not (before.spread and after.spread):
        return "too few turns"
    return ("faster" if after.ratio > before.ratio else "slower") * after.moved_from(before)


def machine_facts() -> dict[str, Any]:
    """What the figures of a run depend on: processor, cores, load, versions."""
    # That of the running code: what is installed of a checkout keeps the version it had when it was installed.
    versions = {"crossfold": crossfold.__version__}
    for name in ("torch", "ray", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


class _Collector:
    """A plug-in of pytest that keeps what tests record."""

    def __init__(self, keep: Callable[[BenchmarkRun], None]) -> None:
        self.run = BenchmarkRun(utc_now(), machine_facts(), ())
        self._keep = keep

    def pytest_runtest_logreport(self, report: Any) -> None:
        """After each phase of a test."""
        found = report.user_properties if report.when == "call" else ()
        self.run = replace(
            self.run,
            ratios=(*self.run.ratios, *(Ratio(**value) for name, value in found if name == PROPERTY)),
            figures=(*self.run.figures, *(Figure(**value) for name, value in found if name == FIGURE)),
            failed=(*self.run.failed, *([report.nodeid] if report.failed else ())),
        )
        if report.when == "teardown":
            self._keep(self.run)
