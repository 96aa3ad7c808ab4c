"""One clip: what annotators wrote, what a few systems predicted, and what was planted there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.metrics import ccc_of, moments
from crossfold.platform.workspace.attention_maps import shown_clips
from crossfold.reports.figures.attention import map_panels
from crossfold.reports.figures.base import TRUTH, Figure, Key, Panel, figure_of, line_of, rounded, variant_styles
from crossfold.reports.figures.clip_media import Media
from crossfold.reports.figures.time_axis import MODALITY_COLOURS, SPAN_COLOURS, Spans, in_words, shade, shown_frames
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import UNIMODAL_PREFIX, Style, is_gated
from crossfold.reports.stats.formatting import number


@dataclass(frozen=True)
class Example:
    """A clip that is shown, and the variants beside its truth."""

    clip: str
    fold: int
    variants: tuple[str, ...]


def choose_examples(results: Results, setting: Setting, store: FeatureStore, count: int = 1) -> list[Example]:
    """The reported clips with the most kinds of planted spans, and the best system of each kind.

    Kinds: unimodal, fusion without gate, fusion with gate; by mean CCC over the targets of the first fold that ran.
    """
    cells = results.cells
    done = cells[(cells["setting"] == setting.key) & (cells["status"] == "done")]
    if done.empty:
        return []
    fold = int(done["fold"].min())
    scores = done[done["fold"] == fold].groupby("variant")["ccc"].mean().sort_values(ascending=False)
    systems = setting_variants(results, setting)
    kinds: dict[int, str] = {}
    for variant in scores.index:
        system = systems[str(variant)]
        kinds.setdefault(0 if system.startswith(UNIMODAL_PREFIX) else 2 if is_gated(system) else 1, str(variant))
    chosen = tuple(kinds[kind] for kind in sorted(kinds))
    return [Example(clip, fold, chosen) for clip in shown_clips(store, store.fold(fold).validation, count)]


def clip_figure(
    results: Results,
    setting: Setting,
    store: FeatureStore,
    example: Example,
    targets: Sequence[str],
    media: Media | None = None,
) -> Figure | None:
    """Truth and prediction (mean over seeds) of one clip, planted spans shaded and numbered; one panel a system.

    Below them the weights of the gates over time and attention maps, where the cells have kept them.
    """
    clip = store.clip(example.clip)
    spans = store.spans[store.spans["clip"] == example.clip].sort_values("start").to_dict("records")
    panels = [panel for target in targets for panel in _trace_panels(results, setting, store, example, target, spans)]
    if not panels:
        return None
    gates = _gate_panels(results, setting, store, example, spans)
    gated = bool(gates)
    maps, words = map_panels(results, setting, store, example.clip, example.fold, example.variants, targets, spans)
    panels += [*gates, *maps]
    return Figure(
        id="clip",
        title=f"One clip: {example.clip}",
        caption=f"Annotation against prediction, mean over seeds, fold {example.fold}; reported clips with the most "
        "kinds of planted spans come first, with the best system of each kind."
        + (" Gates: weight of the unattended features (column 0, B2), mean over seeds and over one second." * gated)
        + words,
        panels=tuple(panels),
        key=(
            Key("annotation", ""),
            *(
                Key(f"{index} {in_words(span, clip.fps)}", SPAN_COLOURS.get(str(span["kind"]), TRUTH), "fill")
                for index, span in enumerate(spans, start=1)
            ),
        ),
        wide=True,
        media=media,
        choice=example.clip,
    )


def _trace_panels(
    results: Results,
    setting: Setting,
    store: FeatureStore,
    example: Example,
    target: str,
    spans: Spans,
) -> list[Panel]:
    clip = store.clip(example.clip)
    rows = store.rows(example.clip)
    column = store.targets.index(target)
    label, valid = np.asarray(store.labels[rows, column]), np.asarray(store.valid[rows, column])
    shown = shown_frames(clip.frames)
    seconds = [round(float(frame) / clip.fps, 2) for frame in shown]
    predictions = {v: _seed_mean(results, setting, example, v, target) for v in example.variants}
    drawn = {variant: values for variant, values in predictions.items() if values is not None}
    if not drawn:
        return []
    truth = rounded(np.where(valid, label, np.nan)[shown])
    ends = np.concatenate([label[valid], *(values[shown] for values in drawn.values())])
    margin = 0.04 * float(np.ptp(ends)) or 0.01
    styles, panels = variant_styles(results, setting), []
    for variant, values in drawn.items():
        name, colour = results.variants[variant], styles[variant].colour
        annotation = line_of(seconds, truth, "annotation", Style(TRUTH, "solid"), width=2)
        annotation.meta = "truth"
        prediction = line_of(seconds, rounded(values[shown]), name, Style(colour, "solid"))
        spec = figure_of([annotation, prediction], x="Time, s", y=target.capitalize(), height=240)
        shade(spec, spans, clip.fps, clip.frames)
        spec["layout"]["yaxis"]["range"] = rounded([ends.min() - margin, ends.max() + margin])
        score = f"{name}, CCC {number(float(ccc_of(moments(values, label, valid))))} on this clip"
        panels.append(Panel(spec, f"Annotated and predicted {target} of one clip. {score}.", key=(Key(score, colour),)))
    return panels


def _gate_panels(
    results: Results, setting: Setting, store: FeatureStore, example: Example, spans: Spans
) -> list[Panel]:
    """The weight of the unattended features over time, a panel a gate, a line a modality."""
    clip, shown = store.clip(example.clip), shown_frames(store.clip(example.clip).frames)
    seconds = [round(float(frame) / clip.fps, 2) for frame in shown]
    panels = []
    second = np.ones(max(1, round(clip.fps)))
    for variant in example.variants:
        weights = _gate_mean(results, setting, example, variant)
        for gate in dict.fromkeys(gate for gate, _ in weights):
            lines, keys, words = [], [], []
            for modality, values in ((m, each) for (g, m), each in weights.items() if g == gate):
                # Over one second, because a gate that jumps from frame to frame would be a block of ink.
                smooth = np.convolve(values, second, "same") / np.convolve(np.ones(len(values)), second, "same")
                style = Style(MODALITY_COLOURS.get(modality, TRUTH), "solid")
                lines.append(line_of(seconds, rounded(smooth[shown]), modality, style))
                keys.append(Key(f"gate of {modality}", style.colour))
                words.append(f"{modality} mean {number(float(values.mean()))}")
            spec = figure_of(lines, x="Time, s", y="Weight of unattended", height=240)
            shade(spec, spans, clip.fps, clip.frames)
            spec["layout"]["yaxis"]["range"] = [-0.02, 1.02]
            step = f", step {gate.removeprefix('gate.')}" if gate != "gate" else ""
            title = f"Gates of {results.variants[variant]}{step}"
            panels.append(Panel(spec, f"{title} over time: {'; '.join(words)}.", title, tuple(keys)))
    return panels


def _gate_mean(
    results: Results, setting: Setting, example: Example, variant: str
) -> dict[tuple[str, str], npt.NDArray[np.float64]]:
    """(gate, modality) -> float64 [frames]: mean over the cells of the fold that kept their gates."""
    cells = results.cells
    chosen = cells[
        (cells["setting"] == setting.key)
        & (cells["variant"] == variant)
        & (cells["fold"] == example.fold)
        & (cells["status"] == "done")
    ]
    found: dict[tuple[str, str], list[Any]] = {}
    for cell_id in chosen["cell_id"].unique():
        kept = results.records[str(cell_id)].predictions
        if example.clip in kept.clips:
            for key, values in kept.gates.items():
                found.setdefault(key, []).append(values[kept.clip(example.clip)])
    return {key: np.mean(np.asarray(values, np.float64), axis=0) for key, values in sorted(found.items())}


def _seed_mean(
    results: Results, setting: Setting, example: Example, variant: str, target: str
) -> npt.NDArray[np.float64] | None:
    """float64 [frames]: the mean prediction over seeds of one clip; None where the cell did not report it."""
    cells = results.cells
    chosen = cells[
        (cells["setting"] == setting.key)
        & (cells["variant"] == variant)
        & (cells["target"] == target)
        & (cells["fold"] == example.fold)
        & (cells["status"] == "done")
    ]
    predictions = [results.records[str(cell_id)].predictions for cell_id in chosen["cell_id"]]
    found = [
        p.prediction[p.clip(example.clip), p.targets.index(target)] for p in predictions if example.clip in p.clips
    ]
    return np.mean(np.asarray(found, np.float64), axis=0) if found else None
