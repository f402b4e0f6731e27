"""The table of known encoders agrees with the code, the document and published sizes."""

import json

import pytest
import torch
import transformers
from benchmarks.speed.encoders import RANDOM
from benchmarks.write_encoder_speed import with_speed
from benchmarks.write_encoders import PAGE, written

from dqecir.encoders.blip2 import BLIP2_VIT_G, Blip2
from dqecir.encoders.dual import Dual, DualConfig, published_state
from dqecir.encoders.encoder import all_encoders
from dqecir.encoders.known_encoders import KnownEncoders, known_encoders, origin_of
from dqecir.encoders.tower import Tower
from dqecir.encoders.towers import TowerConfig
from dqecir.errors import DataError
from dqecir.model.composed_model import ComposedModel
from dqecir.settings import parse_settings

KNOWN = {encoder.name: encoder for encoder in known_encoders().encoders}

LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
HUGE = {**LARGE, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
HUGE_TEXT = {key: value for key, value in LARGE.items() if key != "patch_size"}
SO = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
CLIP, SIGLIP = transformers.CLIPConfig, transformers.SiglipConfig
B32, B16 = CLIP(), CLIP(vision_config={"patch_size": 16})
SO_VISION = {**SO, "image_size": 384, "patch_size": 14}
DUALS = {
    "openai/clip-vit-base-patch32": B32,
    "openai/clip-vit-base-patch16": B16,
    "openai/clip-vit-large-patch14": CLIP(text_config=LARGE_TEXT, vision_config=LARGE, projection_dim=768),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": B32,
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": CLIP(
        text_config=HUGE_TEXT, vision_config=HUGE, projection_dim=1024
    ),
    "facebook/metaclip-b32-fullcc2.5b": B32,
    "facebook/metaclip-b16-fullcc2.5b": B16,
    "patrickjohncyh/fashion-clip": B32,
    "OFA-Sys/chinese-clip-vit-base-patch16": transformers.ChineseCLIPConfig(
        text_config={"vocab_size": 21128}, vision_config={"patch_size": 16}
    ),
    "google/siglip-base-patch16-224": SIGLIP(),
    "Marqo/marqo-fashionSigLIP": SIGLIP(),
    "timm/ViT-B-16-SigLIP": SIGLIP(),
    "google/siglip-so400m-patch14-384": SIGLIP(
        text_config={**SO, "vocab_size": 32000}, vision_config=SO_VISION
    ),
    "google/siglip2-base-patch16-224": SIGLIP(text_config={"vocab_size": 256000}),
    "google/siglip2-so400m-patch14-384": SIGLIP(
        text_config={**SO, "vocab_size": 256000}, vision_config=SO_VISION
    ),
}


def dino(kind, width, layers, heads, **more):
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, **more}
    return transformers.CONFIG_MAPPING[kind](**sizes).to_dict()


V2 = {"image_size": 518, "patch_size": 14}
TOWERS = {
    "facebook/dinov2-small": dino("dinov2", 384, 12, 6, **V2),
    "facebook/dinov2-base": dino("dinov2", 768, 12, 12, **V2),
    "facebook/dinov2-large": dino("dinov2", 1024, 24, 16, **V2),
    "facebook/dinov2-with-registers-small": dino("dinov2_with_registers", 384, 12, 6, **V2),
    "facebook/dinov3-vits16-pretrain-lvd1689m": dino(
        "dinov3_vit", 384, 12, 6, intermediate_size=1536, num_register_tokens=4
    ),
    "facebook/dinov3-vitb16-pretrain-lvd1689m": dino(
        "dinov3_vit", 768, 12, 12, intermediate_size=3072, num_register_tokens=4
    ),
}

QWEN_TEXT = {
    "hidden_size": 2048,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 6144,
    "vocab_size": 151936,
    "head_dim": 128,
}
QWEN_VISION = {
    "depth": 24,
    "hidden_size": 1024,
    "num_heads": 16,
    "intermediate_size": 4096,
    "out_hidden_size": 2048,
    "deepstack_visual_indexes": [5, 11, 17],
    "patch_size": 16,
}
EMBEDDERS = {
    "Qwen/Qwen3-VL-Embedding-2B": transformers.Qwen3VLConfig(text_config=QWEN_TEXT, vision_config=QWEN_VISION)
}


@pytest.mark.parametrize("name", EMBEDDERS)
def test_a_published_embedder_has_these_parameters(name):
    with torch.device("meta"):
        published = transformers.AutoModel.from_config(EMBEDDERS[name])
    assert published.num_parameters() == KNOWN[name].parameters


