"""Read checkpoints of open_clip.

For a CLIP with a ViT, and for SigLIP, the tensors are renamed to those of transformers' classes, so that
open_clip itself is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from tokenizers import Regex, normalizers
from torch import Tensor

from dqecir.data.images import CLIP_MEAN, CLIP_STD, RESAMPLES, Preprocessing
from dqecir.encoders.checkpoint_files import State, read_published
from dqecir.encoders.hf_checkpoints import json_of
from dqecir.encoders.open_clip import image_side
from dqecir.errors import CheckpointError, reason_of

CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
_HEAD = 64
"""Default width of an attention head."""
_HEADS = {1152: 16}
"""Width of a timm model -> its number of attention heads, where ``_HEAD`` does not apply."""

_TANH = re.compile(r"so400m_patch16|giantopt|base_patch32_siglip_256|large_patch16_siglip_512")
"""Parts of the names of timm's SigLIP towers that use the tanh approximation of GELU."""

CLEANING: dict[str, list[normalizers.Normalizer]] = {
    "whitespace": [],
    "lower": [normalizers.Lowercase()],
    "canonicalize": [
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ],
}
"""Name of the setting -> what open_clip does with a text before it is split into tokens."""

_CLIP_SIZES = {
    *("image_size", "patch_size", "patch_dropout", "width", "head_width", "heads", "layers", "mlp_ratio"),
    *("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs"),
}
"""Settings of both parts of a CLIP that transformers has too, or that matter only in training."""

_CLIP_NAMES = (
    (r"^visual\.class_embedding$", r"vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", r"vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", r"vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", r"vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", r"vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", r"vision_model.encoder.layers."),
    (r"^visual\.proj$", r"visual_projection.weight"),
    (r"^text_projection$", r"text_projection.weight"),
)
_SIGLIP_NAMES = (
    (r"^visual\.trunk\.patch_embed\.proj\.", r"vision_model.embeddings.patch_embedding."),
    (r"^visual\.trunk\.pos_embed$", r"vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.trunk\.blocks\.", r"vision_model.encoder.layers."),
    (r"^visual\.trunk\.norm\.", r"vision_model.post_layernorm."),
    (r"^visual\.trunk\.attn_pool\.latent$", r"vision_model.head.probe"),
    (r"^visual\.trunk\.attn_pool\.proj\.", r"vision_model.head.attention.out_proj."),
    (r"^visual\.trunk\.attn_pool\.norm\.", r"vision_model.head.layernorm."),
    (r"^visual\.trunk\.attn_pool\.mlp\.", r"vision_model.head.mlp."),
    (r"^text_projection\.", r"text_model.head."),
)
_TEXT_NAMES = (
    (r"^token_embedding\.", r"text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", r"text_model.embeddings.position_embedding.weight"),
    (r"^transformer\.resblocks\.", r"text_model.encoder.layers."),
    (r"^ln_final\.", r"text_model.final_layer_norm."),
)
_BLOCK_NAMES = (
    (r"\.(ln_|norm)([12])\.", r".layer_norm\2."),
    (r"\.mlp\.(c_fc|fc1)\.", r".mlp.fc1."),
    (r"\.mlp\.(c_proj|fc2)\.", r".mlp.fc2."),
    (r"\.attn\.(out_)?proj\.", r".self_attn.out_proj."),
)
_FUSED = re.compile(r"^(?P<block>.*)\.attn\.(in_proj_|qkv\.)(?P<kind>weight|bias)$")
"""Names of tensors that hold the weights of query, key and value in one matrix."""


def is_open_clip(folder: Path) -> bool:
    """Return whether a folder must be read by its ``open_clip_config.json``.

    It has this file, and its ``config.json`` is missing, needs its own code or describes no vision model.
    Raises :class:`CheckpointError` if ``config.json`` is damaged.
    """
    if not (folder / CONFIG).exists():
        return False
    config = json_of(folder / "config.json") or {}
    return "auto_map" in config or "vision_config" not in config


def text_settings(folder: Path) -> Mapping[str, Any]:
    """Return the settings of the text part of a checkpoint that :func:`read_open_clip` has read."""
    settings: Mapping[str, Any] = (json_of(folder / CONFIG) or {})["model_cfg"]["text_cfg"]
    return settings


def read_open_clip(folder: Path) -> tuple[dict[str, Any], State, Preprocessing]:
    """Read a checkpoint: its architecture, its tensors under published names, and its preprocessing.

    If transformers has the architecture, both are in transformers' form, else in open_clip's. Raises
    :class:`CheckpointError` if a file is missing or does not fit.
    """
    said = json_of(folder / CONFIG) or {}
    path = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise CheckpointError(f"{folder} has no {_WEIGHTS[0]}: copy it again")
    # In models with a separate text part, the names of its tensors begin with the name of the part.
    state = {key.removeprefix("text."): value for key, value in read_published(path).items()}
    try:
        model, prepares = said["model_cfg"], said.get("preprocess_cfg", {})
        if _is_siglip(model, state):
            architecture, named = _siglip(model, state), _renamed(state, _SIGLIP_NAMES)
        elif _is_clip(model, state):
            architecture, named = _clip(model, state), _renamed(state, _CLIP_NAMES)
        else:
            architecture = dict(model)
            named = {_open_clip_name(key): value for key, value in state.items() if key != "attn_mask"}
        return architecture, named, _preparation(prepares, image_side(model))
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        reason = reason_of(error)
        raise CheckpointError(
            f"{folder}/{CONFIG} does not fit its weights ({reason}): copy both again"
        ) from error


