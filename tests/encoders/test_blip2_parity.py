"""The Q-Former and the towers agree with LAVIS on the same weights and inputs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dqecir.encoders.blip2 import BLIP2_VIT_L, Blip2, Blip2Config, unit
from dqecir.encoders.checkpoints import (
    clip_tower_state,
    eva_tower_state,
    lavis_state,
    load_lavis,
    load_strictly,
)
from dqecir.encoders.towers import TowerConfig, build_tower
from dqecir.errors import CheckpointError
from tests.methods.lavis_cases import relative

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def qformer_case(request):
    tensors = load_file(GOLDEN / "01_qformer_lavis.safetensors")
    config = Blip2Config(
        tower=TowerConfig(kind="clip", image_size=28, hidden_size=40, layers=1, heads=2, intermediate_size=8),
        hidden_size=48,
        layers=4,
        heads=4,
        intermediate_size=96,
        query_tokens=8,
        embedding_size=16,
        vocabulary_size=64,
        text_positions=64,
        dropout=0.0,
        attention=request.param,
    )
    model = Blip2(config).eval()
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    renamed = lavis_state({f"Qformer.{key}": value for key, value in state.items()}, "clip")
    for part in ("qformer", "embeddings"):
        prefix = f"{part}."
        own = {k.removeprefix(prefix): v for k, v in renamed.items() if k.startswith(prefix)}
        load_strictly(getattr(model, part), own)
    model.query_tokens.data.copy_(tensors["in/query_tokens"])
    model.ln_vision = torch.nn.Identity()  # the fixture feeds image features as they are
    model.ln_vision.weight = torch.zeros(1)
    return model, tensors


def test_queries_with_image(qformer_case):
    model, tensors = qformer_case
    states = model.image_states(tensors["in/image_features"])
    assert relative(states, tensors["out/a_queries_image.last_hidden_state"]) < 1e-4


def test_queries_and_text_with_image(qformer_case):
    model, tensors = qformer_case
    queries, text = model.composed_states(
        tensors["in/image_features"], tensors["in/input_ids"], tensors["in/text_mask"]
    )
    theirs = tensors["out/b_queries_text_image.last_hidden_state"]
    assert relative(queries, theirs[:, :8]) < 1e-4
    kept = tensors["in/text_mask"].bool()
    assert relative(text[kept], theirs[:, 8:][kept]) < 1e-4


def test_a_width_that_heads_cannot_share_is_refused():
    tower = TowerConfig(kind="stem", image_size=32, widths=(8, 16))
    with pytest.raises(ValueError, match="hidden_size 50 is not a multiple of 4 heads"):
        Blip2Config(tower=tower, hidden_size=50, heads=4)


def test_gradients_of_queries_and_text_with_image(qformer_case):
    model, tensors = qformer_case
    model.zero_grad()
    states = model.composed_states(
        tensors["in/image_features"], tensors["in/input_ids"], tensors["in/text_mask"]
    )
    (torch.cat(states, dim=1) * tensors["in/cotangent_b"]).sum().backward()
    parameters = dict(model.named_parameters())
    stored = [key for key in tensors if key.startswith("grad/b/")]
    assert len(stored) == 8
    for key in stored:
        name = next(iter(lavis_state({f"Qformer.{key.removeprefix('grad/b/')}": tensors[key]}, "clip")))
        assert relative(parameters[name].grad, tensors[key]) < 1e-3, name


def test_text_only(qformer_case):
    model, tensors = qformer_case
    states = model.text_states(tensors["in/input_ids"], tensors["in/text_mask"])
    kept = tensors["in/text_mask"].bool()
    assert relative(states[kept], tensors["out/c_text_only.last_hidden_state"][kept]) < 1e-4


@pytest.mark.parametrize(
    ("kind", "name", "rename", "sizes"),
    [
        ("clip", "clip_L_tiny", clip_tower_state, {"hidden_size": 32, "intermediate_size": 128}),
        ("eva", "eva_g_tiny", eva_tower_state, {"hidden_size": 40, "intermediate_size": 174}),
    ],
)
def test_towers(kind, name, rename, sizes):
    tensors = load_file(GOLDEN / "14_vit_trunks.safetensors")
    tower = build_tower(TowerConfig(kind=kind, image_size=42, layers=3, heads=4, **sizes)).eval()
    prefix = f"state_{name}/"
    state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    load_strictly(tower.vision_model, rename(state))
    tokens = tower(tensors["in/images"])
    assert relative(tokens, tensors[f"out/{name}"]) < 1e-4
    (tokens * tensors[f"in/cotangent_{name}"]).sum().backward()
    gradients = {
        key: parameter.grad
        for key, parameter in tower.vision_model.named_parameters()
        if parameter.requires_grad
    }
    stored = {
        key.removeprefix(f"grad/{name}/"): value
        for key, value in tensors.items()
        if key.startswith(f"grad/{name}/")
    }
    compared = 0
    for key, value in rename(stored).items():
        if key.endswith("k_proj.bias"):
            continue  # a key bias shifts all logits of a row alike: its gradient is nothing but rounding
        ours, theirs = (bias.clone() for bias in (gradients[key], value))
        if key.endswith("qkv.bias"):
            for bias in (ours, theirs):  # the middle third is the key's
                bias[len(bias) // 3 : -(len(bias) // 3)] = 0
        assert relative(ours, theirs) < 1e-3, key
        compared += 1
    assert compared >= 15


def test_qure_embeddings_and_scores_after_renaming():
    tensors = load_file(GOLDEN / "02_qure_model.safetensors")
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    tower = TowerConfig(kind="clip", image_size=28, hidden_size=40, layers=1, heads=2, intermediate_size=8)
    model = Blip2(
        Blip2Config(
            tower=tower,
            hidden_size=48,
            layers=4,
            heads=4,
            intermediate_size=96,
            vocabulary_size=64,
            text_positions=64,
            dropout=0.0,
        )
    ).eval()
    frozen = {f"tower.{key}": value for key, value in model.tower.state_dict().items()}
    load_strictly(model, lavis_state(state, "clip") | frozen)

    positive = model.target_embeddings(tensors["in/tar_vit_features"])
    assert relative(positive, tensors["out/target_token_features_normalised"]) < 1e-4
    states, _ = model.composed_states(
        tensors["in/ref_vit_features"], tensors["in/input_ids"], tensors["in/text_mask"]
    )
    query = unit(model.text_projection(states).mean(1))
    assert relative(query, tensors["out/query_features_normalised"]) < 1e-4
    scores = torch.einsum("bd,bkd->bk", query, positive).amax(1) / model.temperature
    assert relative(scores, tensors["out/temp.scores"][:, 0]) < 1e-4


def test_every_key_of_the_published_vit_l_has_a_place():
    lists = json.loads((GOLDEN / "15_state_dict_keys.json").read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in lists["qformer_and_heads"].items()}
    for key, shape in lists["vision"]["visual_encoder clip_L 224"].items():
        state[f"visual_encoder.{key}"] = torch.empty(shape, device="meta")
    with torch.device("meta"):
        model = Blip2(BLIP2_VIT_L)
    report = load_lavis(model, state)
    assert report.complete
    assert any(key.startswith("Qformer.cls.") for key in report.dropped)


def test_a_foreign_checkpoint_is_refused_by_name():
    with torch.device("meta"):
        model = Blip2(BLIP2_VIT_L)
    with pytest.raises(CheckpointError, match=r"missing.*unexpected"):
        load_lavis(model, {"Qformer.bert.wrong": torch.zeros(1), "visual_encoder.odd": torch.zeros(1)})
