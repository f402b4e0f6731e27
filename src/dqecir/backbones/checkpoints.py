"""Published BLIP-2 weights in: LAVIS key names to ours, strictly, with a report.

The map was checked against tiny models with the published names, and its names against the key
lists of the published sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dqecir.backbones.blip2 import Blip2
from dqecir.data.triplets import DataError


class CheckpointError(DataError):
    """Weights that do not belong to the model they are loaded into."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every key of a checkpoint."""

    used: tuple[str, ...]
    dropped: tuple[str, ...]
    """Keys of the checkpoint that composed retrieval has no use for, by design."""
    unexpected: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every parameter of the model was found and nothing was left over."""
        return not (self.unexpected or self.missing or self.misshapen)

    def __str__(self) -> str:
        lines = [f"{len(self.used)} tensors loaded, {len(self.dropped)} not needed"]
        for name in ("missing", "unexpected", "misshapen"):
            keys: tuple[str, ...] = getattr(self, name)
            if keys:
                shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
                lines.append(f"{len(keys)} {name}: {shown}")
        return "; ".join(lines)


@dataclass(frozen=True)
class PublishedKeys:
    """How the keys of a published state dict become ours."""

    renames: tuple[tuple[str, str], ...]
    """(regular expression, replacement); the first that matches a key renames it."""
    not_needed: str = r"(?!)"
    """Keys that composed retrieval has no use for, by design."""
    leading: tuple[tuple[str, int], ...] = ()
    """(key, n): only the first n entries are read, because the published code uses no others."""

    def load(self, module: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
        """Load a published ``state`` into ``module``, all of it or nothing.

        Raises :class:`CheckpointError` with the report where something is missing or left over.
        """
        dropped = tuple(sorted(key for key in state if re.search(self.not_needed, key)))
        kept = {_rename(key, self.renames): value for key, value in state.items() if key not in dropped}
        for key, count in self.leading:
            if key in state:
                kept[_rename(key, self.renames)] = state[key][:count]
        report = load_strictly(module, kept)
        return LoadReport(report.used, dropped, report.unexpected, report.missing, report.misshapen)


_QFORMER_RENAMES = (
    (r"^Qformer\.bert\.embeddings\.(word|position)_embeddings\.", r"embeddings.\1_embeddings."),
    (r"^Qformer\.bert\.embeddings\.LayerNorm\.", r"qformer.layernorm."),
    (
        r"^Qformer\.bert\.encoder\.layer\.(\d+)\.(attention|crossattention)\.self\.",
        r"qformer.encoder.layer.\1.\2.attention.",
    ),
    (r"^Qformer\.bert\.", r"qformer."),
    (r"^vision_proj\.", r"vision_projection."),
    (r"^text_proj\.", r"text_projection."),
    (r"^temp$", r"temperature"),
)
_EVA_RENAMES = (
    (r"^cls_token$", r"embeddings.class_embedding"),
    (r"^pos_embed$", r"embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", r"embeddings.patch_embedding."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.weight$", r"encoder.layers.\1.self_attn.qkv.weight"),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)
_CLIP_RENAMES = (
    (r"^class_embedding$", r"embeddings.class_embedding"),
    (r"^positional_embedding$", r"embeddings.position_embedding.weight"),
    (r"^conv1\.weight$", r"embeddings.patch_embedding.weight"),
    (r"^ln_pre\.", r"pre_layrnorm."),
    (r"^transformer\.resblocks\.(\d+)\.ln_([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"encoder.layers.\1.self_attn.out_proj."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"encoder.layers.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"encoder.layers.\1.mlp.fc2."),
)
_NOT_NEEDED = re.compile(r"(^Qformer\.cls\.)|(position_ids$)|(^itm_head\.)|(^prompt_tokens$)")


def _rename(key: str, renames: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        renamed, count = re.subn(pattern, replacement, key)
        if count:
            return renamed
    return key


def eva_tower_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LAVIS ``visual_encoder`` of EVA ViT-g, without that prefix, under transformers' names.

    Query and value biases are joined with a zero key bias, which EVA does not have.
    """
    renamed = {}
    for key, value in state.items():
        block = re.match(r"^blocks\.(\d+)\.attn\.([qv])_bias$", key)
        if block is None:
            renamed[_rename(key, _EVA_RENAMES)] = value
        elif block[2] == "q":
            v_bias = state[key.replace("q_bias", "v_bias")]
            renamed[f"encoder.layers.{block[1]}.self_attn.qkv.bias"] = torch.cat(
                [value, torch.zeros_like(value), v_bias]
            )
    return renamed


