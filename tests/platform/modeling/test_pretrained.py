"""Pretrained weights: found, checked, loaded; and everything that can be wrong with a file, said in words."""

import hashlib
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from crossfold.fusion_models.backbones.catalogue import BACKBONES, Backbone
from crossfold.fusion_models.backbones.inputs import prepare_spectrogram
from crossfold.platform.core.errors import UserError
from crossfold.platform.modeling.pretrained import load_backbone, load_into, read_state
from crossfold.platform.modeling.pretrained_catalogue import WEIGHTS, Expected, Weights, register_weights, weights_entry
from crossfold.platform.modeling.pretrained_files import (
    digest_of,
    find_weights,
    record_use,
    weights_folder,
    weights_state,
)
from crossfold.platform.workspace.workspace import Workspace

PAGE = "https://example.org/tiny"


def build_tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4 * 2, 5))


TINY = Backbone(
    name="tiny",
    title="Tiny",
    source="made by a test",
    modality="audio",
    input="mel6x4",
    raw_shape=(6, 4),
    frame_shape=(1, 6, 4),
    width=5,
    build=build_tiny,
    preparation=prepare_spectrogram,
    groups=(("3.",), ("1.",), ("0.",)),
    weights="tiny",
    unused=("fc.",),
)


@pytest.fixture
def entry(monkeypatch):
    """Registers the weights of the tiny backbone for one test; with changes where asked."""

    def make(**changes):
        facts = Weights(name="tiny", title="Tiny", page=PAGE, licence="CC0", place="tiny.pth")
        monkeypatch.setitem(WEIGHTS, "tiny", replace(facts, **changes))
        return WEIGHTS["tiny"]

    make()
    return make


@pytest.fixture
def trained():
    """A tiny module whose numbers a fresh one does not have."""
    torch.manual_seed(7)
    module = build_tiny()
    module[1].running_mean.normal_()
    return module.eval()


def outputs(module):
    with torch.no_grad():
        return module.eval()(torch.linspace(-1, 1, 2 * 24).reshape(2, 1, 6, 4))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wrap(state, how):
    if how == "wrapped":
        return {"state_dict": state, "epoch": 3}
    prefix = {"plain": "", "module": "module.", "both": "module.backbone."}[how]
    return {prefix + name: value for name, value in state.items()} | ({"fc.weight": torch.ones(2, 2)} if prefix else {})


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        *((".pth", how) for how in ("plain", "wrapped", "module", "both")),
        (".safetensors", "plain"),
        (".safetensors", "both"),
    ],
)
def test_saved_found_loaded_and_equal(entry, trained, tmp_path, suffix, how):
    path = tmp_path / f"tiny{suffix}"
    content = wrap(trained.state_dict(), how)
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    entry(place=path.name, sha256=sha256(path))
    assert find_weights("tiny", tmp_path) == path
    fresh = build_tiny()
    assert not torch.equal(outputs(fresh), outputs(trained))
    used = load_backbone(TINY, fresh, tmp_path)
    assert torch.equal(outputs(fresh), outputs(trained))
    assert (used["name"], used["place"], used["sha256"]) == ("tiny", path.name, sha256(path))
    assert len(json.loads(json.dumps(used))["output"]) == 8


def test_a_backbone_without_weights_is_left_as_it_is(tmp_path):
    module = build_tiny()
    before = outputs(module)
    assert load_backbone(replace(TINY, weights=None), module, tmp_path) is None
    assert torch.equal(outputs(module), before)


