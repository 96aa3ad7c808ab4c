"""Puppets in each layout: one corpus, written three ways, read by three readers, with the same numbers in the store."""

import csv
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.embedded.layouts import LAYOUTS
from crossfold.datasets.corpora.embedded.puppets import DEFAULT_LAYOUT, write_puppets
from crossfold.datasets.corpora.recola.labels import RATERS
from crossfold.datasets.corpora.registry import CORPORA, find_reader
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.app import app
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace

pytest.importorskip("av", reason="needs crossfold[media]")
pytest.importorskip("espeakng_loader", reason="needs crossfold[media]")

FRAMES = 50
SMALL = {"clips": 4, "seconds": FRAMES / 25, "seed": 1, "processes": 1}
NAMES = {"affwild2": "puppets", "recola": "puppets-recola", "manifest": "puppets-manifest"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same puppets in each layout; not to be written to."""
    folder = tmp_path_factory.mktemp("puppets")
    for layout in LAYOUTS:
        write_puppets(folder / layout, **SMALL, layout=layout)
    return {layout: folder / layout for layout in LAYOUTS}


@pytest.fixture(scope="module")
def stores(tmp_path_factory, roots):
    workspace = Workspace(tmp_path_factory.mktemp("ws"))
    return {layout: FeatureStore(prepare(workspace, "puppets", root, processes=1)) for layout, root in roots.items()}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_reader_finds_nothing_to_mend(roots, layout):
    inspection = CORPORA.get(layout).inspect(roots[layout], deep=True)
    assert [finding for finding in inspection.findings if finding.severity == "error"] == []
    assert inspection.corpus == NAMES[layout]
    truth = {row["clip"]: row for row in rows(roots[layout] / "truth/clips.csv")}
    assert {clip.info.name for clip in inspection.clips} == set(truth)
    for clip in inspection.clips:
        row = truth[clip.info.name]
        assert (clip.info.subject, clip.info.partition, clip.info.frames) == (row["subject"], row["partition"], FRAMES)
        assert clip.transcript.parent.name == "transcripts"
        assert clip.video.is_file()


def test_labels_say_what_the_annotators_meant(roots):
    for layout, root in roots.items():
        latents = np.load(root / "truth/latents.npz")
        for clip in CORPORA.get(layout).inspect(root, deep=False).clips:
            for column, target in enumerate(("valence", "arousal")):
                meant = latents[f"{clip.info.name}/label_{target}"]
                there = meant != UNLABELLED
                read = np.where(np.isnan(clip.labels[:, column]), UNLABELLED, clip.labels[:, column])
                np.testing.assert_array_equal(read != UNLABELLED, there)
                # Six raters err by less than they vary; all others write what they mean, with four digits.
                atol = 0.6 if layout == "recola" else 1e-4
                np.testing.assert_allclose(read[there], meant[there], atol=atol)


def test_names_and_files_are_those_of_recola(roots):
    root = roots["recola"]
    assert sorted(path.stem for path in (root / "recordings_video").iterdir()) == [
        "dev_1",
        "train_1",
        "train_2",
        "train_3",
    ]
    header = (root / "ratings_individual/arousal/train_1.csv").read_text().splitlines()[0]
    assert [name.strip() for name in header.split(";")] == ["time", *RATERS]
    lines = (root / "ratings_gold_standard/valence/train_1.arff").read_text().splitlines()
    # Real files have 7,501 ratings for 7,500 frames.
    assert len(lines) - lines.index("@data") - 2 == FRAMES + 1
    assert (root / "recordings_physio/dev_1.csv").is_file()


def test_media_do_not_depend_on_how_files_lie(roots):
    """Aff-Wild2's layout and the manifest's differ in labels only; so the stores hold the same features."""
    for part in ("videos", "audio", "transcripts", "cropped_aligned", "truth"):
        here, there = (
            {p.relative_to(r): p for p in (r / part).rglob("*") if p.is_file()}
            for r in (roots["affwild2"], roots["manifest"])
        )
        assert here.keys() == there.keys()
        assert all(here[name].read_bytes() == there[name].read_bytes() for name in here)


def test_prepare_puppets_takes_any_layout(stores):
    assert {layout: store.corpus for layout, store in stores.items()} == NAMES
    for store in stores.values():
        assert (store.frames, store.targets) == (4 * FRAMES, ("valence", "arousal"))
    one, other = stores["affwild2"], stores["manifest"]
    for name in ("puppet-01", "puppet-02", "puppet-03_left"):
        np.testing.assert_array_equal(one.labels[one.rows(name)], other.labels[other.rows(name)])
        np.testing.assert_array_equal(
            one.features("audio", 0)[one.rows(name)], other.features("audio", 0)[other.rows(name)]
        )
    assert "label_shift" in stores["recola"].manifest["origin"]


def test_embedded_data_never_pass_for_the_real(roots, tmp_path):
    with pytest.raises(UserError, match="holds puppets-recola, not recola") as error:
        prepare(Workspace(tmp_path), "recola", roots["recola"])
    assert "prepare puppets" in error.value.remedy
    with pytest.raises(UserError, match="holds puppets, not affwild2"):
        prepare(Workspace(tmp_path), "affwild2", roots["affwild2"])
    assert find_reader("puppets", roots["recola"]) is CORPORA.get("recola")
    assert find_reader("puppets", tmp_path) is CORPORA.get("puppets")


def test_the_default_layout_is_what_it_always_was(roots):
    assert DEFAULT_LAYOUT == "affwild2"
    note = json.loads((roots["affwild2"] / "puppets.json").read_text())
    assert note == {"version": 2, "seed": 1, "fps": 25.0, "clips": 4, "seconds": 2.0}
    assert json.loads((roots["recola"] / "puppets.json").read_text()) == {**note, "layout": "recola"}


def test_the_same_seed_gives_the_same_raters(roots, tmp_path):
    write_puppets(tmp_path / "again", **SMALL, layout="recola")
    for path in (roots["recola"] / "ratings_individual").rglob("*.csv"):
        assert (tmp_path / "again" / path.relative_to(roots["recola"])).read_bytes() == path.read_bytes()


def test_wrong_layouts_are_refused_before_any_work(roots, tmp_path):
    with pytest.raises(UserError, match="did you mean 'recola'"):
        write_puppets(tmp_path / "new", clips=4, layout="rekola")
    with pytest.raises(ValueError, match="25 labels per second"):
        write_puppets(tmp_path / "new", clips=4, fps=30.0, layout="recola")
    with pytest.raises(ValueError, match="layout="):
        write_puppets(roots["recola"], **SMALL, layout="manifest")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_says_where_to_go_on(roots, tmp_path):
    runner = CliRunner()
    folder = tmp_path / "out"
    shutil.copytree(roots["recola"], folder)
    made = runner.invoke(
        app, ["corpus", "puppets", "--layout", "recola", "--clips", "4", "--seconds", "2", "--seed", "1", str(folder)]
    )
    assert made.exit_code == 0, made.output
    assert f"prepare puppets --root {folder}" in made.output
    checked = runner.invoke(app, ["validate", "recola", "--root", str(folder), "--set", "label_shift=0.4", "--json"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["corpus"] == "puppets-recola"
