"""Load published BLIP-2 weights: rename LAVIS' keys to ours, and report every key.

The renaming was checked against tiny models with the published names, and its names against the lists of keys
of the published sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dqecir.encoders.blip2 import Blip2
from dqecir.errors import CheckpointError


@dataclass(frozen=True)
class LoadReport:
    """What became of the keys of a checkpoint, under the checkpoint's names.

    ``missing`` are keys it lacks; ``misshapen`` are keys with the found and the needed shape.
    """

    used: tuple[str, ...]
    dropped: tuple[str, ...]
    """Keys that composed retrieval does not need."""
    unexpected: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was found in its shape, and no key was left over."""
        return not (self.unexpected or self.missing or self.misshapen)

    def __str__(self) -> str:
        lines = [f"{len(self.used)} tensors loaded, {len(self.dropped)} not needed"]
        for name in ("missing", "unexpected", "misshapen"):
            keys: tuple[str, ...] = getattr(self, name)
            if keys:
                shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
                lines.append(f"{len(keys)} {name}: {shown}")
        return "; ".join(lines)


def required(state: Mapping[str, Tensor], key: str, what: str) -> Tensor:
    """Return the tensor ``key`` of a checkpoint; raises :class:`CheckpointError` if it has none.

    ``what`` says in the error what that means, such as "it holds no combiner". ``state`` is the checkpoint.
    """
    if key not in state:
        raise CheckpointError(f"the checkpoint has no {key}: {what}; name another checkpoint")
    return state[key]


def matrix_sizes(state: Mapping[str, Tensor], key: str, what: str) -> tuple[int, int]:
    """Return the numbers of rows and columns of a matrix of a checkpoint; arguments as in :func:`required`.

    Raises :class:`CheckpointError` if it is missing or no matrix.
    """
    tensor = required(state, key, what)
    if tensor.dim() != 2:
        raise CheckpointError(
            f"the checkpoint's {key} has the shape {list(tensor.shape)}, and is no matrix: copy it again"
        )
    rows, columns = tensor.shape
    return rows, columns


