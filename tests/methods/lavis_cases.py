"""Tiny weights of published methods with whole backbones, with a tower under its published names."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from dqecir.encoders.blip2 import Blip2, Blip2Config, TextBatch
from dqecir.encoders.checkpoints import lavis_state
from dqecir.encoders.towers import TowerConfig
from dqecir.model.composed_model import ComposedModel
from dqecir.settings import parse_settings
from dqecir.training.build import trainer_for
from dqecir.training.recipe import Recipe

GOLDEN = Path(__file__).parent.parent / "golden"


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def part(tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def tiny_backbone(embedding_size: int) -> Blip2:
    """Return the sizes of the cases; the tower is the tiny EVA of the towers' own case, of the same width."""
    tower = TowerConfig(kind="eva", image_size=42, hidden_size=40, layers=3, heads=4, intermediate_size=174)
    sizes = {"hidden_size": 48, "layers": 4, "heads": 4, "intermediate_size": 96, "text_positions": 64}
    config = Blip2Config(tower=tower, embedding_size=embedding_size, vocabulary_size=64, dropout=0.0, **sizes)
    return Blip2(config)


def published_case(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return (all tensors of the case, the whole state dict under the published names)."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    tower = part(load_file(GOLDEN / "14_vit_trunks.safetensors"), "state_eva_g_tiny/")
    return tensors, part(tensors, "state/") | {f"visual_encoder.{k}": v for k, v in tower.items()}


def text_of(tensors) -> TextBatch:
    ids = tensors["in/input_ids"]
    return TextBatch(ids, tensors["in/text_mask"], torch.zeros(len(ids), 0, ids.shape[1], dtype=torch.bool))


def our_name(key: str) -> str:
    """Return the parameter's name in dqecir for a published name."""
    if key == "prompt_tokens":
        return key
    return f"backbone.{next(iter(lavis_state({key: torch.zeros(1)}, 'eva')))}"


def compare_gradients(method: torch.nn.Module, stored: dict[str, torch.Tensor]) -> None:
    """Compare every stored gradient with ours; gradients without a parameter of ours must be zero."""
    parameters = dict(method.named_parameters())
    for key, value in stored.items():
        gradient = parameters[our_name(key)].grad
        if not value.any():
            assert gradient is None or not gradient.any(), key
        else:
            assert gradient is not None, key
            assert relative(gradient, value) < 1e-3, key


def published_shapes() -> dict[str, torch.Tensor]:
    """Return the state dict of the published ViT-L size, without memory."""
    lists = json.loads((GOLDEN / "15_state_dict_keys.json").read_text())
    shapes = lists["qformer_and_heads"] | {
        f"visual_encoder.{key}": shape for key, shape in lists["vision"]["visual_encoder clip_L 224"].items()
    }
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def trained_and_read(data: Path, model: Path, folder: Path, **settings) -> None:
    """Train six steps, and check that the model folder embeds as the trained model does."""
    training = {"steps": 6, "batch_size": 16, "precision": "fp32", "evaluate_every": 100}
    recipe = parse_settings(
        {"triplets": {"per_reference": 1}, "training": training, **settings}, Recipe, "recipe"
    )
    before = ComposedModel.from_pretrained(model).backbone.text_projection.weight
    trainer = trainer_for(recipe, [data], model, folder / "run", folder / "tokens", True)
    trainer.fit()
    ours, read = trainer.model.eval(), ComposedModel.from_pretrained(folder / "run" / "last")
    assert not torch.equal(ours.backbone.text_projection.weight, before)
    tokens = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
    text = read.text_encoder(["is red", "has short sleeves", "is the same"])
    assert read.method.score_rule == ours.method.score_rule
    queries = [one.method.embed_query(tokens, text).embeddings for one in (ours, read)]
    targets = [one.method.embed_target(tokens) for one in (ours, read)]
    assert torch.equal(*queries)
    assert torch.equal(*targets)
