"""Scores of systems on corpora with a dose, next to the best that is possible on the same clips."""

import math
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pandas as pd

from crossfold.datasets.corpora.embedded.ceilings import Observer
from crossfold.datasets.corpora.embedded.dose import Dose, dose_of
from crossfold.platform.core.metrics import Moments, ccc_of
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.doses.truth import Squares, Truth, find_truth
from crossfold.reports.results.comparable import gain_over, setting_variants
from crossfold.reports.results.gate_scores import gate_rows
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import DCA, GATED, UNIMODAL
from crossfold.reports.stats.intervals import MIN_SEEDS, Gain, Interval, mean_of, paired_gain, spread_of, t_quantile
from crossfold.reports.stats.runs import Run, moments_of
from crossfold.reports.stats.shares import Share, share_of_way, slope_of_gains

AXES = ("conflict", "corrupted", "missing", "complementary", "shared", "severity", "cue", "clips", "frames")
"""The parameters of a dose against which gains are shown."""
Groups = list[list[Run]]


@dataclass(frozen=True)
class GateScore:
    """How well gates detect damaged frames of their own modality: means over modalities, folds, seeds, targets."""

    auroc: float
    interval: Interval | None
    """Of the AUROC: 95 % over seeds, by t; None with fewer than three."""
    by_modality: Mapping[str, float]
    """Modality -> AUROC; 1 and 0 both separate damaged frames, with more and with less weight."""
    ece: float
    """Expected calibration error (`evaluation/gate_calibration.py`)."""


@dataclass(frozen=True)
class SystemScore:
    """One system at one dose."""

    variant: str
    system: str
    name: str
    runs: Groups
    """One group for each target."""
    ccc: float
    share: Share | None
    """Of the way from the best fixed weights to the ideal observer; None where there is no way to go."""
    base: str
    """The system without the gate; empty where it did not run, or there is none."""
    gain: Gain | None
    """Over `base`."""
    simpler: str
    """Name of the system without what is added: the base, else concatenation, else the best modality; may be empty."""
    over_simpler: Gain | None
    """Over that system, judged with all pairs of systems of the setting, as the leaderboard judges."""
    gate: GateScore | None
    errors: Mapping[str, float]
    """Kind of episode -> mean squared error in units of the mean squared label."""
    places: Mapping[str, Gain]
    """Kind of episode -> by how much that error is smaller than the one of `base`."""


@dataclass(frozen=True)
class DosePoint:
    """All that finished at one dose, in one setting."""

    setting: Setting
    dose: Dose
    ceilings: Mapping[Observer, float]
    """Mean CCC over targets; empty where they are not known."""
    ceiling_origin: str
    """`exact`, `estimated`, or why there is none."""
    ceiling_errors: Mapping[Observer, Mapping[str, float]]
    systems: tuple[SystemScore, ...]

    @cached_property
    def by_system(self) -> Mapping[str, SystemScore]:
        """The first variant of each system."""
        return {score.system: score for score in reversed(self.systems)}


@dataclass(frozen=True)
class Axis:
    """Points that differ in one parameter of the dose only, in its order."""

    parameter: str
    points: tuple[DosePoint, ...]

    @property
    def values(self) -> list[float]:
        """The parameter at each point."""
        return [float(getattr(point.dose, self.parameter)) for point in self.points]

    @property
    def scale(self) -> list[float]:
        """What the slope is taken against: the parameter, or how often the number of clips doubles."""
        return [math.log2(value) for value in self.values] if self.parameter in ("clips", "frames") else self.values

    @property
    def fixed(self) -> str:
        """What the doses of all points have in common, as `conflict 0.4, clips 64`."""
        given = self.points[0].dose.model_dump(exclude_defaults=True, exclude={self.parameter, "seed"})
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in given.items()
        )

    def slopes(self) -> Iterator[tuple[SystemScore, Gain]]:
        """Each gated system of the last point with the slope of its gain over its base."""
        for score in self.points[-1].systems:
            pairs = [
                (point.by_system[score.system].runs, point.by_system[score.base].runs)
                for point in self.points
                if score.base and score.system in point.by_system and score.base in point.by_system
            ]
            if len(pairs) == len(self.points) and (slope := slope_of_gains(self.scale, pairs)) is not None:
                yield score, slope


def dose_points(results: Results, workspace: Workspace) -> list[DosePoint]:
    """Every setting of a corpus with a dose in which a cell has finished; its store is made if need be."""
    found = []
    for setting in results.settings.values():
        dose = dose_of(setting.corpus)
        if dose is not None and not results.rows(setting, status="done").empty:
            found.append(_point(results, setting, dose, workspace))
    return sorted(found, key=lambda point: list(_given(point.dose).items()))


