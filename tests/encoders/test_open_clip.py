"""Checkpoints of open_clip in transformers' classes: equal results, and errors."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dqecir.encoders.dual import Dual
from dqecir.encoders.encoder import TextBatch
from dqecir.encoders.open_clip_folder import CONFIG, read_open_clip
from dqecir.errors import CheckpointError
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import model_of, read_model
from tests.encoders.dual_cases import clip_tokenizer, gemma_tokenizer
from tests.golden.write_open_clip import CONFIGS, pictures, texts, weight

GOLDEN = Path(__file__).parent.parent / "golden"
SHAPES = json.loads((GOLDEN / "20_open_clip.json").read_text())
PREPARED = {
    "clip": {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
    "siglip": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"},
}


def written(folder, kind, config=None, words=None):
    """Return a checkpoint as open_clip writes it; ``words`` is the size of its tokenizer."""
    folder.mkdir()
    config = json.loads(json.dumps(CONFIGS[kind] if config is None else config))
    shapes = dict(SHAPES[kind])
    prefix = "text." if kind == "siglip" else ""
    if words is not None:
        config["text_cfg"]["vocab_size"] = words
        shapes[f"{prefix}token_embedding.weight"] = [words, 64]
    state = {key: weight(key, shape) for key, shape in shapes.items()}
    save_file(state, folder / "open_clip_model.safetensors")
    said = {"model_cfg": config, "preprocess_cfg": PREPARED[kind]}
    (folder / CONFIG).write_text(json.dumps(said))
    return folder


def with_tokenizer(folder, kind):
    tokenizer = clip_tokenizer() if kind == "clip" else gemma_tokenizer(masked=True)
    written(folder, kind, words=len(tokenizer))
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", CONFIGS)
def test_vectors_are_those_of_open_clip(kind, tmp_path):
    from dqecir.encoders.checkpoints import load_strictly
    from dqecir.encoders.dual import DualConfig, published_state

    architecture, state, _ = read_open_clip(written(tmp_path / "o", kind))
    settings = {"pad_id": 1, "text_length": 12, "sees_padding": True, "pads_to_length": kind == "siglip"}
    encoder = Dual(DualConfig(architecture=architecture, **settings)).eval()
    assert load_strictly(encoder, published_state(state)).complete
    golden = load_file(GOLDEN / "20_open_clip.safetensors")
    ids, mask = texts(kind)
    with torch.no_grad():
        image = encoder.pooled_image(encoder.image_tokens(pictures()))
        text = encoder.pooled_text(TextBatch(ids, mask, torch.zeros(2, 0, ids.shape[1], dtype=torch.bool)))
    torch.testing.assert_close(image, golden[f"{kind}.image"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(text, golden[f"{kind}.text"], atol=1e-4, rtol=1e-4)
    assert float(encoder.logit_scale) == pytest.approx(torch.tensor(2.5).exp().item(), rel=1e-5)
    assert float(encoder.logit_bias) == (-3.0 if kind == "siglip" else 0.0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_checkpoint_becomes_a_model(kind, tmp_path):
    folder = with_tokenizer(tmp_path / "o", kind)
    model = model_of(folder)
    assert isinstance(model.backbone, Dual)
    assert model.method.name == "image_plus_text"
    said = model.preprocessing
    assert (list(said.mean), said.squash, said.pad_ratio) == (PREPARED[kind]["mean"], kind == "siglip", None)
    assert said.resample == PREPARED[kind]["interpolation"]
    found = model.backbone.pooled_text(model.text_encoder(["is red", "has short sleeves and is blue"]))
    assert found.isfinite().all() and found.shape == (2, CONFIGS[kind]["embed_dim"])
    again = ComposedModel.from_pretrained(model.save_pretrained(tmp_path / "m", tower_by_reference=True))
    assert again.target_fingerprint == model.target_fingerprint


def test_code_beside_the_weights_is_not_needed_and_not_run(tmp_path):
    folder = with_tokenizer(tmp_path / "o", "siglip")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "x", "auto_map": {"AutoModel": "evil.Evil"}})
    )
    (folder / "evil.py").write_text("raise SystemExit('code of a stranger ran')")
    assert isinstance(model_of(folder).backbone, Dual)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(said | {"auto_map": {"AutoTokenizer": "evil.Evil"}})
    )
    with pytest.raises(CheckpointError, match="needs code of its own"):
        model_of(folder)


def _other_tower(folder):
    said = json.loads((folder / CONFIG).read_text())
    said["model_cfg"]["vision_cfg"] = {"timm_model_name": "fastvit_mci0"}
    (folder / CONFIG).write_text(json.dumps(said))
    state = load_file(folder / "open_clip_model.safetensors")
    other = {key: value for key, value in state.items() if not key.startswith("visual.")}
    save_file(other | {"visual.trunk.stem.weight": torch.zeros(2)}, folder / "open_clip_model.safetensors")


def _config(folder, text):
    (folder / CONFIG).write_text(text)


def _settings(folder, part, **changes):
    said = json.loads((folder / CONFIG).read_text())
    said["model_cfg"][part] |= changes
    (folder / CONFIG).write_text(json.dumps(said))


def _prepared(folder, **changes):
    said = json.loads((folder / CONFIG).read_text())
    said["preprocess_cfg"] |= changes
    (folder / CONFIG).write_text(json.dumps(said))


def _without(folder, key):
    state = load_file(folder / "open_clip_model.safetensors")
    del state[key]
    save_file(state, folder / "open_clip_model.safetensors")


@pytest.mark.parametrize(
    ("breaking", "sentence"),
    [
        (lambda f: _config(f, "{"), "cannot be read"),
        (lambda f: _config(f, "{}"), "does not fit its weights"),
        (
            lambda f: _config(f, '{"model_cfg": {"vision_cfg": 3, "text_cfg": {}}}'),
            "does not fit its weights",
        ),
        (lambda f: _prepared(f, resize_mode="longest"), "the resize mode 'longest' is not supported"),
        (lambda f: _prepared(f, mean=[0.5]), "does not fit its weights"),
        (lambda f: _settings(f, "text_cfg", tokenizer_kwargs="abc"), "settings that cannot be used"),
        (lambda f: _settings(f, "text_cfg", tokenizer_kwargs={"clean": []}), "settings that cannot be used"),
        (lambda f: _settings(f, "text_cfg", tokenizer_kwargs={"strip_sep_token": 1}), "are not supported"),
        (lambda f: _without(f, "ln_final.weight"), "final_layer_norm"),
        (lambda f: _without(f, "visual.transformer.resblocks.0.mlp.c_fc.weight"), "c_fc"),
        (lambda f: (f / "open_clip_model.safetensors").write_bytes(b"x" * 50), "copy it again"),
        (lambda f: (f / "open_clip_model.safetensors").unlink(), "has no open_clip_model.safetensors"),
        (lambda f: (f / "tokenizer.json").unlink() or (f / "tokenizer_config.json").unlink(), "no tokenizer"),
    ],
)
def test_a_broken_folder_is_one_sentence(tmp_path, breaking, sentence):
    folder = with_tokenizer(tmp_path / "o", "clip")
    breaking(folder)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        model_of(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "breaking",
    [
        _other_tower,
        lambda f: _settings(f, "text_cfg", no_causal_mask=True),
        lambda f: _settings(f, "text_cfg", pool_type="eos"),
        lambda f: _settings(f, "vision_cfg", no_ln_pre=True),
        lambda f: _settings(f, "vision_cfg", pool_type="avg"),
    ],
)
def test_a_model_that_transformers_lacks_needs_the_extra(tmp_path, monkeypatch, breaking):
    folder = with_tokenizer(tmp_path / "o", "clip")
    breaking(folder)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(CheckpointError, match=r'no class: pip install "dqecir\[openclip\]"') as caught:
        model_of(folder)
    assert str(folder) in str(caught.value)


def test_settings_that_change_nothing_need_no_extra(tmp_path):
    folder = with_tokenizer(tmp_path / "o", "clip")
    _settings(folder, "vision_cfg", pool_type="tok", ls_init_value=None)
    _settings(folder, "text_cfg", pool_type="argmax", no_causal_mask=False)
    assert isinstance(model_of(folder).backbone, Dual)


def test_a_torchvision_that_does_not_load_is_one_sentence(tmp_path, monkeypatch):
    folder = with_tokenizer(tmp_path / "o", "clip")
    _other_tower(folder)
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "open_clip.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    with pytest.raises(
        CheckpointError, match=r"torchvision does not fit torch .*nms does not exist"
    ) as caught:
        model_of(folder)
    assert "\n" not in str(caught.value)


def test_texts_are_cleaned_as_in_the_training(tmp_path):
    folder = with_tokenizer(tmp_path / "o", "siglip")
    plain = model_of(folder).text_encoder(["is red and has stripes"]).ids
    _settings(folder, "text_cfg", tokenizer_kwargs={"clean": "canonicalize"})
    model = model_of(folder)
    assert model.text_encoder(["  Is RED, and_has\nstripes! "]).ids.tolist() == plain.tolist()
    again = ComposedModel.from_pretrained(model.save_pretrained(tmp_path / "m"))
    assert again.text_encoder(["Is RED, and has stripes!"]).ids.tolist() == plain.tolist()


def test_the_crop_is_that_of_open_clip(tmp_path):
    """A picture of 32 x 35 pixels is cut one pixel and a half from the left, which is rounded to two."""
    prepared = model_of(with_tokenizer(tmp_path / "o", "clip")).preprocessing
    columns = Image.fromarray(np.tile(np.arange(35, dtype=np.uint8)[None, :, None], (32, 1, 3)))
    assert np.asarray(prepared.picture(columns))[0, :, 0].tolist() == list(range(2, 34))
    assert type(prepared).from_dict(prepared.to_dict()) == prepared


def test_a_command_that_trains_reads_it_too(tmp_path):
    assert isinstance(read_model(str(with_tokenizer(tmp_path / "o", "clip"))).backbone, Dual)
