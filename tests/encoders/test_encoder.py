"""The contract of encoders: errors, and the preprocessing that each encoder needs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from dqecir.data.images import Preprocessing
from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.encoder import (
    CAPABILITIES,
    ENCODERS,
    Encoder,
    EncoderSizes,
    encoder_named,
    register_encoder,
    unit,
)
from dqecir.encoders.licences import Origin
from dqecir.errors import CheckpointError, DataError
from dqecir.methods.method import all_methods
from dqecir.model.composed_model import FORMAT, WHOLE_FORMAT, ComposedModel, new_model
from dqecir.settings import Strict


class MeanColourConfig(Strict):
    size: int = 32


class MeanColour(Encoder):
    """An encoder of the mean colours of 16 cells and of the lengths of texts."""

    config_type = MeanColourConfig
    provides = frozenset({"tokens", "image", "text"})

    def __init__(self, config):
        super().__init__(config)
        self.sizes = EncoderSizes(image=config.size, token_count=16, token_width=3, embedding=3)
        self.tower = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(2))
        self.temperature = nn.Parameter(torch.tensor(0.05))

    def image_tokens(self, pixels):
        return self.tower(pixels).transpose(1, 2)

    def pooled_image(self, tokens):
        return tokens.mean(dim=1)

    def pooled_text(self, text):
        return text.mask.sum(dim=1, keepdim=True).float() * torch.tensor([1.0, 2.0, 3.0])


@pytest.fixture
def mean_colour(monkeypatch):
    monkeypatch.setattr("dqecir.encoders.encoder.ENCODERS", dict(ENCODERS))
    return register_encoder("mean_colour")(MeanColour)


@pytest.fixture
def simple(model, mean_colour) -> ComposedModel:
    encoder = mean_colour(MeanColourConfig())
    encoder.origin = Origin(source="somebody/colours@abc", licence="cc-by-nc-4.0")
    return new_model(encoder, model.text_encoder.tokenizer, model.preprocessing, None, 16, {}).eval()


def test_blip2_is_an_encoder_that_provides_everything(model):
    assert encoder_named("blip2") is Blip2
    assert Blip2.provides == frozenset(CAPABILITIES)
    assert isinstance(model.backbone, Encoder)
    for method in all_methods().values():
        assert method.requires <= Blip2.provides


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(DataError, match="no kind of encoder 'blib2'; did you mean 'blip2'"):
        encoder_named("blib2")


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("dqe", "text_states, composed and word_embeddings"),
        ("dqe_values", "text_states, composed and word_embeddings"),
        ("qure", "text_states and composed"),
        ("searle", "word_embeddings"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(simple, name, lacking):
    with pytest.raises(DataError) as caught:
        simple.with_method(name, {})
    sentence = str(caught.value)
    assert sentence.startswith(
        f"{name} needs {lacking}, which the encoder mean_colour (somebody/colours@abc) does not provide: "
        f"use {name} with blip2 or "
    )
    fitting = sentence.removesuffix(" with mean_colour").rsplit(" ", 1)[1]
    simple.with_method(fitting, {})


def test_methods_that_fit_run_over_another_encoder(simple):
    pictures = torch.rand(2, 3, 32, 32)
    tokens = simple.backbone.image_tokens(pictures)
    for name in ("image_plus_text", "clip4cir_sum", "clip4cir", "tirg"):
        method = simple.with_method(name, {}).eval().method
        query = method.embed_query(tokens, simple.text_encoder(["is red", "is very blue"]))
        assert query.embeddings.shape == (2, 1, 3)
        torch.testing.assert_close(method.embed_target(tokens), unit(tokens.mean(dim=1))[:, None])


def test_operations_that_an_encoder_lacks_say_so(mean_colour):
    with pytest.raises(DataError, match="the encoder mean_colour does not provide composed"):
        mean_colour(MeanColourConfig()).composed_states(torch.zeros(1, 16, 3), None, None)


def test_a_model_folder_names_its_encoder(simple, tmp_path):
    folder = simple.save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == FORMAT
    assert config["encoder"] == {
        "kind": "mean_colour",
        "source": "somebody/colours@abc",
        "licence": "cc-by-nc-4.0",
        "non_commercial": True,
    }
    again = ComposedModel.from_pretrained(folder)
    assert isinstance(again.backbone, MeanColour)
    assert again.backbone.origin == simple.backbone.origin
    assert again.fingerprint == simple.fingerprint
    assert again.target_fingerprint == simple.target_fingerprint


def test_a_model_folder_without_a_kind_of_encoder_is_blip2(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    assert "encoder" not in config
    assert config["format"] == WHOLE_FORMAT
    assert isinstance(ComposedModel.from_pretrained(folder).backbone, Blip2)


@pytest.mark.parametrize("said", [{}, [], {"kind": "nobodys"}, {"kind": "blip2", "sauce": ""}, "blip2"])
def test_a_folder_with_a_damaged_encoder_is_refused(model, tmp_path, said):
    folder = model.save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"encoder": said}))
    with pytest.raises((DataError, CheckpointError), match="encoder"):
        ComposedModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("cc-by-nc-4.0", True),
        ("apple-amlr", True),
        ("CC BY-NC-SA 4.0", True),
        ("apple-amlr (research only)", True),
        ("non-commercial", True),
        ("mit", False),
        ("apache-2.0", False),
        ("unknown: look it up", False),
        ("incognito", False),
    ],
)
def test_non_commercial_licences_are_marked(licence, forbids):
    assert Origin(licence=licence).non_commercial is forbids


SIZES = [(37, 61), (61, 37), (50, 50), (101, 64), (33, 200), (224, 31), (1, 7)]


def odd_picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("shorter", "crop", "number"), [(32, 32, 3), (37, 32, 3), (40, 33, 2), (32, 32, 1), (30, 48, 3)]
)
def test_shorter_side_and_centre_crop_are_those_of_transformers(size, shorter, crop, number):
    picture = odd_picture(*size)
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": shorter}, crop_size={"height": crop, "width": crop}, resample=number
    )
    filters = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
    ours = Preprocessing(size=crop, shorter_side=shorter, pad_ratio=None, resample=filters[number])
    expected = torch.from_numpy(np.array(theirs(picture, return_tensors="np")["pixel_values"][0]))
    torch.testing.assert_close(ours(picture), expected.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_a_squashed_picture_is_that_of_transformers(size):
    picture = odd_picture(*size)
    half = (0.5, 0.5, 0.5)
    theirs = SiglipImageProcessorPil(size={"height": 29, "width": 29}, resample=2)
    ours = Preprocessing(size=29, squash=True, resample="bilinear", mean=half, std=half)
    expected = torch.from_numpy(np.array(theirs(picture, return_tensors="np")["pixel_values"][0]))
    torch.testing.assert_close(ours(picture), expected.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(),
        Preprocessing(size=32, pad_ratio=None, shorter_side=40, resample="bilinear"),
        Preprocessing(squash=True, resample="lanczos"),
    ],
)
def test_preparation_outlives_its_file(preprocessing):
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


def test_preparation_that_was_there_before_keeps_its_name():
    """These settings are part of the names of stored tokens."""
    assert set(Preprocessing().to_dict()) == {
        "image_processor_type",
        "do_resize",
        "size",
        "resample",
        "do_normalize",
        "image_mean",
        "image_std",
        "do_rescale",
        "rescale_factor",
        "pad_ratio",
        "pad_colour",
    }


def test_a_long_strip_is_not_resized_whole():
    strip = Image.new("RGB", (60_000, 2), (200, 10, 10))
    made = Preprocessing(size=224, pad_ratio=None).picture(strip)
    assert made.size == (224, 224)
    assert made.getpixel((112, 112)) == (200, 10, 10)


def test_the_surface_of_a_cropped_picture_is_larger_than_the_square():
    assert Preprocessing(size=32, pad_ratio=None, shorter_side=40).seen(odd_picture(100, 50)) == (40, 80)
