"""One clip: what annotators wrote, what a few systems predicted, and what was planted there."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.metrics import ccc_of, moments
from crossfold.platform.workspace.attention_maps import shown_clips
from crossfold.reports.figures.attention import map_panels
from crossfold.reports.figures.base import Figure, Key, Panel, variant_styles
from crossfold.reports.figures.charts import NEUTRAL, TRUTH, figure_of, line_of, rounded
from crossfold.reports.figures.clip_media import Media
from crossfold.reports.figures.time_axis import SPAN_COLOURS, ClipView, ModalityLine, in_words, modality_panel, shade
from crossfold.reports.results.comparable import setting_targets, setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import Style, system_kind
from crossfold.reports.stats.formatting import number

Floats = npt.NDArray[np.float64]


def choose_clips(results: Results, setting: Setting, store: FeatureStore, count: int = 1) -> list[ClipView]:
    """The reported clips with the most kinds of planted spans, and the best system of each kind.

    Kinds: unimodal, fusion without gate, fusion with gate; by mean CCC over the targets of the first fold that ran.
    """
    done = results.rows(setting, status="done")
    if done.empty:
        return []
    fold = int(done["fold"].min())
    scores = done[done["fold"] == fold].groupby("variant")["ccc"].mean().sort_values(ascending=False)
    systems = setting_variants(results, setting)
    best: dict[str, str] = {}
    for variant in scores.index:
        best.setdefault(system_kind(systems[str(variant)]), str(variant))
    chosen = tuple(best[kind] for kind in ("unimodal", "fusion", "gated") if kind in best)
    targets = setting_targets(results, setting)
    clips = shown_clips(store, store.fold(fold).validation, count)
    return [ClipView(results, setting, store, clip, fold, chosen, targets) for clip in clips]


def clip_figure(view: ClipView, media: Media | None = None) -> Figure | None:
    """Truth and prediction (mean over seeds) of one clip, planted spans shaded and numbered; one panel per system.

    Below them are the weights of the gates over time and attention maps, where the cells have saved them.
    """
    panels = [panel for target in view.targets for panel in _trace_panels(view, target)]
    if not panels:
        return None
    gates = list(_gate_panels(view))
    maps, sentences = map_panels(view)
    gates_sentence = " Gates: weight of the unattended features (column 0, B2), mean over seeds and over one second."
    spans = [
        Key(f"{index} {in_words(span, view.info.fps)}", SPAN_COLOURS.get(str(span["kind"]), NEUTRAL), "fill")
        for index, span in enumerate(view.spans, start=1)
    ]
    return Figure(
        id="clip",
        title=f"One clip: {view.name}",
        caption=f"Annotation against prediction, mean over seeds, fold {view.fold}; reported clips with the most kinds "
        "of planted spans come first, with the best system of each kind." + gates_sentence * bool(gates) + sentences,
        panels=(*panels, *gates, *maps),
        key=(Key("annotation", ""), *spans),
        wide=True,
        media=media,
        choice=view.name,
    )


def _trace_panels(view: ClipView, target: str) -> Iterator[Panel]:
    rows = view.store.rows(view.name)
    column = view.store.targets.index(target)
    label, valid = np.asarray(view.store.labels[rows, column]), np.asarray(view.store.valid[rows, column])
    predictions = {variant: _seed_mean(view, variant, target) for variant in view.variants}
    drawn = {variant: values for variant, values in predictions.items() if values is not None}
    if not drawn:
        return
    truth = rounded(np.where(valid, label, np.nan)[view.frames])
    # One range for all systems of a target, so that their panels can be compared.
    ends = np.concatenate([label[valid], *(values[view.frames] for values in drawn.values())])
    margin = 0.04 * float(np.ptp(ends)) or 0.01
    styles = variant_styles(view.results, view.setting)
    for variant, values in drawn.items():
        name, colour = view.results.variants[variant], styles[variant].colour
        annotation = line_of(view.seconds, truth, "annotation", Style(NEUTRAL, "solid"), width=2)
        annotation.meta = TRUTH
        prediction = line_of(view.seconds, rounded(values[view.frames]), name, Style(colour, "solid"))
        spec = figure_of([annotation, prediction], x="Time, s", y=target.capitalize(), height=240)
        shade(spec, view)
        spec["layout"]["yaxis"]["range"] = rounded([ends.min() - margin, ends.max() + margin])
        score = f"{name}, CCC {number(float(ccc_of(moments(values, label, valid))))} on this clip"
        yield Panel(spec, f"Annotated and predicted {target} of one clip. {score}.", key=(Key(score, colour),))


def _gate_panels(view: ClipView) -> Iterator[Panel]:
    """The weight of the unattended features over time, a panel per gate, a line per modality."""
    second = np.ones(max(1, round(view.info.fps)))
    for variant in view.variants:
        weights = _gate_mean(view, variant)
        for gate in dict.fromkeys(gate for gate, _ in weights):
            lines = []
            for modality, values in ((m, each) for (g, m), each in weights.items() if g == gate):
                # Over one second: a gate that jumps from frame to frame would fill the chart with ink.
                smooth = np.convolve(values, second, "same") / np.convolve(np.ones(len(values)), second, "same")
                words = f"{modality} mean {number(float(values.mean()))}"
                lines.append(ModalityLine(modality, view.seconds, smooth[view.frames], f"gate of {modality}", words))
            step = f", step {gate.removeprefix('gate.')}" if gate != "gate" else ""
            title = f"Gates of {view.results.variants[variant]}{step}"
            yield modality_panel(view, lines, title, "Weight of unattended", f"{title} over time")


def _gate_mean(view: ClipView, variant: str) -> dict[tuple[str, str], Floats]:
    """(gate, modality) -> float64 [frames]: mean over the cells of the fold that saved their gates."""
    found: dict[tuple[str, str], list[Floats]] = {}
    for record in view.records(variant):
        saved = record.predictions
        if view.name in saved.clips:
            for key, values in saved.gates.items():
                found.setdefault(key, []).append(values[saved.clip(view.name)])
    return {key: np.mean(np.asarray(values, np.float64), axis=0) for key, values in sorted(found.items())}


def _seed_mean(view: ClipView, variant: str, target: str) -> Floats | None:
    """float64 [frames]: the mean prediction over seeds of one clip; None where no cell reported it."""
    predictions = [record.predictions for record in view.records(variant, target=target)]
    found = [
        each.prediction[each.clip(view.name), each.targets.index(target)]
        for each in predictions
        if view.name in each.clips
    ]
    return np.mean(np.asarray(found, np.float64), axis=0) if found else None