@pytest.mark.parametrize("name", ["resnet18", "i3d"])
def test_a_whole_network_of_torchvision_loads_without_its_classifier(name, tmp_path, monkeypatch):
    from torchvision.models import googlenet, resnet18

    torch.manual_seed(1)
    backbone = BACKBONES.get(name)
    whole = resnet18(weights=None) if name == "resnet18" else googlenet(weights=None, init_weights=False)
    whole.eval()
    known = WEIGHTS[backbone.weights]
    path = tmp_path / known.place
    torch.save(whole.state_dict(), path)
    with pytest.raises(UserError, match=f"published is beginning with {known.sha256}"):
        find_weights(known.name, tmp_path)
    monkeypatch.setitem(WEIGHTS, known.name, replace(known, sha256=sha256(path)))
    module = backbone.build().eval()
    load_into(module, find_weights(known.name, tmp_path), adapt=backbone.adapt, unused=backbone.unused)
    picture = torch.randn(1, 1, 40, 40).expand(-1, 3, -1, -1)
    with torch.no_grad():
        if name == "resnet18":
            # Grey of three colours had thrice the response before batch norm.
            torch.testing.assert_close(module.conv1(picture[:, :1]) * 3, whole.conv1(picture), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(module.layer4[1].conv2.weight, whole.layer4[1].conv2.weight)
        else:
            still = module.conv1(picture.unsqueeze(2).expand(-1, -1, 9, -1, -1))
            torch.testing.assert_close(still[:, :, 2], whole.conv1(picture), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                module.inception5b.branch4[1].conv.weight[:, :, 0], whole.inception5b.branch4[1].conv.weight
            )


def test_missing_weights_name_the_file_the_place_and_the_page(entry, tmp_path):
    with pytest.raises(UserError) as error:
        find_weights("tiny", tmp_path / "nowhere")
    for words in (str(tmp_path / "nowhere" / "tiny.pth"), PAGE, "--weights", "CROSSFOLD_WEIGHTS"):
        assert words in str(error.value)
    (tmp_path / "tiny.pth").mkdir()
    with pytest.raises(UserError, match="a folder, not a file"):
        find_weights("tiny", tmp_path)


def test_another_file_is_told_with_both_digests(entry, trained, tmp_path):
    path = tmp_path / "tiny.pth"
    torch.save(trained.state_dict(), path)
    published = hashlib.sha256(b"the published file").hexdigest()
    entry(sha256=published)
    with pytest.raises(UserError) as error:
        load_backbone(TINY, build_tiny(), tmp_path)
    assert published in str(error.value)
    assert sha256(path) in str(error.value)
    entry(sha256=sha256(path)[:8])
    assert find_weights("tiny", tmp_path) == path, "the first digits of the right file"


def test_unknown_digests_are_recorded_on_first_use_and_compared(entry, trained, tmp_path):
    path = tmp_path / "tiny.pth"
    torch.save(trained.state_dict(), path)
    find_weights("tiny", tmp_path)
    record = tmp_path / "tiny.pth.seen.json"
    assert not record.exists(), "looking is no use"
    load_backbone(TINY, build_tiny(), tmp_path)
    assert json.loads(record.read_text())["sha256"] == sha256(path)
    load_backbone(TINY, build_tiny(), tmp_path)
    first = sha256(path)
    torch.save({name: value + 1 for name, value in trained.state_dict().items()}, path)
    with pytest.raises(UserError) as error:
        find_weights("tiny", tmp_path)
    assert first in str(error.value)
    assert sha256(path) in str(error.value)
    assert weights_state(WEIGHTS["tiny"], tmp_path)[0] == "damaged"
    record.unlink()
    load_backbone(TINY, build_tiny(), tmp_path)


def test_a_network_that_computes_something_else_is_noticed(entry, trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "tiny.pth")
    load_backbone(TINY, build_tiny(), tmp_path)

    def changed():
        module = build_tiny()
        module[1].eps = 0.1
        return module

    with pytest.raises(UserError, match=r"on first use \(.*\) it gave"):
        load_backbone(TINY, changed(), tmp_path)
    load_backbone(replace(TINY, revision=2), changed(), tmp_path)
    assert len(json.loads((tmp_path / "tiny.pth.seen.json").read_text())["outputs"]) == 2


def test_a_folder_that_may_not_be_written_needs_no_record(entry, trained, tmp_path, monkeypatch):
    torch.save(trained.state_dict(), tmp_path / "tiny.pth")

    def refuse(path, value):
        raise PermissionError(path)

    monkeypatch.setattr("crossfold.platform.modeling.pretrained_files.write_json", refuse)
    assert load_backbone(TINY, build_tiny(), tmp_path)["sha256"] == sha256(tmp_path / "tiny.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pth"]


def test_a_record_that_is_no_record_is_said(entry, trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "tiny.pth")
    for text in ("", "[]", '{"sha256": "a"}', '{"sha256": "a", "first_used": "b", "outputs": 3}'):
        (tmp_path / "tiny.pth.seen.json").write_text(text)
        with pytest.raises(UserError, match="not a record of weights"):
            find_weights("tiny", tmp_path)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "tiny.pth"
    torch.manual_seed(3)
    torch.save(build_tiny().state_dict(), path)
    return path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_was_cut_is_an_error_and_changes_nothing(whole_file, tmp_path, data):
    path = tmp_path / data.draw(st.sampled_from(["cut.pth", "cut.safetensors"]))
    path.write_bytes(whole_file[: data.draw(st.integers(0, len(whole_file) - 1))])
    module = build_tiny()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UserError, match=r"cut\."):
        load_into(module, path)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_any_bytes_are_an_error_in_words(tmp_path, junk):
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"junk{suffix}"
        path.write_bytes(junk)
        with pytest.raises(UserError, match="junk"):
            read_state(path)