@dataclass(frozen=True)
class PublishedKeys:
    """How the keys of a published state dict are renamed to ours."""

    renames: tuple[tuple[str, str], ...]
    """(regular expression, replacement): the first that matches a key renames it. The replacement contains
    every group, so that the renaming can be inverted."""
    not_needed: str = r"(?!)"
    """Regular expression of the keys that composed retrieval does not need."""
    leading: tuple[tuple[str, int], ...] = ()
    """(published key, n): only the first n entries of the tensor are read, because the published code uses
    only these."""

    def load(self, module: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
        """Load a published state dict into ``module``, completely or not at all.

        Raises :class:`CheckpointError` that lists the keys if one is missing, left over or has another shape.
        """
        dropped = tuple(sorted(key for key in state if re.search(self.not_needed, key)))
        kept = {_rename(key, self.renames): value for key, value in state.items() if key not in dropped}
        for key, count in self.leading:
            if key in state:
                kept[_rename(key, self.renames)] = state[key][:count]
        report = load_strictly(module, kept, lambda key: published_name(key, self.renames))
        return _of_whole(report, state, dropped)


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


def published_name(key: str, renames: Iterable[tuple[str, str]]) -> str:
    """Return the published name of our ``key``: the first rule in ``renames`` that fits is inverted.

    If none fits, ``key`` is returned.
    """
    for pattern, replacement in renames:
        groups = re.findall(r"\([^)]*\)", pattern)
        parts = re.split(r"\\(\d)", replacement)
        ours = "".join(groups[int(part) - 1] if n % 2 else re.escape(part) for n, part in enumerate(parts))
        theirs = pattern.strip("^$").replace(r"\.", ".")
        for n, group in enumerate(groups, 1):
            theirs = theirs.replace(group, rf"\{n}", 1)
        named, count = re.subn(f"^{ours}{'$' if pattern.endswith('$') else ''}", theirs, key)
        if count:
            return named
    return key


def eva_tower_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of LAVIS' EVA ViT-g to transformers' names.

    The keys of ``state`` have no prefix ``visual_encoder.``. Biases of queries and values are joined with
    zeros for the keys, because EVA has no key bias. Raises :class:`CheckpointError` if a query bias has no
    value bias.
    """
    renamed = {}
    for key, value in state.items():
        block = re.match(r"^blocks\.(\d+)\.attn\.([qv])_bias$", key)
        if block is None:
            renamed[_rename(key, _EVA_RENAMES)] = value
        elif block[2] == "q":
            other = key.replace("q_bias", "v_bias")
            if other not in state:
                raise CheckpointError(
                    f"the checkpoint has no visual_encoder.{other}, which EVA's towers have: copy it again"
                )
            renamed[f"encoder.layers.{block[1]}.self_attn.qkv.bias"] = torch.cat(
                [value, torch.zeros_like(value), state[other]]
            )
    return renamed


def clip_tower_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of LAVIS' CLIP ViT-L to transformers' names.

    The keys of ``state`` have no prefix ``visual_encoder.``.
    """
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
_TOWER_NAMES = {
    "eva": (*_EVA_RENAMES, (r"^blocks\.(\d+)\.attn\.q_bias$", r"encoder.layers.\1.self_attn.qkv.bias")),
    "clip": (
        *_CLIP_RENAMES,
        *(
            (
                r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$",
                rf"encoder.layers.\1.self_attn.{part}_proj.\2",
            )
            for part in "qkv"
        ),
    ),
}
"""Kind of tower -> its renaming, with the joined tensors too, for mapping our names back to published
ones."""


def lavis_state(state: Mapping[str, Tensor], tower_kind: str) -> dict[str, Tensor]:
    """Rename the tensors of a LAVIS ``blip2_qformer`` state dict to the names of :class:`Blip2`.

    Tensors that :class:`Blip2` does not need, such as heads of other tasks, are left out. Raises
    :class:`CheckpointError` if ``tower_kind`` is neither ``eva`` nor ``clip``.
    """
    if tower_kind not in _TOWER_STATES:
        raise CheckpointError(
            f"a LAVIS checkpoint needs an eva or clip tower, and this model has {tower_kind!r}: "
            "use a model with such a tower"
        )
    prefix = "visual_encoder."
    tower = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    renamed = {f"tower.vision_model.{key}": value for key, value in _TOWER_STATES[tower_kind](tower).items()}
    for key, value in state.items():
        if not key.startswith(prefix) and not _NOT_NEEDED.search(key):
            renamed[_rename(key, _QFORMER_RENAMES)] = value
    return renamed


def lavis_name(key: str, tower_kind: str) -> str:
    """Return the published name of a key of :class:`Blip2`, or of a method that has one as its backbone.

    ``tower_kind`` is ``eva`` or ``clip``.
    """
    own = re.sub(r"^(target_)?backbone\.", "", key)
    vision = own.removeprefix("tower.vision_model.")
    if vision != own:
        return "visual_encoder." + published_name(vision, _TOWER_NAMES[tower_kind])
    return published_name(own, _QFORMER_RENAMES)


def load_lavis(model: Blip2, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a LAVIS ``blip2_qformer`` state dict (``checkpoint["model"]``) into ``model``.

    Raises :class:`CheckpointError` that lists the keys if a tensor is missing, left over or has another
    shape; ``model`` is then unchanged.
    """
    kind = model.config.tower.kind
    report = load_strictly(model, lavis_state(state, kind), lambda key: lavis_name(key, kind))
    return _of_whole(report, state, _dropped(state))


def load_lavis_method(
    method: nn.Module, backbone: Blip2, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> LoadReport:
    """Load a state dict with LAVIS' names into a ``method`` whose attribute ``backbone`` is ``backbone``.

    ``own`` holds the other tensors of the method, under our names. Raises :class:`CheckpointError` as
    :func:`load_lavis` does.
    """
    kind = backbone.config.tower.kind
    renamed = {f"backbone.{key}": value for key, value in lavis_state(state, kind).items()}
    report = load_strictly(method, renamed | dict(own), lambda key: lavis_name(key, kind))
    return _of_whole(report, state, tuple(key for key in _dropped(state) if key not in own))


def _dropped(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(sorted(key for key in state if _NOT_NEEDED.search(key)))


def _of_whole(report: LoadReport, state: Mapping[str, Tensor], dropped: tuple[str, ...]) -> LoadReport:
    """Return the report of a checkpoint that was loaded: all keys but the dropped ones were used."""
    return replace(report, used=tuple(sorted(set(state) - set(dropped))), dropped=dropped)


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], named: Callable[[str], str] = str
) -> LoadReport:
    """Copy ``state`` into ``module``, completely or not at all, and return a report.

    ``named`` maps our key to its name in the report. Raises :class:`CheckpointError` that lists the keys that
    are missing, left over or have another shape.
    """
    own = module.state_dict()
    shared = sorted(set(own) & set(state))
    report = LoadReport(
        used=tuple(map(named, shared)),
        dropped=(),
        unexpected=tuple(sorted({named(key) for key in set(state) - set(own)})),
        missing=tuple(sorted({named(key) for key in set(own) - set(state)})),
        misshapen=tuple(
            f"{named(key)} {list(state[key].shape)} where {list(own[key].shape)} is needed"
            for key in shared
            if state[key].shape != own[key].shape
        ),
    )
    if not report.complete:
        raise CheckpointError(
            f"the checkpoint does not fit this model: {report}; name a checkpoint of this model"
        )
    module.load_state_dict(dict(state))
    return report