def _given(dose: Dose) -> Mapping[str, float]:
    """What differs from the defaults: no dose comes first, then the doses of each parameter, as numbers."""
    given = dose.model_dump(exclude_defaults=True, exclude={"seed", "truth"})
    # Clips last: a learning curve belongs to its dose.
    return {name: float(given[name]) for name in sorted(given, key=lambda name: name == "clips")}


def dose_axes(points: Sequence[DosePoint]) -> list[Axis]:
    """The parameters that vary alone among the points, each with its points."""
    found = []
    for parameter in AXES:
        alike: dict[tuple[str, str], list[DosePoint]] = defaultdict(list)
        for point in (point for point in points if parameter in type(point.dose).model_fields):
            setting = f"{point.setting.recipe_hash} {point.setting.selection} {point.setting.protocol}"
            others = point.dose.model_dump_json(exclude={parameter})
            alike[f"{type(point.dose).__name__} {others}", setting].append(point)
        for group in alike.values():
            ordered = sorted(group, key=lambda point: float(getattr(point.dose, parameter)))
            if len({getattr(point.dose, parameter) for point in ordered}) == len(ordered) > 1:
                found.append(Axis(parameter, tuple(ordered)))
    return found


def _point(results: Results, setting: Setting, dose: Dose, workspace: Workspace) -> DosePoint:
    done = results.rows(setting, status="done")
    truth, origin = find_truth(workspace, setting, dose, sorted(int(fold) for fold in done["fold"].unique()))
    targets = sorted(map(str, results.rows(setting)["target"].unique()), reverse=True)  # valence, arousal
    of_observers = truth.said if truth else {}
    videos = {observer: [truth.videos(observer, t) for t in targets] for observer in of_observers} if truth else {}
    means = {observer: float(np.mean([_pooled(of) for of in each])) for observer, each in videos.items()}
    gates = gate_rows(results, setting)
    variants = setting_variants(results, setting)
    runs = {variant: [runs_of(results, setting, variant, target) for target in targets] for variant in variants}
    first: dict[str, str] = {}
    for variant, system in variants.items():
        first.setdefault(system, variant)
    squares = {v: _system_errors(results, done[done["variant"] == v], truth) if truth else {} for v in variants}
    best_modality = _best_modality(first, runs)
    scores = []
    for variant, system in variants.items():
        groups = runs[variant]
        if not all(groups):
            continue
        base = next((name for name in _bases(system) if name in first and all(runs[first[name]])), "")
        simpler = _simpler(system, base, best_modality, [name for name in first if all(runs[first[name]])])
        known = means and means["ideal"] - means["fixed"] > LEAST_WAY
        scores.append(
            SystemScore(
                variant=variant,
                system=system,
                name=results.variants[variant],
                runs=groups,
                ccc=float(np.mean([[run.ccc for run in group] for group in groups])),
                share=share_of_way(groups, *(_alike(groups, videos[end]) for end in _ENDS)) if known else None,
                base=base,
                gain=paired_gain(groups, runs[first[base]]) if base else None,
                simpler=results.variants[first[simpler]] if simpler else "",
                over_simpler=gain_over(results, setting, groups, runs[first[simpler]]) if simpler else None,
                gate=_gate(gates, variant),
                errors=_mean_errors(squares[variant].values()),
                places=_changes(squares[variant], squares[first[base]]) if base else {},
            )
        )
    columns = [truth.targets.index(target) for target in targets] if truth else []
    errors = {o: _mean_errors([truth.errors(of, columns)]) for o, of in of_observers.items()} if truth else {}
    return DosePoint(setting, dose, means, origin, errors, tuple(scores))


def _alike(groups: Groups, videos: Sequence[Mapping[str, Sequence[float]]]) -> Groups:
    """The runs of an observer that pair with those of a system: it says the same whatever the seed."""
    return [
        [Run(run.fold, run.seed, _pooled(of), *moments_of(of)) for run in group]
        for group, of in zip(groups, videos, strict=True)
    ]


_ENDS: tuple[Observer, Observer] = ("fixed", "ideal")
CONCAT = "concat"
LEAST_WAY = 0.02
"""The shortest way from the best fixed weights to the ideal observer, in CCC, of which a share is shown."""


def _bases(system: str) -> tuple[str, ...]:
    """The systems that one is without its gate, the nearest last: a gain of HGRJCA is over RJCA, as one of GRJCA is."""
    return (system.removesuffix(DCA),) if system.endswith(DCA) else tuple(reversed(GATED.get(system, ())))


