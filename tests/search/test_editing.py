"""Edits by a tiny random pipeline: seeded, of the picture's shape, and errors for missing parts."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from dqecir.errors import DataError, EditError
from dqecir.search.editing import Editor, EditSettings

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'dqecir[edit]'")

QUICK = EditSettings(steps=2, side=64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a folder of InstructPix2Pix whose parts are tiny and random, its tokenizer of single letters."""
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerAncestralDiscreteScheduler,
        StableDiffusionInstructPix2PixPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("edit")
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    words = folder / "words"
    words.mkdir()
    (words / "vocab.json").write_text(json.dumps({name: place for place, name in enumerate(names)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(words, model_max_length=16)
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
    )
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=EulerAncestralDiscreteScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture(scope="module")
def editor(checkpoint) -> Editor:
    return Editor(checkpoint, QUICK)


@pytest.fixture
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (90, 60, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_an_edit_keeps_the_shape_and_follows_text_and_seed(editor, checkpoint, picture):
    assert editor.missing() is None
    edited = editor.edit(picture, "is red")
    assert (edited.size, edited.mode) == ((40, 64), "RGB")
    assert editor.edit(picture, "is red").tobytes() == edited.tobytes()
    assert editor.edit(picture, "is blue").tobytes() != edited.tobytes()
    other = Editor(checkpoint, QUICK.model_copy(update={"seed": 1}))
    assert other.edit(picture, "is red").tobytes() != edited.tobytes()
    turned = editor.edit(picture.transpose(Image.Transpose.ROTATE_90), "is red")
    assert turned.size == (64, 40)


def test_an_empty_text_is_refused(editor, picture):
    with pytest.raises(EditError, match="say what should change"):
        editor.edit(picture, " ")


def test_what_is_missing_is_said(checkpoint, tmp_path, picture, monkeypatch):
    assert "name its folder as the checkpoint" in Editor(None).missing()
    assert "has no model_index.json" in Editor(tmp_path / "nowhere").missing()
    with pytest.raises(DataError, match="InstructPix2Pix"):
        Editor(None).edit(picture, "is red")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "diffusers" else find_spec(name)
    )
    assert "pip install 'dqecir[edit]'" in Editor(checkpoint).missing()


def test_a_folder_that_is_no_editing_pipeline_is_refused(checkpoint, tmp_path, picture):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text("{")
    with pytest.raises(EditError, match="cannot be read as a pipeline"):
        Editor(broken, QUICK).edit(picture, "is red")
    index = json.loads((checkpoint / "model_index.json").read_text())
    text_alone = tmp_path / "text"
    text_alone.mkdir()
    for part in checkpoint.iterdir():
        if part.name not in ("model_index.json", "unet"):
            (text_alone / part.name).symlink_to(part)
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    unet.save_pretrained(text_alone / "unet")
    (text_alone / "model_index.json").write_text(
        json.dumps(index | {"_class_name": "StableDiffusionPipeline"})
    )
    with pytest.raises(EditError, match=r"StableDiffusionPipeline in .* takes no image"):
        Editor(text_alone, QUICK).edit(picture, "is red")


def test_weights_that_are_pickled_are_not_read(checkpoint, tmp_path, picture):
    import shutil

    import torch
    from safetensors.torch import load_file

    folder = shutil.copytree(checkpoint, tmp_path / "pickled")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(EditError, match="cannot be read as a pipeline"):
        Editor(folder, QUICK).edit(picture, "is red")


@pytest.mark.parametrize("wrong", [{"steps": 101}, {"guidance": 0.5}, {"side": 2048}, {"step": 3}])
def test_settings_are_bounded(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EditSettings(**wrong)


def test_a_picture_is_edited_from_the_command_line(dqecir, checkpoint, picture, tmp_path, monkeypatch):
    picture.save(tmp_path / "a.png")
    monkeypatch.setattr(
        "dqecir.search.editing.EditSettings", lambda seed: QUICK.model_copy(update={"seed": seed})
    )
    asked = ["edit", tmp_path / "a.png", "--text", "is red", "--out", tmp_path / "b.png"]
    code, out, _ = dqecir(*asked, "--checkpoint", checkpoint)
    assert (code, "40 x 64 pixels" in out) == (0, True)
    assert Image.open(tmp_path / "b.png").size == (40, 64)
    code, _, err = dqecir(*asked, "--checkpoint", tmp_path / "nowhere")
    assert (code, "not a folder of a diffusers pipeline" in err) == (1, True)
