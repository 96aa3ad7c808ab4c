"""The rules that a system, backbone or corpus of a plug-in must keep; `crossfold check --plugin FILE` prints them.

Each check runs the real thing on small random input. Whatever a plug-in raises is a finding, never a traceback.
"""

import contextlib
import copy
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from crossfold.datasets.corpora.partitions import check_leakage, make_folds
from crossfold.datasets.corpora.registry import CORPORA, Corpus
from crossfold.datasets.store.input_kinds import input_shape
from crossfold.fusion_models.backbones.catalogue import BACKBONES, Backbone
from crossfold.fusion_models.catalogue import systems
from crossfold.fusion_models.system import Features, Fusion, System
from crossfold.platform.core.cell import MODALITIES
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.registry import load_plugin

WIDTHS = {"audio": 4, "visual": 5, "text": 3}
FRAMES = 6
REAL = (6, 4, 1)
"""Real frames of the three windows; the rest is padding."""


@dataclass(frozen=True)
class Check:
    """One rule, and whether one registered thing keeps it; `problem` is empty if it does."""

    what: str
    rule: str
    problem: str = ""
    remedy: str = ""


class _Broken(Exception):
    """A rule is broken: the problem, and what to do."""


def check_plugin(path: Path, root: Path | None = None) -> list[Check]:
    """Loads a file and checks all that it registers; `root`: a data folder for its corpora.

    Raises `UserError` where the file cannot be loaded or registers nothing.
    """
    before = _registered()
    load_plugin(path)
    new = [sorted(names - old) for names, old in zip(_registered(), before, strict=True)]
    if not any(new):
        raise UserError(
            f"plugin {path} registers no system, backbone or corpus",
            "call `register(System(...))` of crossfold.fusion_models.catalogue; CONTRIBUTING.md shows one",
        )
    found = [check for name in new[0] for check in check_system(systems.get(name))]
    found += [check for name in new[1] for check in check_backbone(BACKBONES.get(name))]
    return found + [check for name in new[2] for check in check_corpus(name, CORPORA.get(name), root)]


def _registered() -> list[set[str]]:
    return [set(systems), set(BACKBONES), set(CORPORA)]