def _is_siglip(model: Mapping[str, Any], state: State) -> bool:
    text = model["text_cfg"]
    return (
        {"visual.trunk.attn_pool.latent", "visual.trunk.blocks.0.attn.qkv.weight", "token_embedding.weight"}
        <= set(state)
        and bool(text.get("no_causal_mask") and text.get("proj_bias"))
        and text.get("pool_type") == "last"
    )


def _is_clip(model: Mapping[str, Any], state: State) -> bool:
    """Return whether a model is a CLIP with a plain ViT, and only has settings that transformers has too."""
    settings = {*_settings(model["vision_cfg"]), *_settings(model["text_cfg"])}
    return settings <= {("pool_type", "tok"), ("pool_type", "argmax")} and {
        "visual.class_embedding",
        "token_embedding.weight",
    } <= set(state)


def _settings(part: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the settings of a part that change more than its sizes."""
    return {(key, str(value)) for key, value in part.items() if value and key not in _CLIP_SIZES}


def _open_clip_name(key: str) -> str:
    """Return the name that a tensor has in open_clip's class with a separate text part."""
    return key if key.startswith(("visual.", "logit_")) else f"text.{key}"


def _clip(model: Mapping[str, Any], state: State) -> dict[str, Any]:
    vision, text = model["vision_cfg"], model["text_cfg"]
    act = "quick_gelu" if model.get("quick_gelu") else "gelu"
    width = state["visual.conv1.weight"].shape[0]
    return {
        "model_type": "clip",
        "projection_dim": int(model["embed_dim"]),
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            "num_hidden_layers": int(vision["layers"]),
            "num_attention_heads": width // int(vision.get("head_width", _HEAD)),
            "image_size": image_side(model),
            "patch_size": state["visual.conv1.weight"].shape[-1],
            "hidden_act": act,
        },
        # End token 2 means that the highest id of a text is its end.
        "text_config": {**_text(text, state), "hidden_act": act, "eos_token_id": 2, "bos_token_id": 0},
    }


def _siglip(model: Mapping[str, Any], state: State) -> dict[str, Any]:
    text = model["text_cfg"]
    width = state["visual.trunk.norm.weight"].shape[0]
    blocks = {key.split(".")[3] for key in state if key.startswith("visual.trunk.blocks.")}
    return {
        "model_type": "siglip",
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": state["visual.trunk.blocks.0.mlp.fc1.weight"].shape[0],
            "num_hidden_layers": len(blocks),
            "num_attention_heads": _HEADS.get(width, width // _HEAD),
            "image_size": image_side(model),
            "patch_size": state["visual.trunk.patch_embed.proj.weight"].shape[-1],
            "hidden_act": _gelu(_TANH.search(str(model["vision_cfg"].get("timm_model_name"))) is not None),
        },
        "text_config": {
            **_text(text, state),
            "hidden_act": _gelu((text.get("act_kwargs") or {}).get("approximate") == "tanh"),
            "projection_size": int(model["embed_dim"]),
        },
    }


def _gelu(approximate: bool) -> str:
    return "gelu_pytorch_tanh" if approximate else "gelu"


def _text(text: Mapping[str, Any], state: State) -> dict[str, Any]:
    words, width = state["token_embedding.weight"].shape
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": int(text["layers"]),
        "num_attention_heads": int(text["heads"]),
        "max_position_embeddings": state["positional_embedding"].shape[0],
    }


def _renamed(state: State, names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Rename tensors of open_clip to the names of transformers, by (regular expression, replacement)."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("visual.trunk.attn_pool.q"):
            continue
        if key.startswith("visual.trunk.attn_pool.kv."):
            kind = key.rpartition(".")[2]
            query = state[f"visual.trunk.attn_pool.q.{kind}"]
            found[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat([query, value])
            continue
        name = key
        for pattern, replacement in (*names, *_TEXT_NAMES):
            name = re.sub(pattern, replacement, name)
        fused = _FUSED.match(name)
        if fused is not None:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                found[f"{fused['block']}.self_attn.{part}_proj.{fused['kind']}"] = third
            continue
        for pattern, replacement in _BLOCK_NAMES:
            name = re.sub(pattern, replacement, name) if ".layers." in name or ".head.mlp" in name else name
        if name.endswith("projection.weight") and key in ("visual.proj", "text_projection"):
            value = value.T.contiguous()
        if key == "visual.trunk.pos_embed":
            value = value[0]
        if key != "attn_mask":
            found[name] = value
    return found


def _preparation(said: Mapping[str, Any], side: int) -> Preprocessing:
    mode = said.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise ValueError(f"the resize mode {mode!r} is not supported")
    resample = said.get("interpolation") or "bicubic"
    if resample not in RESAMPLES:
        raise ValueError(f"the interpolation {resample!r} is not supported")
    return Preprocessing(
        size=side,
        squash=mode == "squash",
        rounds_crop=mode == "shortest",
        pad_ratio=None,
        resample=resample,
        mean=tuple(said.get("mean") or CLIP_MEAN),
        std=tuple(said.get("std") or CLIP_STD),
    )
