"""A cell under stress: what changes, what must not, and what gates are asked."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from crossfold.datasets.batches.corruptions import damaged_frames
from crossfold.datasets.batches.source import WindowSource
from crossfold.datasets.corpora.clips import Span
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.evaluation_config import SUITES, Evaluation, strengths_of
from crossfold.platform.core.metrics import ccc
from crossfold.platform.evaluation.evaluate import evaluate
from crossfold.platform.evaluation.gate_calibration import gate_entries
from crossfold.platform.evaluation.predict import forward_pass
from crossfold.platform.evaluation.robustness import under_stress
from crossfold.platform.evaluation.scoring import score, span_masks, span_scores
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.training.cell_data import Split, batch_spec, open_data, windows_of
from tests.support.factories import make_store


@pytest.fixture(scope="module")
def spanned_store(tmp_path_factory):
    """A store with planted spans on its reported clips; valence is in both modalities, arousal in the voice alone."""
    rng = np.random.default_rng(0)
    spans = {
        "c": (Span(5, 25, "missing", "audio"), Span(20, 30, "complementary", "both")),
        "d": (Span(0, 10, "corrupted", "visual"), Span(40, 60, "conflict", "audio")),
    }
    clips = []
    for name, partition in (("a", "train"), ("b", "train"), ("c", "validation"), ("d", "validation")):
        latent = np.cumsum(rng.normal(size=(80, 2)), axis=0) / 9
        labels = np.tanh(latent)
        labels[70:, :] = -5
        clips.append(
            {
                "name": name,
                "partition": partition,
                "labels": labels,
                "features": {
                    "audio": np.tile(latent, 2) + 0.1 * rng.normal(size=(80, 4)),
                    "visual": np.tile(latent[:, :1], 3) + 0.1 * rng.normal(size=(80, 3)),
                },
                "spans": spans.get(name, ()),
            }
        )
    return make_store(tmp_path_factory.mktemp("spanned") / "stores", clips)


@pytest.fixture(scope="module")
def evaluated(spanned_store, tiny_cell):
    """(system, evaluation) -> data, model, result and parts of an untrained model: nothing here needs training."""
    import torch

    def make(system, stress=SUITES["default"], post="none", **params):
        cell = tiny_cell(system, store=spanned_store, params=params, targets=("valence", "arousal"), window=16, hop=8)
        data = open_data(cell, spanned_store.path, "cpu")
        torch.manual_seed(0)
        model = data.new_model()
        return data, model, *evaluate(data, Evaluation(post=post, stress=stress), model)

    return make


@pytest.mark.parametrize("system", ["rjca+dca", "concat", "unimodal_audio"])
def test_each_entry_of_the_suite_once(evaluated, system):
    data, _, result, parts = evaluated(system)
    raw = score(result.predictions, data.store)["metrics"]
    entries = parts["stress"]
    assert [(e["kind"], e["modality"], e["strength"]) for e in entries] == strengths_of(
        SUITES["default"], ("audio", "visual")
    )
    for entry in entries:
        assert entry["metrics"].keys() == raw.keys()
        assert entry["metrics"]["valence"]["frames"] == raw["valence"]["frames"], "the same frames are scored"
        assert entry["used"] == (system != "unimodal_audio" or entry["modality"] == "audio")
        assert (entry["metrics"] == raw) == (not entry["used"]), entry
        # One strength makes no curve, and so no area.
        assert ("left_out" in entry) == (entry["kind"] in ("missing", "noisy"))
    json.dumps(parts, allow_nan=False)


@pytest.mark.parametrize(("system", "unread"), [("unimodal_audio", "visual"), ("unimodal_visual", "audio")])
def test_a_modality_that_a_system_does_not_read_cannot_change_it(evaluated, spanned_store, system, unread):
    """Not by what is skipped: both modalities are gathered, one is damaged, and the model looks again."""
    data, model, result, _ = evaluated(system)
    clips = data.reported.clips
    spec = replace(batch_spec(data.cell), modalities=("audio", "visual"))
    source = WindowSource(spanned_store, windows_of(data.cell, spanned_store, clips), spec)
    frames = damaged_frames(spanned_store, "noisy", 3.0, modality=unread, fold=0, clips=clips)
    hurt = Split(clips, source.with_frames(unread, frames, frames.present))
    again = forward_pass(model, data, hurt).predictions
    np.testing.assert_array_equal(again.prediction, result.predictions.prediction)


def test_strength_zero_is_the_raw_score(evaluated):
    stress = [{"kind": kind, "strengths": [0.0]} for kind in ("missing", "noisy", "frozen", "shifted")]
    data, _, result, parts = evaluated("rjca", stress=stress)
    raw = score(result.predictions, data.store)["metrics"]
    assert len(parts["stress"]) == 8
    assert all(entry["metrics"] == raw for entry in parts["stress"])


def test_an_unknown_modality_has_no_entry(evaluated):
    assert evaluated("concat", stress=[{"kind": "missing", "modality": "text", "strengths": [1.0]}])[3]["stress"] == []


def test_all_of_a_modality_missing_is_what_zeros_give(evaluated, spanned_store):
    """Against a reference that knows nothing of damage: features of zeros, by hand."""
    import torch

    suite = [{"kind": "missing", "modality": "audio", "strengths": [1.0, 0.5]}]
    data, model, _, parts = evaluated("concat", stress=suite)
    source = data.reported.source
    batch = source.batch(np.arange(len(source)))
    with torch.no_grad():
        y = model({"audio": torch.zeros_like(batch.x["audio"]), "visual": batch.x["visual"]}, batch.real).numpy()
    total, count = np.zeros((spanned_store.frames, 2)), np.zeros(spanned_store.frames)
    for rows, real, predicted in zip(source.windows.rows, source.windows.real, y, strict=True):
        for row, counts, value in zip(rows, real, predicted, strict=True):
            total[row] += value * counts
            count[row] += counts
    rows = np.concatenate([np.r_[spanned_store.rows(name)] for name in data.reported.clips])
    mean = total[rows] / np.maximum(count[rows], 1)[:, None]
    labels = np.asarray(spanned_store.labels[rows])
    valid = np.asarray(spanned_store.valid[rows]).all(1) & (count[rows] > 0)
    for t, target in enumerate(("valence", "arousal")):
        x, y_ = mean[valid, t], labels[valid, t]
        reference = 2 * np.cov(x, y_, bias=True)[0, 1] / (x.var() + y_.var() + (x.mean() - y_.mean()) ** 2)
        assert parts["stress"][0]["metrics"][target]["ccc"] == pytest.approx(reference, abs=1e-5)
        # Without each of the two videos there is the other one.
        videos = np.repeat(data.reported.clips, [len(np.r_[spanned_store.rows(name)]) for name in data.reported.clips])
        for without, name in zip(parts["stress"][0]["left_out"][target], sorted(data.reported.clips), strict=True):
            other = videos[valid] != name
            alone = ccc(x[other].astype(np.float64), y_[other].astype(np.float64), np.ones(other.sum(), bool))
            assert without == pytest.approx(alone, abs=1e-5)


def test_spans_are_scored_apart(evaluated, spanned_store):
    _, _, result, parts = evaluated("concat")
    predictions = result.predictions
    masks = span_masks(predictions, spanned_store.spans)
    assert list(masks) == sorted(masks)
    at = {name: predictions.clip(name).start for name in ("c", "d")}
    assert set(np.flatnonzero(masks["missing:audio"])) == {at["c"] + i for i in range(5, 25)}
    assert set(np.flatnonzero(masks["conflict"])) == {at["d"] + i for i in range(40, 60)}
    spans = parts["spans"]
    assert spans.keys() == {"clean", *masks}
    inside = np.logical_or.reduce(list(masks.values()))
    assert spans["clean"]["valence"]["frames"] == (~inside & predictions.valid[:, 0]).sum()
    mask = masks["corrupted:visual"] & predictions.valid[:, 1]
    x, y = predictions.prediction[mask, 1].astype(float), predictions.label[mask, 1].astype(float)
    assert spans["corrupted:visual"]["arousal"]["pcc"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    assert span_scores(predictions, spanned_store.spans.iloc[:0]) is None


GATED = {
    "rjca+dca": {"gate"},
    "ca+dca": {"gate"},
    "grjca": {"gate"},
    "hgrjca": {"gate.1", "gate.2", "gate.3"},
}


@pytest.mark.parametrize("system", sorted(GATED))
def test_gates_of_every_gated_system_are_found(evaluated, system):
    _, _, result, parts = evaluated(system)
    assert {gate for gate, _ in result.predictions.gates} == GATED[system]
    assert {modality for _, modality in result.predictions.gates} == {"audio", "visual"}
    assert all(((weight >= 0) & (weight <= 1)).all() for weight in result.predictions.gates.values())
    found = {(e["truth"], e["damage"]) for e in parts["gates"]}
    spans = {("spans", d) for d in ("any", "missing", "missing:audio", "corrupted", "corrupted:visual", "conflict")}
    assert found >= spans
    assert {d for t, d in found if t == "stress"} <= {
        f"{kind}:{m}" for kind in ("missing", "frozen") for m in ("audio:0.5", "visual:0.5", "audio:2", "visual:2")
    }
    assert ("spans", "complementary") not in found


def test_hgrjca_with_feedback_has_the_same_gates(evaluated):
    _, _, result, _ = evaluated("hgrjca", feedback=True)
    assert {gate for gate, _ in result.predictions.gates} == {"gate.1", "gate.2", "gate.3"}


def test_systems_without_gates_have_no_such_part(evaluated):
    for system in ("concat", "rjca", "leader_follower"):
        _, _, result, parts = evaluated(system)
        assert result.predictions.gates == {}
        assert parts["gates"] is None


def test_the_weights_that_are_scored_are_those_the_model_used(evaluated, spanned_store):
    """One window a frame: what stitching gives is the gate of that window."""
    data, model, result, _ = evaluated("rjca+dca")
    notes = {}
    batch = data.reported.source.batch(np.array([0]))
    model.eval()(batch.x, batch.real, notes)
    rows = data.reported.source.windows.rows[0]
    first = rows[:8] - spanned_store.rows(data.reported.clips[0]).start  # the next window begins at frame 8
    np.testing.assert_allclose(
        result.predictions.gates["gate", "visual"][first], notes["gate.visual"][0, :8, 0].numpy(), atol=1e-5
    )


def test_scores_of_a_gate_against_a_reference():
    rng = np.random.default_rng(0)
    damaged = rng.random(2000) < 0.3
    weight = np.clip(0.3 * damaged + rng.random(2000) * 0.7, 0, 1).astype(np.float32)
    reached = rng.random(2000) < 0.9
    (entry,) = gate_entries({("gate", "audio"): weight}, reached, "spans", {"any": damaged})
    x, truth = weight[reached].astype(np.float64), damaged[reached]
    assert entry["auroc"] == pytest.approx(roc_auc_score(truth, x), abs=1e-12)
    assert entry["auroc"] == pytest.approx(np.mean(x[truth][:, None] > x[~truth][None]), abs=1e-9)
    assert (entry["frames"], entry["damaged"]) == (len(x), truth.sum())
    assert entry["mean_damaged"] == pytest.approx(x[truth].mean())
    ece = 0.0
    for low in np.arange(10) / 10:
        inside = (x >= low) & ((x < low + 0.1) | (low > 0.85))
        if inside.any():
            ece += inside.mean() * abs(x[inside].mean() - truth[inside].mean())
    assert entry["ece"] == pytest.approx(ece, abs=1e-3)
    assert sum(n for _, _, n in entry["bins"]) == len(x)


def test_equal_weights_count_half():
    rng = np.random.default_rng(1)
    weight, damaged = rng.integers(0, 5, 300).astype(np.float32) / 5, rng.random(300) < 0.4
    (entry,) = gate_entries({("gate", "audio"): weight}, np.ones(300, bool), "spans", {"any": damaged})
    assert entry["auroc"] == pytest.approx(roc_auc_score(damaged, weight), abs=1e-12)


def test_a_perfect_and_a_blind_gate():
    damaged = np.arange(100) < 40
    every = np.ones(100, bool)
    (perfect,) = gate_entries({("gate", "audio"): damaged.astype(np.float32)}, every, "spans", {"any": damaged})
    assert (perfect["auroc"], perfect["ece"]) == (1.0, 0.0)
    (blind,) = gate_entries({("gate", "audio"): np.full(100, 0.4, np.float32)}, every, "spans", {"any": damaged})
    assert blind["auroc"] == 0.5
    assert blind["ece"] == pytest.approx(0, abs=1e-6)
    (alone,) = gate_entries({("gate", "audio"): np.full(100, 0.4, np.float32)}, every, "spans", {"any": every})
    assert alone["auroc"] is None
    assert alone["mean_clean"] is None


def test_other_damage_is_not_taken_for_clean():
    """Frames of one kind are compared with frames of none, not with frames of another kind."""
    weight = np.array([0.9, 0.9, 0.1, 0.1], np.float32)
    masks = {"missing": np.array([1, 0, 0, 0], bool), "conflict": np.array([0, 1, 0, 0], bool)}
    entries = gate_entries({("gate", "audio"): weight}, np.ones(4, bool), "spans", masks)
    assert [(e["damage"], e["auroc"], e["frames"]) for e in entries] == [("missing", 1.0, 3), ("conflict", 1.0, 3)]


def test_a_committed_cell_has_all_parts_and_the_same_bytes_again(new_workspace, tiny_cell, spanned_store):
    cell = tiny_cell("rjca+dca", store=spanned_store, post="ca2021", stress="default", window=16, hop=8)
    texts = []
    for _ in range(2):
        workspace = new_workspace(spanned_store.path)
        outcome = attempt_cell(cell, workspace)
        assert outcome.status == "done", outcome.failure
        texts.append((workspace.paths.cell(cell.cell_id) / "result.json").read_bytes())
    assert texts[0] == texts[1]
    result = json.loads(texts[0])
    assert all(result[part] for part in ("post", "stress", "spans", "gates"))
    assert result["post"]["columns"].keys() == {"train", "oracle"}


def test_the_evaluation_is_outside_the_identity(tiny_cell):
    plain = tiny_cell("concat")
    assert tiny_cell("concat", post="ca2021", stress="full").cell_id == plain.cell_id
    assert tiny_cell("concat", epochs=3).cell_id != plain.cell_id


def test_under_stress_needs_no_gates_of_its_own(evaluated, spanned_store):
    data, model, _, parts = evaluated("rjca+dca", stress=())
    assert parts["stress"] is None
    clean = forward_pass(model, data, data.reported)
    entries, gates = under_stress(SUITES["quick"], data, model, clean)
    assert len(entries) == 4
    assert gates == []
    assert parts["gates"]


def test_doses_are_shares_of_the_strongest_damage_of_each_kind():
    dosed = Evaluation.parse({"stress": {"doses": [1, 0.25]}}, "evaluation").stress
    assert [(each.kind, each.strengths) for each in dosed] == [
        ("missing", (0.25, 1.0)),
        ("noisy", (0.75, 3.0)),
        ("frozen", (0.5, 2.0)),
        ("shifted", (0.25, 1.0)),
    ]
    quick = Evaluation.parse({"stress": {"doses": [1], "suite": "quick"}}, "evaluation")
    # What doses stand for is written as a list: the same damage has the same key, however it was asked for.
    assert quick.key == Evaluation.parse({"stress": "quick"}, "evaluation").key


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"doses": [1.5]}, "strength 1.5 of missing: a share of the time"),
        ({"doses": [0]}, "greater than 0"),
        ({"dose": [1]}, "did you mean 'doses'"),
        ({"doses": [1], "suite": "none"}, "'quick', 'default' or 'full'"),
    ],
)
def test_impossible_doses_are_refused(given, words):
    with pytest.raises(UserError, match=words) as refused:
        Evaluation.parse({"stress": given}, "evaluation")
    assert str(refused.value).count("->") == 1
