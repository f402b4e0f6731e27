"""Image towers of transformers: tokens and preprocessing equal those of its own classes; wrong folders are
rejected.
"""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from dqecir.encoders.dual import ARCHITECTURES
from dqecir.encoders.tower import Tower
from dqecir.encoders.tower_folder import read_tower
from dqecir.encoders.towers import TowerConfig
from dqecir.encoders.transformers_tower import VISION_MODELS
from dqecir.errors import CheckpointError, DataError
from dqecir.experiments.fit.steps import fit_catalogue
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import model_of
from dqecir.search.retriever import ComposedRetriever
from tests.encoders.dual_cases import SIDE, TEXT, VISION

OTHERS = {
    "dinov2": {"image_size": 48},  # its position table is resized
    "dinov2_with_registers": {"num_register_tokens": 3},
    "dinov3_vit": {"num_register_tokens": 2, "num_attention_heads": 3},
}
LEADING = {"dinov2_with_registers": 4, "dinov3_vit": 3, "siglip": 0, "siglip_vision_model": 0}
"""Tokens before the patches; 1 elsewhere."""


def published(kind):
    """Return a random model of transformers that differs everywhere from its initialisation."""
    torch.manual_seed(0)
    sizes = VISION | OTHERS.get(kind, {})
    if kind in ARCHITECTURES:
        config = transformers.CONFIG_MAPPING[kind](text_config=TEXT, vision_config=sizes)
    else:
        config = transformers.CONFIG_MAPPING[kind](**sizes)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def processor(kind):
    if "siglip" in kind or kind == "dinov3_vit":
        return SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=2)
    return BitImageProcessorPil(
        size={"shortest_edge": 37}, crop_size={"height": SIDE, "width": SIDE}, image_mean=[0.4, 0.5, 0.6]
    )


def write(folder, kind, safe=True):
    model = published(kind)
    model.save_pretrained(folder)
    if not safe:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    processor(kind).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return write(tmp_path_factory.mktemp("dino") / "dinov2", "dinov2")


@pytest.fixture
def broken(dino, tmp_path):
    """Return a copy for tests that damage it."""
    return shutil.copytree(dino, tmp_path / "broken")


def picture(width=61, height=45):
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("kind", [*VISION_MODELS, *ARCHITECTURES])
def test_tokens_are_those_of_transformers(tmp_path, kind, safe):
    folder = write(tmp_path / "m", kind, safe)
    read = read_tower(folder)
    tower = Tower(read.config)
    tower.tower.load_state_dict(read.state)
    tower.freeze_tower()
    theirs = published(kind)
    theirs = getattr(theirs, "vision_model", theirs)
    pixels = processor(kind)(picture(), return_tensors="pt")["pixel_values"]
    ours = read.preprocessing(picture())[None]
    torch.testing.assert_close(ours, pixels, rtol=0, atol=1e-4)
    with torch.no_grad():
        expected = theirs(pixel_values=pixels).last_hidden_state
    tokens = tower.image_tokens(ours)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-4)
    sizes = tower.sizes
    assert tokens.shape[1:] == (sizes.token_count, sizes.token_width) == (16 + LEADING.get(kind, 1), 24)
    grid = tower.image_grid(tokens)
    assert grid.shape == (1, 24, 4, 4)
    torch.testing.assert_close(grid[0, :, 1, 2], tokens[0, LEADING.get(kind, 1) + 6])


def test_registers_of_a_small_map_are_no_patches():
    """A class token and 4 registers do not turn a map of 2 x 2 patches into one of 3 x 3."""
    sizes = VISION | {"model_type": "dinov2_with_registers", "num_register_tokens": 4, "image_size": 16}
    tower = Tower(TowerConfig(kind="transformers", image_size=16, architecture=sizes))
    tokens = tower.eval().image_tokens(torch.rand(1, 3, 16, 16))
    assert tokens.shape == (1, 9, 24)
    torch.testing.assert_close(tower.image_grid(tokens)[0, :, 0, 1], tokens[0, 6])


