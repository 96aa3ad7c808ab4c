"""A new clip is predicted from its files as the same clip is predicted out of a store, to the last bit."""

import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossfold.datasets.media.face_tracking import EARLIER_FACE_FRONT_END, WHOLE_FRAME, available
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.app import main
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.export.predictor import Predictor, write_deployment
from crossfold.platform.export.test_set import predict_clips
from crossfold.platform.features.extractors import face_constants
from crossfold.platform.features.new_clips import ReadingOptions, face_notes, faces_asked
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import tiny_cell
from tests.support.media import write_corpus, write_video, write_wav


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A corpus, its workspace, and finished cells of two folds; not to be changed."""
    place = tmp_path_factory.mktemp("lab")
    corpus, workspace = write_corpus(place / "data"), Workspace(place / "ws")
    store = FeatureStore(prepare(workspace, "affwild2", corpus, processes=1))
    cells = [tiny_cell(store, fold=fold, targets=("valence", "arousal"), invalid="mask") for fold in (0, 1)]
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"
    return corpus, workspace, store, [cell.cell_id for cell in cells]


@pytest.fixture
def clip(lab, tmp_path):
    """The crops and the sound of one clip of the corpus, in a folder of their own."""
    folder = Path(shutil.copytree(lab[0] / "cropped_aligned" / "dora", tmp_path / "dora"))
    shutil.copy(lab[0] / "audio" / "dora.wav", folder)
    return folder


def run(arguments):
    """Runs a command that succeeds."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0


def test_a_clip_gives_the_bits_that_it_gives_in_a_store(lab, clip, tmp_path):
    _, workspace, store, cells = lab
    record = workspace.read(cells[1])
    write_deployment(record, store, tmp_path / "out")
    for predictor in (Predictor.of(record, store), Predictor.load(tmp_path / "out")):
        read = predictor.read(clip)
        features = read.features({"visual": _encoder(predictor)})
        for modality in store.modalities:
            stored = store.features(modality, 1)[store.rows("dora")]
            np.testing.assert_array_equal(features.values[modality], stored)
            np.testing.assert_array_equal(features.present[modality], store.present(modality)[store.rows("dora")])
        said = predict_clips(record, store, ["dora"]).prediction
        np.testing.assert_array_equal(predictor.trace_of(read).values, said)


def _encoder(predictor):
    from crossfold.platform.features.fitted_encoders import fitted_of

    return fitted_of(predictor.front_end.fitted, "visual", predictor.cell.fold)


def test_features_of_the_store_give_the_same_trace(lab, clip, tmp_path):
    _, workspace, store, cells = lab
    predictor = Predictor.of(workspace.read(cells[0]), store)
    rows = store.rows("dora")
    np.savez(tmp_path / "dora.npz", **{m: np.asarray(store.features(m, 0)[rows]) for m in store.modalities})
    by_features = predictor.trace_of(predictor.read(tmp_path / "dora.npz")).values
    np.testing.assert_array_equal(by_features, predictor.trace_of(predictor.read(clip)).values)


def test_a_video_is_predicted_frame_by_frame_on_its_own_times(lab, tmp_path):
    _, workspace, store, cells = lab
    predictor = Predictor.of(workspace.read(cells[0]), store)
    write_video(tmp_path / "v.mp4", [40, 90] * 30, Fraction(25), np.zeros(2 * 48_000))
    read = predictor.read(tmp_path / "v.mp4", ReadingOptions(whole_frame=True))
    np.testing.assert_allclose(read.axis.times, np.arange(60) / 25, atol=1e-4)
    assert read.features({"visual": _encoder(predictor)}).present["visual"].all()
    assert predictor.trace_of(read).values.shape == (60, 2)


def test_a_video_without_a_face_names_the_way_out(lab, tmp_path):
    pytest.importorskip("dlib")
    _, workspace, store, cells = lab
    write_video(tmp_path / "v.mp4", [40] * 10)
    with pytest.raises(UserError, match="no face was found") as caught:
        Predictor.of(workspace.read(cells[0]), store).read(tmp_path / "v.mp4")
    assert "--whole-frame" in caught.value.remedy


def test_faces_are_found_as_those_of_the_corpus_were():
    def of(**facts):
        return {"visual": {"kind": "edges-grey-pca", "faces": facts}}

    now = face_constants(available() or "")
    assert faces_asked(of(**now), ReadingOptions()) == "find"
    earlier = {**EARLIER_FACE_FRONT_END, "dlib": available() or ""}
    assert faces_asked(of(**earlier), ReadingOptions()) == "find_in_each"
    assert faces_asked(of(**earlier), ReadingOptions(whole_frame=True)) == "whole"
    assert faces_asked(of(**WHOLE_FRAME), ReadingOptions()) == "whole"
    assert face_notes(of(**now), "find") == face_notes(of(**earlier), "find_in_each") == ()
    assert "here with" in face_notes(of(**now | {"dlib": "0"}), "find")[0]


def test_sound_alone_is_predicted_with_the_face_absent(lab):
    corpus, workspace, store, cells = lab
    predictor = Predictor.of(workspace.read(cells[0]), store)
    read = predictor.read(corpus / "audio" / "dora.wav")
    assert "holds no visual" in read.notes[0]
    assert np.isfinite(predictor.trace_of(read).values).all()


