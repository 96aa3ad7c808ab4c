"""Fixtures that several rooms share, and where and in which order tests run; helpers are in tests/support.

Nothing of crossfold is imported before a fixture asks for it, so that a broken module fails its own tests only.
"""

import gc
import os
from collections import Counter
from functools import partial
from pathlib import Path

import hypothesis
import pytest

HERE = Path(__file__).parent

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
# The machine is shared: one thread each, also where a test opens a process of its own.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
# Ray's workers yield to everything else on the machine; here that is other tests, whom they never outran.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def synthetic_store(tmp_path_factory):
    """Eight clips of 90 frames of the corpus `synthetic`, as a feature store opened for reading."""
    from tests.support.factories import make_store, synthetic_clips

    return make_store(tmp_path_factory.mktemp("synthetic") / "stores", synthetic_clips())


@pytest.fixture
def new_workspace(tmp_path_factory, synthetic_store):
    """Makes empty workspaces that hold the synthetic store and nothing else."""
    from crossfold.platform.workspace.workspace import Workspace

    def make(store=synthetic_store.path):
        workspace = Workspace(tmp_path_factory.mktemp("workspace"))
        workspace.paths.stores.mkdir()
        (workspace.paths.stores / store.name).symlink_to(store)
        return workspace

    return make


@pytest.fixture
def workspace(new_workspace):
    """An empty workspace with the synthetic store."""
    return new_workspace()


@pytest.fixture(scope="session")
def tiny_cell(synthetic_store):
    """Makes cells that train in a moment, of the synthetic store; changes of the recipe by keyword, as in
    `optimizer__lr=0.1`."""
    from tests.support.factories import tiny_cell

    return partial(tiny_cell, synthetic_store)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB of its own, where this machine lets us have one."""
    from tests.support.disks import mounted

    with mounted(tmp_path / "disk", size=4 * 2**20) as place:
        yield place


@pytest.fixture
def own_registries(monkeypatch):
    """Undoes after the test what it registers: systems, backbones, corpora and weights."""
    from crossfold.datasets.corpora.registry import CORPORA
    from crossfold.fusion_models import catalogue
    from crossfold.fusion_models.backbones.catalogue import BACKBONES
    from crossfold.fusion_models.catalogue import systems
    from crossfold.platform.modeling.pretrained_catalogue import WEIGHTS

    for registry in (CORPORA, BACKBONES, systems):
        # Listing them fills the registry; what is found later would be undone too, and never looked for again.
        list(registry)
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_origins", dict(registry._origins))
    monkeypatch.setattr(catalogue, "_files", dict(catalogue._files))
    known = dict(WEIGHTS)
    yield
    WEIGHTS.clear()
    WEIGHTS.update(known)


@pytest.fixture
def in_double_precision(monkeypatch):
    """Gates at T = 0.1 amplify rounding: in float32 two processors disagree in the third digit, here in none."""
    import torch

    from tests.support.trials import compute_in_double

    compute_in_double(monkeypatch.setattr)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def crossfold(capsys):
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        from crossfold.platform.edge.cli.app import main

        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def importable(monkeypatch):
    """Lets processes of Ray import this checkout and tests.support."""
    from tests.support.paths import PYTHONPATH

    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)


@pytest.fixture(autouse=True)
def _no_test_takes_the_machine():
    """A library may make the process real-time (an encoder of AV1 does), and all that it begins later with it."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER, "this test left a real-time process behind"


RAY = ("edge/fleet", "edge/search", "edge/cli", "edge/tracking", "workspace/remote")
"""Folders of tests/platform in which tests start clusters of Ray, or servers."""
CLUSTERS = 2
"""Groups of their files: no more clusters than that run at the same time."""


def pytest_addoption(parser):
    parser.addoption("--benchmarks", action="store_true", help="run tests/benchmarks, which measure ratios")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leaves benchmarks out unless they are asked for: a busy machine must not fail a test run."""
    if not config.getoption("--benchmarks"):
        config.hook.pytest_deselected(items=[item for item in items if "benchmark" in item.keywords])
        items[:] = [item for item in items if "benchmark" not in item.keywords]
    if getattr(config.option, "loadgroup", False):
        _distribute(items)


def _distribute(items):
    """Says which tests a worker of pytest-xdist takes together, and what begins first.

    A file is one piece of work, so that what a module makes for its tests is made once. Files that start clusters begin
    first, as they mostly wait, and are dealt to a few groups, each with about as many slow tests as the others. Of the
    rest, files with many slow tests begin first, so that short ones fill the end.
    """
    slow = Counter(item.path for item in items if "slow" in item.keywords)
    files = sorted(dict.fromkeys(item.path for item in items), key=lambda path: -slow[path])
    folders = tuple(str(HERE / "platform" / folder) for folder in RAY)
    groups, dealt = {}, Counter(dict.fromkeys((f"ray-{n}" for n in range(CLUSTERS)), 0.0))
    for path in files:
        if str(path).startswith(folders):
            groups[path] = min(dealt, key=dealt.get)
            # Files without slow tests are spread too.
            dealt[groups[path]] += slow[path] + 0.1
        else:
            groups[path] = path.stem
    items.sort(key=lambda item: (groups[item.path] not in dealt, -slow[item.path]))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.path]))


def pytest_collection_finish(session):
    """All that was imported stays: the garbage collector need not look through it again, a quarter second each time."""
    gc.collect()
    gc.freeze()
