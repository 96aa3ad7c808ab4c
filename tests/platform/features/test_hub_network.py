"""Networks of transformers as extractors: tiny ones, made here, against what the library itself computes."""

import json
import shutil
import socket

import numpy as np
import pytest
import torch

from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.features.extractors import Origin, find_extractor
from crossfold.platform.features.hub_network import HubNetwork, hub_facts, hub_network
from crossfold.platform.workspace.workspace import Workspace

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CONVOLUTIONS = {"conv_dim": (8, 8), "conv_kernel": (10, 40), "conv_stride": (5, 64), "num_feat_extract_layers": 2}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
PICTURE = {"image_size": 32, "patch_size": 16}
SOUND = ("wav2vec2", "hubert", "wavlm")
PICTURES = ("clip_vision_model", "clip", "dinov2", "vit", "videomae")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


def tiny(kind):
    """A model of a kind with random weights that depend on the kind alone."""
    torch.manual_seed(1)
    make = {
        "wav2vec2": lambda: transformers.Wav2Vec2Model(
            transformers.Wav2Vec2Config(**SMALL, **CONVOLUTIONS, **POSITIONS)
        ),
        "hubert": lambda: transformers.HubertModel(transformers.HubertConfig(**SMALL, **CONVOLUTIONS, **POSITIONS)),
        "wavlm": lambda: transformers.WavLMModel(transformers.WavLMConfig(**SMALL, **CONVOLUTIONS, **POSITIONS)),
        "clip_vision_model": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL, **PICTURE)),
        "clip": lambda: transformers.CLIPModel(
            transformers.CLIPConfig(
                vision_config={**SMALL, **PICTURE},
                text_config={**SMALL, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2},
            )
        ),
        "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, **PICTURE)),
        "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL, **PICTURE), add_pooling_layer=False),
        "videomae": lambda: transformers.VideoMAEModel(
            transformers.VideoMAEConfig(**SMALL, **PICTURE, num_frames=4, tubelet_size=2)
        ),
    }
    return make[kind]().eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of weights with a tiny network of each kind under its name."""
    folder = tmp_path_factory.mktemp("weights")
    for kind in (*SOUND, *PICTURES):
        tiny(kind).save_pretrained(folder / kind)
        facts = {"sampling_rate": 16_000, "do_normalize": True}
        if kind in PICTURES:
            facts = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD}
        (folder / kind / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("looked for the network"))
    hub_network.cache_clear()


def load(weights, kind, modality) -> HubNetwork:
    return hub_network(kind, modality, Origin(str(weights)), "cpu")


@pytest.mark.parametrize("kind", SOUND)
def test_a_frame_of_sound_is_the_mean_of_the_tokens_in_it(weights, kind):
    network = load(weights, kind, "audio")
    generator = np.random.default_rng(0)
    sound = generator.normal(scale=0.1, size=16_000).astype(np.float32)
    times, lengths = np.arange(25) / 25, np.full(25, 1 / 25)
    found = network.encode_sound(sound, times, lengths)
    values = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    with torch.inference_mode():
        tokens = tiny(kind)(input_values=torch.from_numpy(values)[None]).last_hidden_state[0].numpy()
    # A token every 320 samples sees 5 x 39 + 10 of them.
    middles = (np.arange(len(tokens)) * 320 + 205 / 2) / 16_000
    expected = [tokens[(middles >= t) & (middles < t + 1 / 25)].mean(axis=0) for t in times]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # Frames that are shorter than a token take the nearest one.
    short = network.encode_sound(sound, np.arange(100) / 100, np.full(100, 1 / 100))
    nearest = [tokens[np.abs(middles - (t + 0.005)).argmin()] for t in np.arange(100) / 100]
    np.testing.assert_allclose(short, nearest, rtol=1e-4, atol=1e-5)


def test_long_sound_is_read_in_stretches_that_give_every_token_once(weights):
    network = load(weights, "hubert", "audio")
    tokens, middles = network._tokens(np.random.default_rng(0).normal(size=16_000 * 45).astype(np.float32))
    np.testing.assert_allclose(np.diff(middles), 320 / 16_000, rtol=1e-9)
    assert middles[0] < 0.02 and middles[-1] > 44.97
    assert len(tokens) == (16_000 * 45 - 205) // 320 + 1


@pytest.mark.parametrize("samples", [0, 3, 204, 205])
def test_sound_of_a_few_samples_has_features_for_every_frame(weights, samples):
    found = load(weights, "wav2vec2", "audio").encode_sound(
        np.ones(samples, np.float32), np.arange(3) / 25, np.full(3, 1 / 25)
    )
    assert found.shape == (3, 16) and np.isfinite(found).all()


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_the_class_token_whatever_else_is_in_its_batch(weights, kind):
    network = load(weights, kind, "visual")
    assert network.side == 32
    shape = (4, 32, 32, 3) if kind == "videomae" else (32, 32, 3)
    raw = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    found = network.encode_pictures(raw)
    x = (torch.from_numpy(raw).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    model = tiny(kind)
    with torch.inference_mode():
        out = (model.vision_model if kind == "clip" else model)(pixel_values=x.movedim(-1, -3))
    expected = out.pooler_output if kind.startswith("clip") else out.last_hidden_state[:, 0]
    if kind == "videomae":
        expected = out.last_hidden_state.mean(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(network.encode_pictures(raw[:2]), found[:2])


@pytest.mark.parametrize(("audio", "visual"), [("hf:wavlm", "hf:dinov2"), ("hf:wav2vec2", "hf:videomae")])
def test_a_corpus_is_prepared_and_a_new_clip_has_the_same_features(crossfold, weights, tmp_path, audio, visual):
    from crossfold.platform.features.new_clips import NewClip, ReadingOptions

    data, space = tmp_path / "data", tmp_path / "work"
    write_puppets(data, clips=4, seconds=2.0)
    prepare = ("prepare", "puppets", "--root", data, "-w", space, "--audio", audio, "--visual", visual)
    code, out, err = crossfold(*prepare, "--weights", weights, "--processes", 1)
    assert code == 0, out + err
    store = FeatureStore(Workspace(space).find_store("puppets"))
    assert {m: store.features(m, 0).shape[1] for m in ("audio", "visual")} == {"audio": 16, "visual": 16}
    origin = store.manifest["origin"]
    assert origin["visual"]["network"] == visual.removeprefix("hf:")
    assert set(origin["audio"]["weights"]["sha256"]) == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    name = "puppet-01"
    both = shutil.copytree(data / "cropped_aligned" / name, tmp_path / "clip")
    shutil.copy(data / "audio" / f"{name}.wav", both)
    facts = {modality: dict(entry) for modality, entry in origin.items()}
    read = NewClip.read(both, facts, store.clips[0].fps, ReadingOptions(weights)).features({})
    rows = store.rows(name)
    np.testing.assert_array_equal(read.values["audio"], store.features("audio", 0)[rows])
    np.testing.assert_array_equal(read.values["visual"], store.features("visual", 0)[rows])


def test_a_model_in_the_cache_of_the_hub_is_found_by_its_id(weights, tmp_path, monkeypatch):
    import huggingface_hub

    snapshot = tmp_path / "models--lab--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(weights / "hubert", snapshot)
    (tmp_path / "models--lab--tiny" / "refs").mkdir()
    (tmp_path / "models--lab--tiny" / "refs" / "main").write_text("a" * 40)
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda source, *, local_files_only: real(source, local_files_only=local_files_only, cache_dir=tmp_path),
    )
    facts = hub_facts("lab/tiny", "audio", Origin(str(weights)), "cpu")
    same = hub_facts("hubert", "audio", Origin(str(weights)), "cpu")
    assert facts["weights"]["sha256"] == same["weights"]["sha256"]
    with pytest.raises(UserError, match="hf download lab/other"):
        hub_facts("lab/other", "audio", Origin(str(weights)), "cpu")


@pytest.mark.parametrize(
    ("change", "source", "said"),
    [
        (lambda folder: None, "../hubert", "is no name of a network"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "own", "preprocessor_config.json is not there"),
        (lambda folder: (folder / "config.json").write_text("["), "own", "config.json cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "own", "cannot be read as a network"),
        (
            lambda folder: shutil.copy(folder.parent / "clip" / "model.safetensors", folder / "model.safetensors"),
            "own",
            "weights of the network, such as",
        ),
        (lambda folder: None, "clip", "clip is a network of type clip"),
    ],
    ids=["path", "preprocessor", "config", "damaged", "other weights", "modality"],
)
def test_what_cannot_be_used_is_named_before_work(weights, tmp_path, change, source, said):
    copied = shutil.copytree(weights, tmp_path / "weights")
    shutil.copytree(copied / "hubert", copied / "own")
    change(copied / "own")
    with pytest.raises(UserError, match=said):
        hub_network(source, "audio", Origin(str(copied)), "cpu")


def test_words_have_no_network_of_the_hub():
    assert find_extractor("audio", "hf:any").hub == "any"
    with pytest.raises(UserError, match="no text extractor"):
        find_extractor("text", "hf:any")