def test_weights_in_several_files_and_other_names_are_read(broken):
    """Weights with the names of transformers 4, which are common on the hub, are read."""
    state = load_file(broken / "model.safetensors")
    renamed = {
        key.replace("attention.q_proj", "attention.attention.query")
        .replace("attention.k_proj", "attention.attention.key")
        .replace("attention.v_proj", "attention.attention.value")
        .replace("attention.o_proj", "attention.output.dense"): value
        for key, value in state.items()
    }
    whole = read_tower(broken).state
    (broken / "model.safetensors").unlink()
    names = sorted(renamed)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in files.items():
        save_file({key: renamed[key] for key in keys}, broken / file)
    index = {"weight_map": {key: file for file, keys in files.items() for key in keys}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    again = read_tower(broken).state
    assert set(again) == set(whole)
    for key, value in whole.items():
        assert torch.equal(again[key], value)


def test_a_tower_becomes_a_model_that_finds_what_looks_alike(dino, garments_folder, tmp_path):
    model = model_of(dino)
    assert isinstance(model.backbone, Tower)
    assert model.backbone.origin.licence == "apache-2.0"
    pictures = sorted((garments_folder / "images").iterdir())[:12]
    retriever = ComposedRetriever(model)
    retriever.build_index(pictures, tmp_path / "index", quiet=True)
    found = retriever.search(pictures[3], "is red and nothing else", k=12, explain=True)
    assert len(found.results) == 11  # the reference itself is left out
    assert found.reading.unread == ("red",)
    whole = retriever.encode_images(pictures)[:, 0]
    [query] = retriever.encode_query([pictures[3]], ["is red"])
    torch.testing.assert_close(query[0], whole[3])
    folder = model.save_pretrained(tmp_path / "m")
    again = ComposedModel.from_pretrained(folder)
    assert again.fingerprint == model.fingerprint
    named = ComposedModel.from_pretrained(model.save_pretrained(tmp_path / "n", tower_by_reference=True))
    assert named.target_fingerprint == model.target_fingerprint
    assert (tmp_path / "n" / "model.safetensors").stat().st_size < 1000


def test_a_method_that_needs_more_than_tokens_is_refused(dino):
    with pytest.raises(DataError) as caught:
        model_of(dino).with_method("tirg", {})
    assert str(caught.value) == (
        f"tirg needs image and text, which the encoder tower ({dino}) does not provide: use tirg with blip2 "
        "or predicted_attributes with tower"
    )


def test_a_catalogue_is_fitted_to_a_tower_by_its_heads(dino, garments_folder, tmp_path):
    model = model_of(dino).save_pretrained(tmp_path / "m")
    rows = fit_catalogue(garments_folder, tmp_path / "fit", model, quiet=True)
    # The fitted model is predicted attributes, and the one before the mean of tokens: each stands once.
    assert set(rows) == {"the fitted model", "the model before"}
    fitted = ComposedModel.from_pretrained(tmp_path / "fit" / "model")
    assert fitted.method.name == "predicted_attributes"
    assert isinstance(fitted.backbone, Tower)
    retriever = ComposedRetriever(fitted).open_index(tmp_path / "fit" / "index")
    picture = next((garments_folder / "images").iterdir())
    colour = next(value for value in fitted.heads.config.columns["color"] if value)
    response = retriever.search(picture, f"has a {colour} color, costs a fortune", k=5)
    assert len(response.results) == 5
    assert response.reading.sentence() == f"Read as color: {colour}. Without effect: costs, fortune."


def test_heads_read_the_tokens_of_a_tower(dino):
    tower = model_of(dino).backbone
    heads = AttributeHeads(HeadsConfig(token_width=tower.sizes.token_width, columns={"c": ("a", "b")}))
    assert heads(tower.image_tokens(torch.rand(2, 3, SIDE, SIDE)))["c"].shape == (2, 2)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def _no_config(folder):
    (folder / "config.json").unlink()


def _wrong_shapes(folder):
    state = load_file(folder / "model.safetensors")
    save_file(state | {"layernorm.weight": torch.zeros(7)}, folder / "model.safetensors")


def _left_over(folder):
    save_file(load_file(folder / "model.safetensors") | {"x": torch.zeros(1)}, folder / "model.safetensors")


def _missing(folder):
    state = load_file(folder / "model.safetensors")
    del state["layernorm.bias"]
    save_file(state, folder / "model.safetensors")


def _pickle_with_code(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))


