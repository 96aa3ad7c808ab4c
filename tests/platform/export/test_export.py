"""What is handed to others: an ABAW submission that reads back equal, tables of predictions, and folds."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from typer.testing import CliRunner

from crossfold.datasets.corpora.embedded.synthetic import write_synthetic
from crossfold.datasets.corpora.partitions import make_folds, read_fold_file
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.app import app, main
from crossfold.platform.export.abaw import ABAW_HEADER, ABAW_TARGETS, JOINT_FILE, write_abaw
from crossfold.platform.export.predictions_table import tidy, write_table
from crossfold.platform.export.tracks import Track, join
from crossfold.platform.workspace.predictions import Predictions
from crossfold.platform.workspace.workspace import Workspace, corpora_of
from crossfold.sweeps.plan import expand
from crossfold.sweeps.sweep_files import Sweep
from tests.support.media import write_corpus

ASKED = {
    "name": "tiny",
    "corpus": "synthetic",
    "recipe": "demo",
    "systems": ["concat"],
    "folds": [0, 1],
    "seeds": [0, 1],
}


def invent(cell, store, *, gaps=()) -> Predictions:
    """Predictions of a cell by formula: `gaps` are frames of every clip that no window reached."""
    fold = store.fold(cell.fold)
    lengths = [store.clip(name).frames for name in fold.validation]
    rng = np.random.default_rng([cell.seed, cell.fold, ord(cell.targets[0][0])])
    frame = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    values = rng.uniform(-1.2, 1.2, (len(frame), len(cell.targets))).astype(np.float32)
    valid = np.ones_like(values, bool)
    unreached = np.isin(frame, gaps)
    values[unreached], valid[unreached] = 0, False
    return Predictions(
        clips=fold.validation,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        frame=frame,
        prediction=values,
        label=np.zeros_like(values),
        valid=valid,
        targets=cell.targets,
    )


@pytest.fixture
def finished(workspace, synthetic_store, tmp_path):
    """A sweep whose cells have invented results: (its file, its cells)."""

    def make(gaps=(), leave_out=(), result=None, **changes):
        asked = ASKED | changes
        path = tmp_path / "tiny.yaml"
        path.write_text(json.dumps(asked))
        cells = expand(Sweep.parse(asked, "test"), synthetic_store).cells
        for cell in cells:
            if cell.seed not in leave_out:
                workspace.commit(
                    cell,
                    result=result or {"status": "done"},
                    curve=pd.DataFrame({"epoch": [0]}),
                    predictions=invent(cell, synthetic_store, gaps=gaps),
                    env={},
                    weights=b"",
                )
        return path, cells

    return make


def run(*arguments) -> str:
    """A command that succeeds."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refused(capsys, *arguments) -> str:
    """The error of a command that is refused."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


tracks = st.dictionaries(
    st.text("abcdefg-_0123456789", min_size=1, max_size=12),
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(-1, 1, width=32, allow_subnormal=True)
    ),
    min_size=1,
    max_size=4,
)


def read_abaw(path):
    """A submission: by clip, frame numbers int64 [frames] and values float32 [frames, 2], in order of the file."""
    table = pd.read_csv(path, dtype=str)
    place = table["image_location"].str.extract(r"^(?P<clip>.+)/(?P<frame>\d{5,})\.jpg$")
    assert place.notna().all(axis=None)
    return {
        str(clip): (
            rows["frame"].to_numpy(np.int64),
            table.loc[rows.index, ["valence", "arousal"]].to_numpy(float).astype(np.float32),
        )
        for clip, rows in place.astype({"frame": int}).groupby("clip", sort=False)
    }


@settings(max_examples=50, deadline=None)
@given(clips=tracks)
def test_a_submission_reads_back_equal(tmp_path_factory, clips):
    out = tmp_path_factory.mktemp("abaw")
    written = write_abaw(out, [Track(clip, values, 0) for clip, values in clips.items()])
    back = read_abaw(out / JOINT_FILE)
    assert list(back) == list(clips)
    assert (written.clips, written.frames) == (len(clips), sum(map(len, clips.values())))
    for clip, values in clips.items():
        numbers, found = back[clip]
        np.testing.assert_array_equal(numbers, np.arange(1, len(values) + 1))
        np.testing.assert_array_equal(found, values)
        alone = read_abaw(out / "clips" / f"{clip}.txt")
        np.testing.assert_array_equal(alone[clip][1], values)


def test_lines_are_those_of_the_challenge(tmp_path):
    values = np.array([[0.5, -0.25], [1.5, -7], [1e-7, 0]], np.float32)
    write_abaw(tmp_path, [Track("12-24-1920x1080_left", values, 0)])
    assert (tmp_path / JOINT_FILE).read_text().splitlines() == [
        ABAW_HEADER,
        "12-24-1920x1080_left/00001.jpg,0.5,-0.25",
        "12-24-1920x1080_left/00002.jpg,1.0,-1.0",
        "12-24-1920x1080_left/00003.jpg,0.0000001,0.0",
    ]


def test_the_sample_file_decides_lines_and_order(tmp_path):
    sample = tmp_path / "sample.txt"
    lines = ["b/00003.jpg,-5,-5", "b/00001.jpg,-5,-5", "a/00002.jpg,-5,-5", "a/00006.jpg,-5,-5"]
    sample.write_text("\n".join([ABAW_HEADER, *lines]) + "\n")
    values = np.arange(8, dtype=np.float32).reshape(4, 2) / 10
    given_tracks = [Track("a", values, 0), Track("b", values / 2, 0), Track("c", values, 0)]
    written = write_abaw(tmp_path / "out", given_tracks, sample)
    assert (written.clips, written.frames, written.filled) == (2, 4, 1)
    text = (tmp_path / "out" / JOINT_FILE).read_text().splitlines()
    assert [line.split(",")[0] for line in text[1:]] == [line.split(",")[0] for line in lines]
    back = read_abaw(tmp_path / "out" / JOINT_FILE)
    np.testing.assert_array_equal(back["b"][1], values[[2, 0]] / 2)
    np.testing.assert_array_equal(back["a"][1], values[[1, 3]])
    sample.write_text(sample.read_text().replace(",", "\t"), encoding="utf-16")  # as a spreadsheet saves it
    write_abaw(tmp_path / "out2", given_tracks, sample)
    assert (tmp_path / "out2" / JOINT_FILE).read_text().splitlines() == text
    with pytest.raises(UserError, match="1 of 2 clips have no prediction, such as 'b'"):
        write_abaw(tmp_path / "out", given_tracks[:1], sample)
    sample.write_text(f"{ABAW_HEADER}\na/00099.jpg,-5,-5\n")
    with pytest.raises(UserError, match="goes up to frame 99, 4 are predicted"):
        write_abaw(tmp_path / "out", given_tracks, sample)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("valence,arousal\na/00001.jpg,0,0\n", "begins with"),
        ("", "begins with"),
        (f"{ABAW_HEADER}\n", "names no frame"),
        (f"{ABAW_HEADER}\na/00000.jpg,0,0\n", "count from 1"),
        (f"{ABAW_HEADER}\n00001.jpg,0,0\n", "count from 1"),
        (f"{ABAW_HEADER}\na/one.jpg,0,0\n", "count from 1"),
    ],
)
def test_damaged_sample_files_are_refused(tmp_path, text, says):
    path = tmp_path / "p.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        write_abaw(tmp_path / "out", [Track("a", np.zeros((1, 2), np.float32), 0)], path)
    assert not (tmp_path / "out").exists()


def test_targets_are_joined_seeds_averaged_and_gaps_filled(workspace, synthetic_store, finished, tmp_path):
    gaps = (0, 1, 40, 41, 89)
    sweep, cells = finished(gaps=gaps)
    says = run("export", sweep, "--out", tmp_path / "abaw", "--fold", 0, "--workspace", workspace.root)
    clips = synthetic_store.fold(0).validation
    assert f"{len(clips)} clips, {90 * len(clips)} frames, {len(gaps) * len(clips)} filled" in says
    for cell in cells:
        assert (f"  of {cell.label}\n" in says) == (cell.fold == 0)
    labelled = (90 - len(gaps)) * len(clips)
    assert f"the mean of 2 cells on {len(clips)} clips, {labelled} labelled frames" in says.replace("\n", " ")
    back = read_abaw(tmp_path / "abaw" / JOINT_FILE)
    assert list(back) == sorted(clips)
    for clip in clips:
        for t, target in enumerate(("valence", "arousal")):
            mine = [cell for cell in cells if cell.fold == 0 and cell.targets == (target,)]
            each = [invent(cell, synthetic_store) for cell in mine]
            mean = np.mean([p.prediction[p.clip(clip), 0].astype(np.float64) for p in each], axis=0)
            expected = [mean[max([f for f in range(frame + 1) if f not in gaps], default=2)] for frame in range(90)]
            np.testing.assert_allclose(back[clip][1][:, t], np.clip(expected, -1, 1), atol=1e-7)


def test_the_score_of_a_mean_is_that_of_its_predictions(synthetic_store, finished):
    from crossfold.platform.core.metrics import ccc
    from crossfold.platform.evaluation.ensembles import scores_of_means

    _, cells = finished()
    mine = [cell for cell in cells if cell.targets == ("arousal",)]
    rng = np.random.default_rng(0)
    members = [
        replace(p, label=rng.normal(size=p.label.shape).astype(np.float32))
        for p in (invent(cell, synthetic_store) for cell in mine)
    ]
    same_labels = {p.clips: p.label for p in members}
    members = [replace(p, label=same_labels[p.clips]) for p in members]
    found = {(row["clips"], row["frames"], round(row["ccc"], 6)) for row in scores_of_means(members)}
    expected = set()
    for clips, label in same_labels.items():
        each = [p.prediction[:, 0].astype(np.float64) for p in members if p.clips == clips]
        mean = np.mean(each, axis=0).astype(np.float32)
        expected.add((len(clips), len(label), round(float(ccc(mean, label[:, 0], np.ones(len(label), bool))), 6)))
    assert len(found) == 2, "two folds report other clips"
    assert found == expected
    unlabelled = [replace(p, valid=np.zeros_like(p.valid)) for p in members]
    assert scores_of_means(unlabelled) == []


def test_all_folds_together_cover_all_their_clips(workspace, synthetic_store, finished, tmp_path):
    sweep, _ = finished()
    run("export", sweep, "--out", tmp_path / "abaw", "--seed", 1, "--workspace", workspace.root)
    reported = {clip for fold in (0, 1) for clip in synthetic_store.fold(fold).validation}
    assert set(read_abaw(tmp_path / "abaw" / JOINT_FILE)) == reported


def test_joint_heads_and_single_heads_give_the_same_columns(workspace, synthetic_store, finished, tmp_path):
    _, cells = finished(joint_targets=True, folds=[0], seeds=[0])
    (cell,) = cells
    (track, *_) = join([workspace.read_exactly(cell.cell_id).predictions], ("arousal", "valence"))
    found = invent(cell, synthetic_store)
    np.testing.assert_array_equal(track.values, found.prediction[found.clip(track.clip)][:, ::-1])


def test_post_processing_is_that_of_the_training_clips(capsys, workspace, synthetic_store, finished, tmp_path):
    """Of the columns in a result, the one fitted on the reported labels is never applied."""
    fitted = {t: [{"kind": "smooth", "frames": 5}, {"kind": "clip", "low": -0.5, "high": 0.5}] for t in ABAW_TARGETS}
    oracle = {t: [{"kind": "centre", "offset": 99.0}] for t in ABAW_TARGETS}
    post = {"chain": {}, "columns": {"oracle": {"fitted": oracle}, "train": {"fitted": fitted}}}
    sweep, cells = finished(folds=[0], seeds=[0], result={"status": "done", "post": post})
    run("export", sweep, "--out", tmp_path / "abaw", "--post", "--workspace", workspace.root)
    back = read_abaw(tmp_path / "abaw" / JOINT_FILE)
    for t, cell in enumerate(cells):
        raw = invent(cell, synthetic_store)
        for clip in raw.clips:
            x = raw.prediction[raw.clip(clip), 0].astype(np.float64)
            padded = np.pad(x, 2, mode="edge")
            expected = np.clip(np.convolve(padded, np.ones(5) / 5, "valid"), -0.5, 0.5)
            np.testing.assert_allclose(back[clip][1][:, t], expected, atol=1e-6)
    sweep, _ = finished(folds=[0], seeds=[1])
    out = ("--out", tmp_path / "abaw", "--workspace", workspace.root)
    assert "no chain of post-processing" in refused(capsys, "export", sweep, *out, "--post")


def test_results_leave_the_name_of_the_machine_at_home(workspace, finished, tmp_path):
    sweep, cells = finished(folds=[0], seeds=[0], result={"status": "done", "metrics": {}, "videos": {}})
    for cell in cells:
        env = {"machine": {"host": "secret-name", "cores": 4}}
        (workspace.paths.cell(cell.cell_id) / "env.json").write_text(json.dumps(env))
    run("export", sweep, "--format", "results", "--out", tmp_path / "theirs", "--workspace", workspace.root)
    for cell in cells:
        record = Workspace(tmp_path / "theirs").read_exactly(cell.cell_id)
        assert record.cell == cell
        assert record.env["machine"] == {"cores": 4}
        assert record.env["predictions_sha256"] == workspace.read_exactly(cell.cell_id).predictions.sha256
        assert not (record.path / "best.safetensors").exists()


def test_unclear_or_unfinished_exports_are_refused(capsys, workspace, finished, tmp_path):
    out = ("--out", tmp_path / "abaw", "--workspace", workspace.root)
    sweep, _ = finished(leave_out=(1,))
    assert "4 of 8 cells have no result" in refused(capsys, "export", sweep, *out)
    run("export", sweep, *out, "--seed", 0)
    other = workspace.paths.stores / "other-0123abcd"
    other.mkdir()
    (other / "manifest.json").touch()
    assert corpora_of(workspace) == {"other", "synthetic"}
    run("export", sweep, "--format", "csv", "--out", tmp_path / "several", "-w", workspace.root, "--seed", 0)
    assert [path.name for path in (tmp_path / "several").iterdir()] == ["predictions-synthetic.csv"]
    shutil.rmtree(other)
    assert "--fold 3 is not in the sweep" in refused(capsys, "export", sweep, *out, "--fold", 3)
    assert "did you mean 'concat'" in refused(capsys, "export", sweep, *out, "--system", "concta")
    assert "did you mean 'abaw'" in refused(capsys, "export", sweep, *out, "--format", "abav")
    sweep, _ = finished(systems=["concat", {"rjca": {"iterations": [1, 2]}}])
    assert "2 systems: concat, rjca" in refused(capsys, "export", sweep, *out)
    assert "iterations is 1 or 2" in refused(capsys, "export", sweep, *out, "--system", "rjca")
    run("export", sweep, *out, "--system", "rjca", "--params", "iterations=2")
    sweep, _ = finished(targets=["valence"])
    assert "no cell of arousal" in refused(capsys, "export", sweep, *out)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_hold_every_prediction(workspace, synthetic_store, finished, tmp_path, kind):
    sweep, cells = finished(gaps=(7,))
    path = tmp_path / f"all.{kind}"
    run("export", sweep, "--format", kind, "--out", path, "--workspace", workspace.root)
    table = pd.read_parquet(path) if kind == "parquet" else pd.read_csv(path)
    assert len(table) == sum(len(invent(cell, synthetic_store).frame) for cell in cells)
    assert set(table["cell"]) == {cell.cell_id for cell in cells}
    assert not table["labelled"][table["frame"] == 7].any()
    assert table["label"][table["frame"] == 7].isna().all()
    one = table[(table["cell"] == cells[0].cell_id) & (table["frame"] != 7)]
    expected = invent(cells[0], synthetic_store, gaps=(7,))
    np.testing.assert_allclose(one["prediction"], expected.prediction[expected.frame != 7, 0], atol=1e-6)
    record = workspace.read_exactly(cells[0].cell_id)
    assert (
        tidy([(record.cell, record.predictions)])["clip"].tolist()
        == np.repeat(expected.clips, np.diff(expected.offsets)).tolist()
    )


def test_folds_go_out_and_come_in(capsys, tmp_path):
    """Written by one, changed by hand, used by another: the store has the folds of the file."""
    root, space, file = tmp_path / "data", tmp_path / "ws", tmp_path / "folds.json"
    write_synthetic(root, clips=9, frames=50)
    says = run("folds", "synthetic", "--root", root, "--out", file)
    assert "--folds" in says
    run("prepare", "synthetic", "--root", root, "--workspace", space)
    plain = FeatureStore(next((space / "stores").glob("synthetic-*")))
    assert read_fold_file(file, plain.clips) == (plain.folds, "grouped") == (make_folds(plain.clips), plain.fold_rule)
    assert "the same as its own" in run("folds", "synthetic", "--workspace", space, "--check", file)
    assert run("folds", "synthetic", "--workspace", space) == file.read_text()
    run("prepare", "synthetic", "--root", root, "--workspace", space, "--folds", file)
    assert [path.name for path in (space / "stores").glob("synthetic-*")] == [plain.path.name]

    data = json.loads(file.read_text())
    data["folds"] = data["folds"][:2]
    file.write_text(json.dumps(data))
    problem = refused(capsys, "prepare", "synthetic", "--root", root, "--workspace", space, "--folds", file)
    assert "not those of its sha256" in " ".join(problem.split())

    del data["sha256"], data["rule"]
    file.write_text(json.dumps(data | {"folds": [data["folds"][0] | {"train": data["folds"][0]["train"][1:]}]}))
    problem = refused(capsys, "prepare", "synthetic", "--root", root, "--workspace", space, "--folds", file)
    assert "are in no fold" in problem
    data["folds"] = [data["folds"][1] | {"index": 0}]
    file.write_text(json.dumps(data))
    run("prepare", "synthetic", "--root", root, "--workspace", space, "--folds", file)
    (mine,) = [path for path in (space / "stores").glob("synthetic-*") if path.name != plain.path.name]
    assert [(fold.train, fold.validation) for fold in FeatureStore(mine).folds] == [
        (plain.folds[1].train, plain.folds[1].validation)
    ]


def test_the_test_part_is_predicted_by_every_fold_and_seed(capsys, tmp_path):
    """Clips without labels go from the owners' list to a submission; reported clips are predicted as they were."""
    from crossfold.platform.core.outcome import Silent
    from crossfold.platform.execution.run_cell import run_cell
    from crossfold.platform.export.test_set import predict_clips

    clips = {f"t{number}": "Train_Set" for number in range(4)} | {"v0": "Validation_Set", "u0": "Train_Set"}
    root, space = write_corpus(tmp_path / "data", clips=clips), tmp_path / "ws"
    (next(root.glob("annotations/*/Train_Set")) / "u0.txt").unlink()
    (root / "Valence_Arousal_Estimation_Challenge_test_set_release.txt").write_text("u0\n")
    run("prepare", "affwild2", "--root", root, "--workspace", space, "--processes", 1)
    recipe = {"window": 20, "hop": 10, "epochs": 2}
    asked = ASKED | {"corpus": "affwild2", "set": recipe, "seeds": [0]}
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(json.dumps(asked))
    workspace = Workspace(space)
    store = FeatureStore(workspace.find_store("affwild2"))
    cells = expand(Sweep.parse(asked, "test"), store).cells
    for cell in cells:
        run_cell(cell, workspace, reporter=Silent(), attempt=1, device="cpu")
    predicted = [predict_clips(workspace.read_exactly(cell.cell_id), store, ["u0"]) for cell in cells]
    run("export", sweep, "--part", "test", "--out", tmp_path / "abaw", "--workspace", space)
    ((clip, (numbers, values)),) = read_abaw(tmp_path / "abaw" / JOINT_FILE).items()
    assert (clip, len(numbers)) == ("u0", 40)
    for t, target in enumerate(ABAW_TARGETS):
        each = [found.prediction[:, 0] for found in predicted if found.targets == (target,)]
        assert len(each) == 2
        np.testing.assert_allclose(values[:, t], np.mean(each, axis=0), atol=1e-6)
    record = workspace.read_exactly(cells[0].cell_id)
    again = predict_clips(record, store, record.predictions.clips)
    np.testing.assert_allclose(again.prediction, record.predictions.prediction, atol=1e-5)
    out = ("--out", tmp_path / "abaw", "--workspace", space)
    assert "give reported or test" in refused(capsys, "export", sweep, *out, "--part", "tset")


def test_a_corpus_without_a_test_part_says_so(capsys, workspace, finished, tmp_path):
    sweep, _ = finished()
    problem = refused(
        capsys, "export", sweep, "--part", "test", "--out", tmp_path / "abaw", "--workspace", workspace.root
    )
    assert "no clips of a test part" in problem


def test_names_in_tables_are_no_formulas_and_numbers_stay_numbers(tmp_path):
    names = ["=cmd()", "+1", "-a", "@x", " =1", "plain", "a=b"]
    table = pd.DataFrame({"clip": names, "prediction": np.linspace(-1, 1, 7)})
    write_table(tmp_path / "t.csv", table)
    read = pd.read_csv(tmp_path / "t.csv")
    assert read["clip"].tolist() == [f"'{name}" for name in names[:5]] + names[5:]
    np.testing.assert_array_equal(read["prediction"], table["prediction"])
    write_table(tmp_path / "t.parquet", table)
    assert pd.read_parquet(tmp_path / "t.parquet")["clip"].tolist() == names
