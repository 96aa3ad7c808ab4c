"""Attention maps as a cell keeps them: of a few clips, reduced to what an eye can read, in `predictions.npz`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore

SHOWN = 3
"""Clips whose maps a cell keeps, and that a report may show."""

_CLIPS, _FRAMES, _PAIRS, _MAP = "map_clips", "map_frames", "map_pairs:", "map:"


@dataclass(frozen=True)
class ClipMaps:
    """The maps of one clip, between its frames [start, stop).

    maps: (kind, query, key), as `blocks/attention_maps.py` names them -> float [C, C], row query and column key, or [C]
    for weights of single frames. A cell is the mean over its frames, layers, iterations, heads and windows; the C
    cells divide the frames evenly; NaN where no window holds both frames.
    """

    start: int
    stop: int
    maps: Mapping[tuple[str, str, str], np.ndarray]


def shown_clips(store: FeatureStore, clips: Sequence[str], count: int = SHOWN) -> tuple[str, ...]:
    """Those with the most kinds of planted spans, then by name: the data choose, never a system."""
    planted = store.spans[["clip", "kind", "modality"]].drop_duplicates()["clip"].value_counts()
    return tuple(sorted(clips, key=lambda name: (-int(planted.get(name, 0)), name))[:count])


def to_arrays(kept: Mapping[str, ClipMaps]) -> dict[str, Any]:
    """The arrays of `predictions.npz`, two bytes a number.

    map_clips: names; map_frames: int64 [clips, 2], start and stop; for each kind `map_pairs:<kind>`: `<query>:<key>` of
    its maps, and for each clip that has any `map:<index of the clip>:<kind>`: [maps, C, C], or [maps, C].
    """
    arrays: dict[str, Any] = {
        _CLIPS: np.array(list(kept), dtype=np.str_),
        _FRAMES: np.array([[clip.start, clip.stop] for clip in kept.values()], np.int64).reshape(-1, 2),
    }
    for index, clip in enumerate(kept.values()):
        for kind in sorted({kind for kind, _, _ in clip.maps}):
            chosen = {f"{query}:{key}": values for (of, query, key), values in sorted(clip.maps.items()) if of == kind}
            arrays[_PAIRS + kind] = np.array(list(chosen))
            arrays[f"{_MAP}{index}:{kind}"] = np.stack(list(chosen.values())).astype(np.float16)
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, ClipMaps] | None:
    """What `to_arrays` wrote; None for cells from before there were maps."""
    if _CLIPS not in arrays:
        return None
    found: dict[str, ClipMaps] = {}
    for index, (name, (start, stop)) in enumerate(zip(arrays[_CLIPS], arrays[_FRAMES], strict=True)):
        maps: dict[tuple[str, str, str], np.ndarray] = {}
        for kind in sorted(each.removeprefix(_PAIRS) for each in arrays if each.startswith(_PAIRS)):
            if f"{_MAP}{index}:{kind}" in arrays:
                pairs = [str(pair).split(":") for pair in arrays[_PAIRS + kind]]
                for (query, key), values in zip(pairs, arrays[f"{_MAP}{index}:{kind}"], strict=True):
                    maps[kind, query, key] = values
        found[str(name)] = ClipMaps(int(start), int(stop), maps)
    return found
