"""Models of open_clip's own classes: equal results, and errors. They need the extra ``openclip``.

Where torchvision's compiled part does not load: ``PYTHONPATH=SITE:. python -m pytest`` with the folder SITE
of tests/golden/write_open_clip.py.
"""

# transformers imports torchvision, whose operators need their names before that.
# ruff: noqa: E402

import json
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.golden.write_open_clip import name_operators

if find_spec("open_clip") is None or find_spec("torchvision") is None:
    pytest.skip("the extra openclip is absent", allow_module_level=True)
name_operators()
try:
    import open_clip
    import timm
except Exception as error:
    pytest.skip(f"open_clip does not load: {error}", allow_module_level=True)

from dqecir.encoders.dual import Dual
from dqecir.encoders.known_encoders import known_encoders
from dqecir.encoders.open_clip import OpenClipParts
from dqecir.encoders.open_clip_folder import CONFIG
from dqecir.errors import CheckpointError
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import model_of
from dqecir.search.retriever import ComposedRetriever
from tests.encoders.dual_cases import TEXTS, gemma_tokenizer, pictures

SIDE = 64
CLIP_TEXT = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
MOBILE = {"timm_model_name": "fastvit_tiny_test", "timm_pool": "avg", "timm_proj": None, "image_size": SIDE}
PLAIN = {"image_size": SIDE, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2}
CONFIGS = {
    # As MobileCLIP 2: S0 to S4, and B.
    "mobileclip2_s": (MOBILE, {**CLIP_TEXT, "no_causal_mask": True}),
    "mobileclip2_b": (
        {**MOBILE, "timm_model_name": "vit_tiny_test_clip", "timm_pool": "token"},
        CLIP_TEXT,
    ),
    # A ResNet with a projection of its own, as in ConvNeXt-CLIP.
    "projected": ({**MOBILE, "timm_proj": "linear"}, CLIP_TEXT),
    # Settings of the text or of the tower that transformers' CLIP lacks.
    "clipa": (
        {**PLAIN, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        {**CLIP_TEXT, "pool_type": "last", "no_causal_mask": True},
    ),
    "resnet": ({"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}, CLIP_TEXT),
}
PREPARED = {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear", "resize_mode": "shortest"}


def fastvit_tiny_test(pretrained=False, **settings):
    from timm.models.fastvit import FastVit

    wanted = {key: settings[key] for key in ("num_classes", "global_pool") if key in settings}
    mixers = ("repmixer", "repmixer", "repmixer", "attention")
    sizes = {"layers": (1, 1, 1, 1), "embed_dims": (8, 16, 32, 64), "mlp_ratios": (2, 2, 2, 2)}
    model = FastVit(token_mixers=mixers, lkc_use_act=True, **sizes, **wanted)
    model.default_cfg = {"pool_size": (2, 2)}
    return model


def vit_tiny_test_clip(pretrained=False, **settings):
    from timm.models.vision_transformer import VisionTransformer

    wanted = {key: settings[key] for key in ("num_classes", "global_pool") if key in settings}
    return VisionTransformer(
        img_size=SIDE, patch_size=16, embed_dim=32, depth=2, num_heads=2, pre_norm=True, **wanted
    )


for entry in (fastvit_tiny_test, vit_tiny_test_clip):
    globals()[entry.__name__] = entry
    timm.models.register_model(entry)


def write(folder, vision, text, prepared=PREPARED):
    """Return a folder as the hub has it, with a small random model and without a tokenizer."""
    folder.mkdir()
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**json.loads(json.dumps(config)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(2.5 - weight if name == "logit_scale" else 0.2 * torch.randn_like(weight))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    said = {"model_cfg": {**config, "custom_text": True}, "preprocess_cfg": prepared}
    (folder / CONFIG).write_text(json.dumps(said))
    return folder


@pytest.fixture
def mobile(tmp_path):
    return write(tmp_path / "mobile", *CONFIGS["mobileclip2_s"])


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_vectors_are_those_of_open_clip_with_its_preprocessing_and_tokenizer(kind, tmp_path):
    folder = write(tmp_path / "o", *CONFIGS[kind])
    model = model_of(folder)
    assert isinstance(model.backbone, Dual)
    published, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    pixels = torch.stack([model.preprocessing(picture) for picture in pictures()])
    torch.testing.assert_close(pixels, torch.stack(list(map(prepare, pictures()))), atol=1e-5, rtol=0)
    tokens = model.backbone.image_tokens(pixels)
    sizes = model.backbone.sizes
    assert tokens.shape[1:] == (sizes.token_count, sizes.token_width)
    image, text = model.backbone.pooled_image(tokens), model.backbone.pooled_text(model.text_encoder(TEXTS))
    torch.testing.assert_close(image, published.eval().encode_image(pixels), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(text, published.encode_text(tokenize(TEXTS)), atol=1e-4, rtol=1e-4)
    assert image.shape == (3, sizes.embedding)
    assert float(model.backbone.logit_scale) == pytest.approx(float(published.logit_scale.exp()), rel=1e-5)


@torch.no_grad()
def test_tokens_are_the_map_that_the_vector_is_pooled_from(mobile):
    encoder = model_of(mobile).backbone
    tokens = encoder.image_tokens(torch.rand(2, 3, SIDE, SIDE))
    assert tokens.shape == (2, 4, 128)
    assert encoder.image_grid(tokens).shape == (2, 128, 2, 2)
    torch.testing.assert_close(encoder.pooled_image(tokens), encoder.pooled_image(tokens.flip(1)))


@torch.no_grad()
def test_text_states_and_word_embeddings(mobile):
    model = model_of(mobile)
    encoder, batch = model.backbone, model.text_encoder(["a photo of $ that is red", "$"])
    states = encoder.text_states(batch.ids, batch.mask)
    assert states.shape == (*batch.ids.shape, 32)
    ends = batch.mask.sum(dim=1) - 1
    pooled = states[torch.arange(2), ends] @ encoder.text.text.text_projection
    torch.testing.assert_close(pooled, encoder.pooled_text(batch), atol=1e-4, rtol=1e-4)
    placeholder = model.text_encoder.tokenizer.placeholder.id
    places = batch.ids == placeholder
    own = encoder.text.text.token_embedding.weight[placeholder].expand(2, -1)
    same = encoder.text_with_words(batch.ids, batch.mask, own, places)
    torch.testing.assert_close(same, encoder.pooled_text(batch), atol=1e-4, rtol=1e-4)
    other = encoder.text_with_words(batch.ids, batch.mask, own.flip(1), places)
    assert (other - same).abs().amax(dim=1).min() > 1e-2


@pytest.mark.parametrize("by_reference", [False, True])
def test_a_model_folder_opens_again(mobile, tmp_path, by_reference):
    model = model_of(mobile)
    again = ComposedModel.from_pretrained(
        model.save_pretrained(tmp_path / "m", tower_by_reference=by_reference)
    )
    assert (again.backbone.kind, again.fingerprint) == ("dual", model.fingerprint)
    assert again.preprocessing == model.preprocessing


def test_a_tokenizer_in_the_folder_is_used_with_its_padding(tmp_path):
    tokenizer = gemma_tokenizer()
    text = {
        **CLIP_TEXT,
        "vocab_size": len(tokenizer),
        "hf_tokenizer_name": "somebody/else",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "pool_type": "last",
        "no_causal_mask": True,
    }
    folder = write(tmp_path / "o", MOBILE, text)
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        model_of(folder)
    tokenizer.save_pretrained(folder)
    model = model_of(folder)
    published = open_clip.create_model(f"local-dir:{folder}").eval()
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.no_grad():
        found = model.backbone.pooled_text(model.text_encoder(TEXTS))
        torch.testing.assert_close(found, published.encode_text(ids), atol=1e-4, rtol=1e-4)


def test_an_index_is_built_and_searched(mobile, garments_folder, tmp_path, dqecir):
    index = tmp_path / "i"
    shop = garments_folder / "images"
    code, _, err = dqecir("index", "build", "--encoder", mobile, "--images", shop, "--out", index)
    assert code == 0, err
    picture = sorted(shop.iterdir())[0]
    code, out, err = dqecir("search", "--index", index, "--image", picture, "--text", "is red", "-k", 2)
    assert code == 0, err
    assert len(out.splitlines()) == 2
    assert ComposedRetriever.from_encoder(str(mobile), "dual_values").model.backbone.kind == "dual"


@pytest.mark.parametrize("name", [e.name for e in known_encoders().encoders if "MobileCLIP2" in e.name])
def test_a_published_mobileclip_2_has_these_parameters(name):
    [known] = [encoder for encoder in known_encoders().encoders if encoder.name == name]
    config = open_clip.get_model_config(name.split("/")[1].removesuffix("-OpenCLIP"))
    with torch.device("meta"):
        parts = OpenClipParts(config)
    weights = [*parts.tower.parameters(), *parts.text.parameters()]
    assert sum(weight.numel() for weight in weights) + 1 == known.parameters


def _config(folder, part, **changes):
    said = json.loads((folder / CONFIG).read_text())
    said["model_cfg"][part] |= changes
    (folder / CONFIG).write_text(json.dumps(said))


def _without(folder, key):
    state = load_file(folder / "open_clip_model.safetensors")
    del state[key]
    save_file(state, folder / "open_clip_model.safetensors")


@pytest.mark.parametrize(
    ("breaking", "sentence"),
    [
        (
            lambda f: _config(f, "vision_cfg", timm_model_name="hf-hub:evil/x"),
            "timm has no model hf-hub:evil/x",
        ),
        (lambda f: _config(f, "vision_cfg", timm_model_name="nothing"), "timm has no model nothing"),
        (lambda f: _config(f, "text_cfg", hf_model_name="evil/x"), "reads texts by evil/x, which open_clip"),
        (lambda f: _config(f, "text_cfg", colour=3), "describes no model of open_clip .*colour"),
        (lambda f: _config(f, "text_cfg", width=33), "describes no model of open_clip"),
        (lambda f: _config(f, "text_cfg", width=64), "does not fit this model"),
        (lambda f: _config(f, "vision_cfg", image_size=[64, 32]), "are not squares"),
        (lambda f: _config(f, "vision_cfg", timm_model_name=["x"]), "describes no model of open_clip"),
        (lambda f: _config(f, "text_cfg", context_length="long"), "settings that cannot be used"),
        (lambda f: _config(f, "text_cfg", context_length=-3), "settings that cannot be used"),
        (lambda f: _config(f, "text_cfg", tokenizer_mode="clips"), "settings of a tokenizer"),
        (
            lambda f: _config(f, "text_cfg", tokenizer_kwargs={"strip_sep_token": True}),
            "settings of a tokenizer",
        ),
        (lambda f: _without(f, "visual.trunk.head.fc.weight"), "visual.trunk.head.fc.weight"),
    ],
)
def test_a_broken_folder_is_one_sentence(mobile, breaking, sentence):
    breaking(mobile)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        model_of(mobile)
    assert "\n" not in str(caught.value)
