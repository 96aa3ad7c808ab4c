"""`crossfold rescore`, and the end of a run whose cells were finished under another chain."""

import json

import pytest
import yaml


@pytest.fixture
def sweep(tmp_path, workspace, tiny_cell):
    """Two finished cells without post-processing and stress, and the sweep file that names them."""
    from crossfold.platform.execution.run_cell import attempt_cell
    from crossfold.sweeps.plan import expand
    from crossfold.sweeps.sweep_files import load

    recipe = tiny_cell("concat").recipe.model_dump(mode="json", exclude={"name", "selection"})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "mine",
                "corpus": "synthetic",
                "recipe": str(tmp_path / "tiny.yaml"),
                "systems": ["concat"],
                "targets": ["valence", "arousal"],
                "seeds": [0],
            }
        )
    )
    from crossfold.datasets.store.feature_store import FeatureStore

    cells = expand(load(path), FeatureStore(workspace.find_store("synthetic"))).cells
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"
    return path


def test_rescore_writes_beside_and_only_once(crossfold, workspace, sweep):
    before = {path: path.read_bytes() for path in workspace.paths.cells.rglob("*.json")}
    code, said, _ = crossfold("rescore", sweep, "-w", workspace.root, "--post", "ca2021", "--stress", "quick", "--json")
    assert code == 0
    told = json.loads(said)
    assert (told["finished"], told["rescored"], told["failed"]) == (2, 2, 0)
    files = sorted(workspace.paths.rescored.glob("*/*.json"))
    assert {path.parent.name for path in files} == {told["evaluation"]}
    assert {path.stem for path in files} == workspace.finished()
    columns = json.loads(files[0].read_text())["post"]["columns"]
    assert columns.keys() == {"train", "oracle"}
    code, said, _ = crossfold("rescore", sweep, "-w", workspace.root, "--post", "ca2021", "--stress", "quick")
    assert (code, "0 scored now" in said) == (0, True)
    assert {path: path.read_bytes() for path in workspace.paths.cells.rglob("*.json")} == before


def test_a_chain_may_be_a_file(crossfold, workspace, sweep, tmp_path):
    chain = tmp_path / "chain.yaml"
    chain.write_text(yaml.safe_dump({"steps": [{"kind": "smooth", "frames": 5}]}))
    assert crossfold("rescore", sweep, "-w", workspace.root, "--post", chain)[0] == 0
    (path, _) = workspace.paths.rescored.glob("*/*.json")
    assert json.loads(path.read_text())["post"]["columns"].keys() == {"fixed"}


def test_doses_may_be_written_on_the_command_line(crossfold, workspace, sweep):
    assert crossfold("rescore", sweep, "-w", workspace.root, "--stress", "{doses: [0.5, 1], suite: quick}")[0] == 0
    (path, _) = workspace.paths.rescored.glob("*/*.json")
    found = [(each["kind"], each["modality"], each["strength"]) for each in json.loads(path.read_text())["stress"]]
    both = ("audio", "visual")
    assert found == [(kind, m, strength) for kind in ("missing", "noisy") for m in both for strength in (0.5, 1.0)]


def test_numbers_by_video_are_added_to_cells_of_a_version_that_kept_none(crossfold, workspace, sweep):
    """To the committed suite, and to one that the cells were rescored under."""

    def count(*options):
        code, said, error = crossfold("rescore", sweep, "-w", workspace.root, *options, "--json")
        assert code == 0, error
        return json.loads(said)["rescored"]

    def forget(path):
        found = json.loads(path.read_text())
        found["stress"] = [{k: v for k, v in one.items() if k != "left_out"} for one in found["stress"]]
        path.write_text(json.dumps(found))

    suite = ("--stress", "{doses: [0.5, 1], suite: quick}")
    assert (count(*suite), count(*suite, "--by-video")) == (2, 0)
    (path, _) = sorted(workspace.paths.rescored.glob("*/*.json"))
    whole = json.loads(path.read_text())
    forget(path)
    assert (count(*suite), count(*suite, "--by-video")) == (0, 1)
    assert json.loads(path.read_text()) == whole
    assert [len(of) for one in whole["stress"] for of in one["left_out"].values()] == [2] * 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--post", "ca2020"), "did you mean 'ca2021'?"),
        (("--stress", "defualt"), "did you mean 'default'?"),
        (("--post", "nowhere.yaml"), "cannot be read"),
        (("--stress", "{doses: [2]}"), "a share of the time, 0-1"),
    ],
)
def test_wrong_words_are_answered(crossfold, workspace, sweep, arguments, words):
    code, _, error = crossfold("rescore", sweep, "-w", workspace.root, *arguments)
    assert code == 2
    assert words in " ".join(error.split())
    assert not workspace.paths.rescored.exists()


def test_a_run_ends_with_what_its_recipe_wants_to_see(crossfold, workspace, sweep):
    """The cells are done; only the chain is new. Nothing trains."""
    code, said, error = crossfold("run", sweep, "-w", workspace.root, "--workers", "0", "--set", "post=dca2024")
    assert code == 0, error
    assert "nothing to run" in said
    files = list(workspace.paths.rescored.glob("*/*.json"))
    assert {path.stem for path in files} == workspace.finished()
    assert all("fixed" in json.loads(path.read_text())["post"]["columns"] for path in files)


def test_a_cell_that_cannot_be_rescored_is_named_and_stops_nothing(crossfold, workspace, sweep):
    first, second = sorted(workspace.finished())
    weights = [workspace.paths.cell(cell_id) / "best.safetensors" for cell_id in (first, second)]
    weights[0].write_bytes(weights[1].read_bytes())
    code, said, error = crossfold("rescore", sweep, "-w", workspace.root, "--stress", "quick")
    assert code == 1
    assert first in error
    assert "1 scored now, 1 failed" in said
    assert [path.stem for path in workspace.paths.rescored.glob("*/*.json")] == [second]