def test_a_front_end_of_another_version_is_refused(lab, clip, tmp_path):
    _, workspace, store, cells = lab
    write_deployment(workspace.read(cells[0]), store, tmp_path / "out")
    described = json.loads((tmp_path / "out" / "inputs.json").read_text())
    described["front_end"]["origin"]["audio"]["version"] = 0
    (tmp_path / "out" / "inputs.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="another version of logmel: version differ"):
        Predictor.load(tmp_path / "out").read(clip)


def test_a_store_that_kept_no_encoder_names_the_remedy(lab, clip, tmp_path):
    _, workspace, store, cells = lab
    write_deployment(workspace.read(cells[0]), store, tmp_path / "out")
    described = json.loads((tmp_path / "out" / "inputs.json").read_text())
    del described["sha256"]["fitted.safetensors"]
    (tmp_path / "out" / "inputs.json").write_text(json.dumps(described))
    predictor = Predictor.load(tmp_path / "out")
    with pytest.raises(UserError, match="does not hold the encoder") as caught:
        predictor.trace_of(predictor.read(clip))
    assert "crossfold prepare" in caught.value.remedy


@pytest.mark.parametrize("name", ["best.safetensors", "fitted.safetensors"])
def test_a_damaged_folder_is_refused(lab, tmp_path, name):
    _, workspace, store, cells = lab
    write_deployment(workspace.read(cells[0]), store, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="digest"):
        Predictor.load(tmp_path)


def test_the_command_averages_the_folds_of_a_system_and_writes_their_spread(lab, clip, tmp_path, capsys):
    _, workspace, store, cells = lab
    run(["predict", "rjca+dca", str(clip), "--out", str(tmp_path / "out"), "-w", str(workspace.root)])
    table = pd.read_csv(tmp_path / "out" / "dora.csv")
    said = np.stack([predict_clips(workspace.read(c), store, ["dora"]).prediction for c in cells])
    for t, target in enumerate(("valence", "arousal")):
        np.testing.assert_allclose(table[target], said[..., t].mean(0), rtol=1e-5)
        np.testing.assert_allclose(table[f"{target}_spread"], said[..., t].std(0, ddof=1), rtol=1e-4, atol=1e-7)
    page = (tmp_path / "out" / "dora.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    np.testing.assert_allclose(data["traces"][1]["mean"], table["arousal"], atol=1e-5)
    assert [len(gate["weight"]) for gate in data["gates"]] == [len(table)] * len(data["gates"])
    assert data["gates"]
    assert data["maps"]
    assert "2 folds, 1 seed\n" in capsys.readouterr().out


def test_an_exported_folder_predicts_without_ray_mlflow_and_optuna(lab, clip, tmp_path):
    _, workspace, store, cells = lab
    out = str(tmp_path / "model")
    run(["export", cells[0][:9], "--format", "predictor", "--out", out, "-w", str(workspace.root)])
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna'):\n    sys.modules[name] = None\n"
        "from crossfold.platform.edge.cli.app import main\nmain(sys.argv[1:])"
    )
    arguments = ["predict", out, str(clip), "--out", str(tmp_path / "said"), "--format", "parquet", "--no-page"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=tmp_path, capture_output=True)
    table = pd.read_parquet(tmp_path / "said" / "dora.parquet")
    said = predict_clips(workspace.read(cells[0]), store, ["dora"]).prediction
    np.testing.assert_array_equal(table["valence"].to_numpy(np.float32), said[:, 0])
    assert not (tmp_path / "said" / "dora.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rjca+dca", "nowhere.mp4"], "there is no nowhere.mp4"),
        (["rjca+dcb", "dora"], "no exported folder"),
        (["rjca+dca", "dora", "--corpus", "recola"], "no finished cell of rjca+dca on recola"),
        (["rjca+dca", "dora", "--rate", "0"], "--rate 0 is no rate"),
        (["rjca+dca", "dora", "--format", "cvs"], "--format cvs"),
        (["rjca+dca", "empty"], "empty holds neither face crops nor features"),
        (["rjca+dca", "short.wav"], "short.wav is shorter than a frame"),
    ],
)
def test_mistakes_are_answered_before_any_work(lab, clip, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(clip.parent)
    Path("empty").mkdir()
    write_wav(Path("short.wav"), np.zeros(100), 16_000)
    with pytest.raises(SystemExit) as ended:
        main(["predict", *arguments, "-w", str(lab[1].root)])
    assert ended.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (clip.parent / "predictions").exists()


def test_the_logged_model_and_the_python_interface_take_a_path(lab, clip, tmp_path):
    from mlflow import pyfunc

    import crossfold as cf
    from crossfold.platform.edge.tracking.pyfunc_model import write_model

    _, workspace, store, cells = lab
    said = predict_clips(workspace.read(cells[0]), store, ["dora"]).prediction
    write_model(workspace.read(cells[0]), store, tmp_path / "model")
    model = pyfunc.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(model.predict(str(clip)), said)
    np.testing.assert_array_equal(model.predict({"path": str(clip), "whole_frame": True}), said)
    with pytest.raises(UserError, match="unknown option 'whole'"):
        model.predict({"path": str(clip), "whole": True})
    frame = cf.load(cells[0], workspace.root).predict(clip)
    np.testing.assert_array_equal(frame.to_numpy(), said)
