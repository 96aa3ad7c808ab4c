"""Attention maps, which blocks add to the notes when notes are given.

A map is a note named `<kind>.<query>.<key>[.<layer>][.<iteration>]`. Its last two axes are (query, key): a row is a
frame whose output is made, a column is a frame that is read for it. `joint` is the concatenation J of all modalities.

Legend: B batch, L frames (q queries, k keys), H heads, D features, J joint features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from crossfold.fusion_models.system import Notes, note

JOINT = "joint"
"""The name of J, and of tokens that hold all modalities, as query or key."""


@dataclass(frozen=True)
class Kind:
    """The meaning of the numbers of one kind of map."""

    axes: str
    """B L L: frames to frames; B H L L: the same in each head; B L H: a weight per frame; B J D: channels."""
    softmax: bool
    """Whether they are weights that sum to 1 over the keys; else a tanh, from -1 to 1."""
    source: str


KINDS: Mapping[str, Kind] = {
    "cross_attention": Kind("B L L", True, "004 eq 2"),
    "dot_attention": Kind("B H L L", True, "softmax_k(Q K' / sqrt(E)), our readings of the rivals"),
    "joint_correlation": Kind("B L L", False, "001 eqs 1-2; 002 eqs 2-4"),
    "channel_correlation": Kind("B J D", False, "003 eqs 2-3"),
    "modal_attention": Kind("B L H", True, "softmax over the modalities of a frame"),
}


@dataclass(frozen=True)
class AttentionMap:
    """One map of one layer and iteration, with the heads averaged.

    values: B x L x L (row query frame, column key frame), or B x L for `modal_attention`. Rows and columns of padded
    frames have no meaning.
    """

    kind: str
    query: str
    key: str
    step: str
    """Layer and iteration, as `1` or `2.1`; empty where there is one of each."""
    values: Tensor


def note_map(notes: Notes | None, kind: str, axes: tuple[str, ...], values: Tensor) -> None:
    """Adds a map to the notes, if there are any. axes: (query, key) or (query, key, layer); values: as in `KINDS`."""
    if notes is not None:
        assert values.ndim == len(KINDS[kind].axes.split()), kind
        note(notes, ".".join((kind, *axes)), values)


def maps_over_time(notes: Notes) -> list[AttentionMap]:
    """Every map between frames among the notes; correlations of channels are left out."""
    found = []
    for name, values in notes.items():
        kind, *rest = name.split(".")
        if kind not in KINDS or KINDS[kind].axes == "B J D":
            continue
        query, key, *step = rest
        heads = {"B H L L": 1, "B L H": 2}.get(KINDS[kind].axes)
        values = values.float() if heads is None else values.float().mean(dim=heads)
        found.append(AttentionMap(kind, query, key, ".".join(step), values))
    return found