def _best_modality(first: Mapping[str, str], runs: Mapping[str, Groups]) -> str:
    """The unimodal system with the highest CCC; empty where none has finished."""
    means = {
        system: np.mean([np.mean([run.ccc for run in group]) for group in runs[first[system]]])
        for system in UNIMODAL.values()
        if system in first and all(runs[first[system]])
    }
    return max(means, key=lambda system: means[system], default="")


def _simpler(system: str, base: str, best_modality: str, finished: Iterable[str]) -> str:
    """The system whose verdict says what the additions of a system are worth; empty where it did not run."""
    if system in UNIMODAL.values():
        return ""
    return base or (CONCAT if system != CONCAT and CONCAT in finished else best_modality)


def _pooled(videos: Mapping[str, Sequence[float]]) -> float:
    """CCC over all frames of all clips."""
    return float(ccc_of(reduce(operator.add, (Moments(*of) for of in videos.values()))))


def _gate(gates: pd.DataFrame, variant: str) -> GateScore | None:
    """The mean over gates and modalities of how well a gate detects what the corpus planted in its own modality."""
    # A gate of one modality may well do the opposite while the other one is damaged.
    own = gates["damage"].str.split(":").str[-1] == gates["modality"]
    rows = gates[(gates["variant"] == variant) & (gates["truth"] == "spans") & own].dropna(subset=["auroc"])
    if rows.empty:
        return None
    by_seed = rows.groupby("seed")["auroc"].mean()
    mean, interval = float(by_seed.mean()), None
    if len(by_seed) >= MIN_SEEDS:
        half = t_quantile(len(by_seed) - 1) * float(by_seed.std()) / math.sqrt(len(by_seed))
        interval = Interval(max(mean - half, 0.0), min(mean + half, 1.0))
    by_modality = {str(name): float(value) for name, value in rows.groupby("modality")["auroc"].mean().items()}
    return GateScore(mean, interval, by_modality, float(rows["ece"].mean()))


def _system_errors(results: Results, rows: pd.DataFrame, truth: Truth) -> dict[tuple[int, int], Squares]:
    """The errors of the finished cells of a variant, by fold and seed; cells of several targets are taken together."""
    found: dict[tuple[int, int], Squares] = {}
    for cell in rows.drop_duplicates("cell_id").itertuples():
        predictions = results.records[str(cell.cell_id)].predictions
        columns = [truth.targets.index(target) for target in predictions.targets]
        said = {}
        for clip, labels in truth.labels.items():
            at = predictions.clip(clip)
            said[clip] = np.zeros(labels.shape)
            for place, column in enumerate(columns):
                said[clip][predictions.frame[at], column] = predictions.prediction[at, place]
        key, own = (int(str(cell.fold)), int(str(cell.seed))), truth.errors(said, columns)
        found[key] = {kind: found[key][kind] + of for kind, of in own.items()} if key in found else own
    return found


def _mean_error(sums: np.ndarray) -> float:
    """Mean squared error in units of the mean squared label, of [clips, 2]."""
    return float(sums[:, 0].sum() / sums[:, 1].sum())


def _mean_errors(runs: Iterable[Squares]) -> dict[str, float]:
    """Kind of episode -> the mean over runs of its error."""
    each = [{kind: _mean_error(sums) for kind, sums in run.items()} for run in runs]
    return {kind: float(np.mean([errors[kind] for errors in each])) for kind in each[0]} if each else {}


def _changes(own: Mapping[tuple[int, int], Squares], base: Mapping[tuple[int, int], Squares]) -> dict[str, Gain]:
    """Kind of episode -> by how much an error is smaller than that of the base; jackknife over clips and over seeds."""
    keys = sorted(set(own) & set(base))
    found = {}
    for kind in own[keys[0]] if keys else ():
        folds = []
        for fold in sorted({fold for fold, _ in keys}):
            pairs = [(base[key][kind], own[key][kind]) for key in keys if key[0] == fold]
            less = np.stack([_without_each(before) - _without_each(after) for before, after in pairs], axis=1)
            folds.append((less[1:] - less[0], less[0]))
        found[kind] = Gain(mean_of(folds), spread_of(folds), len(keys))
    return found


def _without_each(sums: np.ndarray) -> np.ndarray:
    """The error of [clips, 2], and without each clip that has such episodes: float64 [1 + clips]."""
    total, has = sums.sum(axis=0), sums[:, 1] > 0
    rest = total - sums[has] if has.sum() > 1 else sums[:0]
    errors: np.ndarray = np.concatenate([[total[0] / total[1]], rest[:, 0] / rest[:, 1]])
    return errors