class Mischief:
    """Runs when it is unpickled by a careless reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_file_that_holds_code_is_refused_and_runs_nothing(tmp_path, save):
    save({"0.weight": torch.ones(1), "more": Mischief(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(UserError) as error:
        read_state(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()
    assert "bad.pth" in str(error.value)


def test_code_is_named(tmp_path):
    torch.save({"net": build_tiny()}, tmp_path / "module.pth")
    with pytest.raises(UserError, match=r"holds code, not only weights: torch\.nn\.modules\.container\.Sequential"):
        read_state(tmp_path / "module.pth")


@pytest.mark.parametrize("content", [[], 3, {"a": 1}, {"state_dict": {}}, torch.ones(2)])
def test_what_is_no_state_dict_is_said(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state(tmp_path / "other.pth")


MISFITS = {
    "wrong prefix": (lambda s: {f"body.{k}": v for k, v in s.items()}, "8 of 9 tensors are missing (0.weight, 0.bias"),
    "one missing": (lambda s: {k: v for k, v in s.items() if k != "3.bias"}, "1 of 9 tensors are missing (3.bias)"),
    "one too many": (lambda s: {**s, "4.weight": torch.ones(1)}, "1 are unknown (4.weight)"),
    "wrong shape": (lambda s: {**s, "3.weight": torch.ones(5, 7)}, "3.weight is 5 x 7 in the file, 5 x 24 in the"),
    "another network": (lambda s: {"a": torch.ones(1)}, "8 of 9 tensors are missing"),
    "not finite": (lambda s: {**s, "3.bias": torch.full((5,), torch.nan)}, "3.bias has values that are not finite"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_weights_that_do_not_fit_are_described_and_change_nothing(entry, trained, tmp_path, misfit):
    spoil, said = MISFITS[misfit]
    torch.save(spoil(trained.state_dict()), tmp_path / "tiny.pth")
    module = build_tiny()
    before = outputs(module)
    with pytest.raises(UserError) as error:
        load_backbone(TINY, module, tmp_path)
    assert said in str(error.value)
    assert str(tmp_path / "tiny.pth") in str(error.value)
    assert torch.equal(outputs(module), before)
    assert not (tmp_path / "tiny.pth.seen.json").exists(), "a file that did not load is no first use"


def test_files_older_than_the_counters_of_batch_norm_load(trained, tmp_path):
    state = {k: v for k, v in trained.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    module = build_tiny()
    load_into(module, tmp_path / "old.pth")
    assert torch.equal(outputs(module), outputs(trained))


def test_the_modes_of_a_module_survive_its_fingerprint(entry, trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "tiny.pth")
    module = build_tiny().train()
    module[1].eval()
    load_backbone(TINY, module, tmp_path)
    assert [part.training for part in module.modules()] == [True, True, False, True, True]
    assert torch.equal(module[1].running_mean, trained[1].running_mean), "and the statistics did not move"


class Means(nn.Module):
    """Mean of an example, shifted: four outputs of which a ReLU keeps two."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return x.mean((1, 2, 3))[:, None] * torch.tensor([1.0, -1.0, 2.0, -2.0]) + self.shift


def test_what_the_publisher_says_comes_out_is_checked(entry, tmp_path):
    """The tone is three seconds of 1 kHz through VGGish's front end, recomputed here."""
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(48_000, dtype=torch.float64) / 16_000)
    spectrum = torch.stft(
        tone, 512, 160, 400, torch.hann_window(400, dtype=torch.float64), center=False, return_complex=True
    ).abs()
    # torch centres the window of 400 in its 512; the magnitudes of a steady tone are the same there.
    mel = 1127 * torch.log1p(torch.arange(257, dtype=torch.float64) * 16_000 / 512 / 700)
    edges = torch.linspace(*(1127 * float(np.log1p(hertz / 700)) for hertz in (125, 7500)), 66, dtype=torch.float64)
    step = float(edges[1] - edges[0])
    mels = (1 - (mel[:, None] - edges[1:-1]).abs() / step).clamp_min(0)
    columns = torch.log(spectrum.T @ mels + 0.01)
    level = float(columns[:288].mean())
    found = np.clip([level, -level, 2 * level, -2 * level], 0, None)
    right = Expected(probe="tone", relu=True, mean=found.mean(), std=found.std(), tolerance=0.005, source="a test")
    backbone = replace(
        TINY, raw_shape=(96, 64), frame_shape=(1, 96, 64), input="vggish", width=4, build=Means, groups=(("s",),) * 3
    )
    torch.save(Means().state_dict(), tmp_path / "tiny.pth")
    entry(expected=right)
    load_backbone(backbone, Means(), tmp_path)
    for wrong in (replace(right, mean=right.mean * 1.05), replace(right, std=right.std * 0.9)):
        entry(expected=wrong)
        with pytest.raises(UserError, match="1 kHz; a test says"):
            load_backbone(backbone, Means(), tmp_path)