def _half_a_download(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def _no_weights(folder):
    (folder / "model.safetensors").unlink()


def _no_preparation(folder):
    (folder / "preprocessor_config.json").unlink()


def _config_says(**settings):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))

    return change


def _prepared_by(**settings):
    def change(folder):
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


HOSTILE = [
    (_no_config, "has no config.json"),
    (_wrong_shapes, r"mismatched: layernorm.weight \[7\] where \[24\] is needed"),
    (_left_over, "1 unexpected: x"),
    (_missing, "1 missing: layernorm.bias"),
    (_pickle_with_code, "could run code"),
    (_half_a_download, "copy it again"),
    (_no_weights, "has no weights"),
    (_no_preparation, "has no preprocessor_config.json"),
    (_config_says(auto_map={"AutoModel": "modeling_evil.Evil"}), "needs code of its own"),
    (_prepared_by(auto_map={"AutoImageProcessor": "processing_evil.Evil"}), "needs code of its own"),
    (_config_says(model_type="siglip2"), "'siglip2' is not supported"),
    (_config_says(hidden_size="wide"), "describes no dinov2 that can be built"),
    (_config_says(num_attention_heads=5), "do not fit their config.json"),
    (_config_says(image_size=[48, 32]), r"the image_size \[48, 32\], but only squares are supported"),
    (_config_says(patch_size=[8]), r"the patch_size \[8\], but only squares are supported"),
    (_config_says(patch_size=64), "do not fit their config.json"),
    (_config_says(hidden_size=30), "describes no dinov2 that can be built|do not fit their config.json"),
    (_prepared_by(crop_size={"height": 32, "width": 40}), "preprocessing that is not supported"),
    (_prepared_by(image_std=[0, 0, 0]), "invalid image_mean, image_std or resample"),
]


@pytest.mark.parametrize(("breaks", "sentence"), HOSTILE)
def test_a_folder_that_is_no_tower_is_refused_in_one_sentence(broken, breaks, sentence):
    breaks(broken)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        read_tower(broken)
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["clip_vision_model", "siglip", "dinov2"])
def test_sizes_may_be_pairs(tmp_path, kind):
    folder = write(tmp_path / "tower", kind)
    plain = read_tower(folder).config
    said = json.loads((folder / "config.json").read_text())
    sizes = said.get("vision_config", said)
    sizes |= {name: [sizes[name]] * 2 for name in ("image_size", "patch_size")}
    (folder / "config.json").write_text(json.dumps(said))
    paired = read_tower(folder).config
    assert (paired.image_size, paired.grid_side) == (plain.image_size, plain.grid_side)
    sizes["image_size"] = [SIDE, SIDE + 8]
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=rf"the image_size \[{SIDE}, {SIDE + 8}\], but only squares"):
        read_tower(folder)


def test_a_size_that_is_no_number_is_refused_in_one_sentence(tmp_path):
    folder = write(tmp_path / "tower", "clip_vision_model")
    _config_says(image_size=None)(folder)
    with pytest.raises(CheckpointError, match="has the image_size None, but one number of pixels is needed"):
        read_tower(folder)


def test_an_index_of_a_tower_needs_no_method(dqecir, dino, garments_folder, tmp_path):
    code, _, err = dqecir(
        *("index", "build", "--encoder", dino, "--images", garments_folder / "images"),
        *("--out", tmp_path / "index"),
    )
    assert code == 0, err
    picture = sorted((garments_folder / "images").iterdir())[0]
    code, out, err = dqecir("search", "--index", tmp_path / "index", "--image", picture, "--text", "is red")
    assert code == 0, err
    assert "Without effect: red" in out


def test_a_config_written_by_another_version_gives_the_same_index_its_name(dino, broken):
    said = json.loads((broken / "config.json").read_text())
    said |= {"transformers_version": "4.1.0", "torch_dtype": "float32", "_name_or_path": "somewhere/else"}
    (broken / "config.json").write_text(json.dumps(said))
    same = model_of(broken).target_fingerprint
    assert same == model_of(dino).target_fingerprint
    (broken / "config.json").write_text(json.dumps(said | {"layer_norm_eps": 0.1}))
    assert model_of(broken).target_fingerprint != same