def check_system(system: System) -> list[Check]:
    """Shapes, masks, independence of windows, determinism, gradients and documentation, with default parameters."""
    what = f"system {system.name}"

    def build(seed: int = 0) -> Fusion:
        with _seeded(seed):
            return system.build(system.params(), WIDTHS, FRAMES).eval()

    def documented() -> None:
        _filled(system, ("title", "source", "equations", "bibtex"), "say what it computes and where that comes from")
        _require(system.bibtex.lstrip().startswith("@"), "bibtex begins with no @", "give one BibTeX entry")

    def parameters() -> None:
        kind = system.params
        _require(kind.parse(kind().model_dump(mode="json"), what) == kind(), "its parameters change in JSON", _PLAIN)
        unknown = sorted(set(system.space) - set(kind.model_fields))
        _require(not unknown, f"space names {unknown}, no parameters", "name fields of `params`")
        _require(set(system.modalities) <= set(MODALITIES), f"modalities {system.modalities}", f"of {MODALITIES}")

    def shapes() -> None:
        module, given = build(), _features()
        z = module(given)
        expected = (len(REAL), FRAMES, module.width)
        _require(
            z.shape == expected,
            f"Z is {tuple(z.shape)}, not {expected}",
            "give one row per frame, and `width` as declared",
        )
        _require(bool(torch.isfinite(z).all()), "Z is not finite", "look for a division by zero or an empty softmax")
        _require(module(_features(REAL[:1])).shape[0] == 1, "a batch of one loses its rank", "do not squeeze")

    def masks() -> None:
        module, given = build(), _features()
        expected, real = module(given), given.mask_BL
        # Of both signs: a maximum over frames ignores one of them.
        for poison in (1e6, -1e6):
            x = {m: torch.where(real.unsqueeze(-1), v, torch.tensor(poison)) for m, v in given.x.items()}
            same = torch.equal(module(Features.masked(x, real))[real], expected[real])
            _require(same, "padded frames change real ones", "use `mask_BL` wherever frames meet")
        _require(not expected[~real].any(), "Z is not zero on padded frames", "multiply the result by the mask")

    def independent() -> None:
        module, given = build(), _features()
        expected, order = module(given), torch.tensor([2, 0, 1])
        moved = module(Features({m: v[order] for m, v in given.x.items()}, given.mask_BL[order]))
        alone = module(Features({m: v[1:2] for m, v in given.x.items()}, given.mask_BL[1:2]))
        same = _close(moved, expected[order]) and _close(alone, expected[1:2])
        _require(same, "a window's result depends on the others of its batch", "in eval, let no operation mix windows")

    def deterministic() -> None:
        given = _features()
        kept = {m: v.clone() for m, v in given.x.items()}
        first, other = build(3), build(4)
        expected = first(given)
        _require(torch.equal(build(3)(given), expected), "one seed gives two results", "draw from torch's generator")
        _require(torch.equal(first(given), expected), "a second call gives another result", "keep no state in eval")
        other.load_state_dict(first.state_dict())
        _require(torch.equal(other(given), expected), "its state_dict is not all of it", "register parameters, buffers")
        _require(torch.equal(copy.deepcopy(first)(given), expected), "a copy differs", "keep no state outside")
        same = all(torch.equal(given.x[m], kept[m]) for m in kept)
        _require(same, "forward writes into its input", "leave out in-place operations")

    def learns() -> None:
        module, given = build(), _features()
        module.train()
        x = {m: v.clone().requires_grad_() for m, v in given.x.items()}
        z = module(Features(x, given.mask_BL))
        # A plain sum has no gradient behind a softmax or a normalisation.
        (z * torch.randn(z.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        idle = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()]
        _require(not idle, f"no gradient reaches {', '.join(idle[:3])}", "wire it up, or take it out")
        cut = [m for m in module.modalities if (grad := x[m].grad) is None or not grad.any()]
        _require(not cut, f"{', '.join(cut)} never reaches Z", "read it, or leave it out of `modalities`")

    def pairs() -> None:
        module, given = build(), _features()
        before, *_, after = module.attend(Features({m: given.x[m] for m in module.modalities}, given.mask_BL), None)
        kept = {m: given.x[m].shape for m in module.modalities}
        same = {m: v.shape for m, v in before.items()} == kept == {m: v.shape for m, v in after.items()}
        _require(
            same,
            "+dca has no pairs to choose from",
            "return the input's modalities and widths, or leave `yields_pairs` out",
        )

    rules = {"documented": documented, "parameters": parameters, "shapes": shapes, "masks": masks}
    rules |= {"pairs": pairs} if system.yields_pairs else {}
    rules |= {"batch independence": independent, "determinism": deterministic, "every weight learns": learns}
    return [_run(what, rule, test) for rule, test in rules.items()]


def check_backbone(backbone: Backbone) -> list[Check]:
    """Shapes from stored input to features, independence of frames, determinism, and groups of layers."""
    what = f"backbone {backbone.name}"

    def build() -> nn.Module:
        with _seeded(0):
            return backbone.build().eval()

    def raw() -> Tensor:
        return torch.randint(0, 256, (1, 3, *backbone.raw_shape), generator=torch.Generator().manual_seed(0)).byte()

    def documented() -> None:
        _filled(backbone, ("title", "source"), "say what it is and where it comes from")
        _require(backbone.modality in ("audio", "visual"), f"modality {backbone.modality!r}", "audio or visual")

    def shapes() -> None:
        stored = input_shape(backbone.input)
        _require(stored == backbone.raw_shape, f"{backbone.input} is {stored}, not {backbone.raw_shape}", "correct it")
        for training in (False, True):
            ready = backbone.prepare(raw(), training=training, generator=torch.Generator().manual_seed(0))
            shape = (1, 3, *backbone.frame_shape)
            _require(ready.shape == shape, f"prepare gives {tuple(ready.shape)}, not {shape}", "correct `frame_shape`")
            _require(ready.dtype == torch.float32, f"prepare gives {ready.dtype}", "give float32")
        features = backbone.encode(build(), backbone.prepare(raw(), training=False))
        shape = (1, 3, backbone.width)
        _require(features.shape == shape, f"features are {tuple(features.shape)}, not {shape}", "correct `width`")
        _require(bool(torch.isfinite(features).all()), "features are not finite", "normalise in `preparation`")

    def independent() -> None:
        module, ready = build(), backbone.prepare(raw(), training=False)
        whole, alone = backbone.encode(module, ready), backbone.encode(module, ready[:, 1:2])
        same = _close(whole[:, 1:2], alone)
        _require(same, "a frame's features depend on other frames", "in eval, let no layer mix rows")
        _require(torch.equal(backbone.encode(build(), ready), whole), "one seed gives two results", "keep no state")

    def grouped() -> None:
        prefixes = [*(prefix for group in backbone.groups for prefix in group), *backbone.stays]
        for name, _ in build().named_parameters():
            named = sum(name.startswith(prefix) for prefix in prefixes)
            _require(named == 1, f"{name} is in {named} groups", "name each parameter once in `groups` and `stays`")

    rules = {"documented": documented, "shapes": shapes, "frame independence": independent, "groups": grouped}
    return [_run(what, rule, test) for rule, test in rules.items()]


def check_corpus(name: str, corpus: Corpus, root: Path | None) -> list[Check]:
    """Documentation and an empty folder; with `root` also clips, labels, folds and sources."""
    what = f"corpus {name}"

    def documented() -> None:
        _filled(corpus, ("description", "layout", "needs"), "`crossfold list corpora` shows them")

    def empty_folder() -> None:
        # Users point at a wrong folder first of all.
        with tempfile.TemporaryDirectory() as folder:
            inspection = corpus.inspect(Path(folder), deep=False)
        reported = any(finding.severity == "error" for finding in inspection.findings)
        _require(
            reported and not inspection.clips, "an empty folder gives no finding", "report a `Finding` for each lack"
        )

    rules: dict[str, Callable[[], None]] = {"documented": documented, "empty folder": empty_folder}
    if root is not None:
        rules |= _data_rules(corpus, root.resolve())
    return [_run(what, rule, test) for rule, test in rules.items()]


def _data_rules(corpus: Corpus, root: Path) -> dict[str, Callable[[], None]]:
    """What must hold for a corpus with data in `root`."""

    def clips() -> None:
        found = corpus.inspect(root, deep=True)
        errors = [finding for finding in found.findings if finding.severity == "error"]
        _require(not errors, f"{len(errors)} errors, first: {errors[:1]}", "`crossfold validate` lists all")
        infos = [clip.info for clip in found.clips]
        names = {info.name for info in infos}
        _require(bool(names) and len(names) == len(infos), "no clips, or a name twice", "name each clip once")
        again = [clip.info for clip in corpus.inspect(root, deep=False).clips]
        _require(again == infos, "a second inspection finds other clips", "sort what is listed")

    def labels() -> None:
        found = corpus.inspect(root, deep=False)
        for clip in found.clips:
            given = clip.labels if hasattr(clip, "labels") else clip.read().labels
            shape = (clip.info.frames, len(found.targets))
            _require(
                given.shape == shape, f"labels of {clip.info.name} are {given.shape}, not {shape}", "one per frame"
            )
            _require(given.dtype == np.float32, f"labels of {clip.info.name} are {given.dtype}", "give float32")

    def split() -> None:
        found = corpus.inspect(root, deep=False)
        infos = [clip.info for clip in found.clips]
        for fold in found.folds or make_folds(infos):
            check_leakage(infos, fold)

    def sources() -> None:
        named = corpus.sources(root)
        missing = [path for path in named if not path.is_file()]
        _require(not missing, f"{missing[:1]} is no file", "list files that are there")
        _require(bool(named), "names no file", "list every file the store depends on")

    return {"clips": clips, "labels": labels, "folds do not leak": split, "sources": sources}


_PLAIN = "use plain fields: numbers, words, lists"


def _features(real: tuple[int, ...] = REAL) -> Features:
    generator = torch.Generator().manual_seed(0)
    x = {m: torch.randn(len(real), FRAMES, d, generator=generator) for m, d in WIDTHS.items()}
    return Features.masked(x, torch.arange(FRAMES) < torch.tensor(real)[:, None])


def _close(one: Tensor, other: Tensor) -> bool:
    # Values near zero lose as many digits as the largest one has: libraries add up in an order that batches change.
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.detach().abs().max())))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _filled(thing: object, names: tuple[str, ...], remedy: str) -> None:
    empty = [name for name in names if not getattr(thing, name).strip()]
    _require(not empty, f"{', '.join(empty)} empty", remedy)


def _require(holds: bool, problem: str, remedy: str) -> None:
    if not holds:
        raise _Broken(problem, remedy)


def _run(what: str, rule: str, test: Callable[[], None]) -> Check:
    try:
        test()
    except _Broken as broken:
        return Check(what, rule, *broken.args)
    except UserError as error:
        return Check(what, rule, error.problem, error.remedy)
    except Exception as error:  # whatever a plug-in may raise
        return Check(what, rule, f"{type(error).__name__}: {error}{_where(error)}", "correct the line")
    return Check(what, rule)


def _where(error: Exception) -> str:
    """The innermost line of the plug-in's own file."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_globals.get("__name__", "").startswith("crossfold_plugin_")]
    return f", line {lines[-1]}" if lines else ""