def test_where_weights_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CROSSFOLD_WEIGHTS", raising=False)
    monkeypatch.setenv("CROSSFOLD_HOME", str(tmp_path / "home"))
    assert weights_folder() == tmp_path / "home" / "weights"
    assert weights_folder(None, Workspace(tmp_path / "work")) == tmp_path / "work" / "weights"
    monkeypatch.setenv("CROSSFOLD_WEIGHTS", str(tmp_path / "shared"))
    assert weights_folder(None, Workspace(tmp_path / "work")) == tmp_path / "shared"
    assert weights_folder(tmp_path / "given") == tmp_path / "given"


def test_folders_must_hold_their_files(tmp_path):
    with pytest.raises(UserError, match="bert-base-uncased is not there"):
        find_weights("bert-base-uncased", tmp_path)
    folder = tmp_path / "bert-base-uncased"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"lacks tokenizer\.json, model\.safetensors"):
        find_weights("bert-base-uncased", tmp_path)
    for name in WEIGHTS["bert-base-uncased"].holds:
        (folder / name).write_text("{}")
    assert find_weights("bert-base-uncased", tmp_path) == folder
    entry = WEIGHTS["bert-base-uncased"]
    before = digest_of(entry, folder)
    record_use(folder, "words", before, (0.0, 1.0))
    (folder / "model.safetensors").write_text("another model")
    with pytest.raises(UserError, match=before):
        find_weights("bert-base-uncased", tmp_path)


def test_torchvision_publishes_these_files_and_digests():
    from torchvision import models
    from torchvision.models import video

    published = {
        "googlenet-imagenet": models.GoogLeNet_Weights.IMAGENET1K_V1,
        "resnet18-imagenet": models.ResNet18_Weights.IMAGENET1K_V1,
        "r3d-18-kinetics400": video.R3D_18_Weights.KINETICS400_V1,
        "r2plus1d-18-kinetics400": video.R2Plus1D_18_Weights.KINETICS400_V1,
    }
    for name, facts in published.items():
        entry = WEIGHTS[name]
        assert facts.url.endswith(f"/{entry.place}")
        assert entry.place.endswith(f"-{entry.sha256}.pth"), "torch.hub: the first digits of SHA-256 end the name"
    assert {entry.name for entry in WEIGHTS.values() if entry.sha256} == set(published)


def test_a_wrong_name_and_a_name_that_is_taken():
    with pytest.raises(UserError, match="did you mean 'vggish-audioset'"):
        weights_entry("vggish-audiset")
    taken = WEIGHTS["vggish-audioset"]
    assert register_weights(taken) is taken
    with pytest.raises(UserError, match="registered twice"):
        register_weights(replace(taken, place="other.pth"))
    assert WEIGHTS["vggish-audioset"] is taken


def test_doctor_and_list_say_which_are_present(crossfold, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "vggish-10086976.pth").write_bytes(b"some file")
    (folder / "googlenet-1378be20.pth").write_bytes(b"not GoogLeNet")
    code, said, _ = crossfold("list", "weights", "--weights", folder, "--json")
    assert code == 0
    states = {row["name"]: row["state"] for row in json.loads(said)}
    assert states["vggish-audioset"] == "present"
    assert states["googlenet-imagenet"] == "damaged"
    assert states["r3d-18-kinetics400"] == "missing"
    code, said, _ = crossfold("doctor", "--workspace", tmp_path, "--json")
    assert code == 2, "damaged weights"
    rows = {row["check"]: row for row in json.loads(said)}
    assert rows["weights vggish-audioset"]["state"] == "ok"
    assert rows["weights r3d-18-kinetics400"]["state"] == "optional"
    assert str(folder / "r3d_18-b3b3357e.pth") in rows["weights r3d-18-kinetics400"]["found"]
    damaged = rows["weights googlenet-imagenet"]
    assert damaged["state"] == "damaged"
    assert sha256(folder / "googlenet-1378be20.pth") in damaged["found"]
    assert "docs.pytorch.org" in damaged["what to do"]


def test_list_backbones(crossfold):
    code, said, _ = crossfold("list", "backbones", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(said)}
    assert rows.keys() == set(BACKBONES)
    assert rows["vggish"]["weights"] == "vggish-audioset"
    assert rows["resnet50"]["features"] == 512