def clip_tower_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LAVIS ``visual_encoder`` of CLIP ViT-L, without that prefix, under transformers' names."""
    renamed = {}
    for key, value in state.items():
        joined = re.match(r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$", key)
        if joined is None:
            renamed[_rename(key, _CLIP_RENAMES)] = value
            continue
        for name, part in zip("qkv", value.chunk(3), strict=True):
            renamed[f"encoder.layers.{joined[1]}.self_attn.{name}_proj.{joined[2]}"] = part
    return renamed


_TOWER_STATES = {"eva": eva_tower_state, "clip": clip_tower_state}


def lavis_state(state: Mapping[str, Tensor], tower_kind: str) -> dict[str, Tensor]:
    """A whole LAVIS ``blip2_qformer`` state dict under the names of :class:`Blip2`.

    Raises :class:`CheckpointError` for a kind of tower that LAVIS does not have.
    """
    if tower_kind not in _TOWER_STATES:
        raise CheckpointError(
            f"a LAVIS checkpoint needs an eva or clip tower, and this model has {tower_kind!r}"
        )
    prefix = "visual_encoder."
    tower = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    renamed = {f"tower.vision_model.{key}": value for key, value in _TOWER_STATES[tower_kind](tower).items()}
    for key, value in state.items():
        if not key.startswith(prefix) and not _NOT_NEEDED.search(key):
            renamed[_rename(key, _QFORMER_RENAMES)] = value
    return renamed


def load_lavis(model: Blip2, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a LAVIS ``blip2_qformer`` state dict (``checkpoint["model"]``) into ``model``.

    Raises :class:`CheckpointError` with the report where a tensor is missing, left over or of
    another shape; ``model`` is then unchanged.
    """
    report = load_strictly(model, lavis_state(state, model.config.tower.kind))
    return replace(report, dropped=_dropped(state))


def load_lavis_method(
    method: nn.Module, backbone: Blip2, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> LoadReport:
    """Load a LAVIS-like state dict into a ``method`` whose attribute ``backbone`` is ``backbone``.

    ``own`` holds what else the method has, under the method's names. Raises :class:`CheckpointError`
    as :func:`load_lavis` does.
    """
    names = lavis_state(state, backbone.config.tower.kind)
    report = load_strictly(method, {f"backbone.{key}": value for key, value in names.items()} | dict(own))
    return replace(report, dropped=tuple(key for key in _dropped(state) if key not in own))


def _dropped(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(sorted(key for key in state if _NOT_NEEDED.search(key)))


def load_strictly(module: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """Copy ``state`` into ``module``, all of it or nothing.

    Raises :class:`CheckpointError` that names what is missing, left over or misshapen.
    """
    own = module.state_dict()
    shared = sorted(set(own) & set(state))
    report = LoadReport(
        used=tuple(shared),
        dropped=(),
        unexpected=tuple(sorted(set(state) - set(own))),
        missing=tuple(sorted(set(own) - set(state))),
        misshapen=tuple(
            f"{key} {list(state[key].shape)} where {list(own[key].shape)} is needed"
            for key in shared
            if state[key].shape != own[key].shape
        ),
    )
    if not report.complete:
        raise CheckpointError(f"the checkpoint does not fit this model: {report}")
    module.load_state_dict(dict(state))
    return report