@pytest.mark.parametrize("name", DUALS)
def test_a_published_dual_encoder_has_these_keys_and_parameters(name):
    with torch.device("meta"):
        published = transformers.AutoModel.from_config(DUALS[name])
        ours = Dual(DualConfig(architecture=DUALS[name].to_dict()))
    assert published.num_parameters() == KNOWN[name].parameters
    state, own = published_state(published.state_dict()), ours.state_dict()
    assert {key: value.shape for key, value in state.items()} == {k: v.shape for k, v in own.items()}


@pytest.mark.parametrize("name", TOWERS)
def test_a_published_tower_has_these_parameters(name):
    with torch.device("meta"):
        ours = Tower(TowerConfig(kind="transformers", image_size=224, architecture=TOWERS[name]))
    assert sum(weight.numel() for weight in ours.tower.parameters()) == KNOWN[name].parameters
    assert ours.sizes.token_width == TOWERS[name]["hidden_size"]


def test_blip2_and_the_shipped_model_have_these_parameters():
    with torch.device("meta"):
        published = Blip2(BLIP2_VIT_G)
    size = sum(weight.numel() for weight in published.parameters())
    assert size == KNOWN["Salesforce/blip2-itm-vit-g"].parameters
    shipped = sum(weight.numel() for weight in ComposedModel.from_pretrained().backbone.parameters())
    assert shipped == KNOWN["dqecir-small"].parameters


def test_shapes_of_all_that_say_so_are_checked_here():
    assert {name for name, known in KNOWN.items() if "shapes" in known.checked} == {
        *DUALS,
        *TOWERS,
        *EMBEDDERS,
        "Salesforce/blip2-itm-vit-g",
    }


def test_kinds_provide_what_their_classes_do():
    classes = all_encoders()
    for kind, said in known_encoders().kinds.items():
        assert set(said.provides) == classes[kind].provides, kind


def test_the_document_has_the_table():
    page = PAGE.read_text(encoding="utf-8")
    assert written(page, known_encoders()) == page, "run python -m benchmarks.write_encoders"


@pytest.mark.parametrize("name", RANDOM)
def test_the_speed_of_an_encoder_is_measured_at_its_published_size(name):
    with torch.device("meta"):
        encoder, preprocessing = RANDOM[name]()
    size = sum(weight.numel() for weight in encoder.parameters())
    # Towers have a temperature besides; SigLIP's bias is no parameter here.
    assert abs(size - KNOWN[name].parameters) <= 1
    assert preprocessing.size == encoder.sizes.image


def test_measured_speeds_are_put_into_the_document():
    page = PAGE.read_text(encoding="utf-8")
    machine = {"cpu": "x86_64", "cores": 2, "threads": 2, "torch": "2.13", "load": 1.0}
    rate, delay = ({"median": 12.345 * by, "least": 1.0, "most": 2000.0} for by in (1, 10))
    speeds = {"dqecir-small": {"pictures_per_second": rate, "milliseconds": delay}}
    found = {"machine": machine, "pictures": 9, "queries": 3, "rounds": 2, "encoders": speeds}
    new = with_speed(page, found)
    assert "| `dqecir-small` | 12.3 (1 to 2,000) | 123 (1 to 2,000) |" in new
    assert "2 cores, 2 threads" in new and new.count("<!-- speed: ") == 1
    assert written(new, known_encoders()) == new


def test_the_list_is_printed(dqecir):
    code, out, err = dqecir("encoders", "list")
    assert code == 0, err
    for encoder in KNOWN.values():
        [line] = [line for line in out.splitlines() if line.split()[:1] == [encoder.name]]
        assert encoder.how_checked in line
        assert ("(non-commercial)" in line) is encoder.non_commercial
    code, out, _ = dqecir("encoders", "list", "--json")
    listed = {one["name"]: one for one in json.loads(out)}
    assert listed["facebook/metaclip-b32-fullcc2.5b"]["non_commercial"]
    assert listed["facebook/dinov2-small"]["provides"] == ["tokens"]


def test_an_encoder_of_an_unknown_kind_is_refused():
    said = {"kinds": {}, "encoders": [KNOWN["dqecir-small"].model_dump()]}
    with pytest.raises(DataError, match="dqecir-small is of the kind blip2, which"):
        parse_settings(said, KnownEncoders, "the table")


@pytest.mark.parametrize("revision", ["", "@0123abc"])
def test_the_table_has_the_licence_that_a_readme_lacks(tmp_path, revision):
    assert origin_of(f"openai/clip-vit-base-patch32{revision}", tmp_path).licence == "mit"
    assert origin_of(f"nobody/clip{revision}", tmp_path).licence == "unknown: look it up"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert origin_of("openai/clip-vit-base-patch32", tmp_path).licence == "apache-2.0"
