"""Find the sizes of a LAVIS ``blip2_qformer`` checkpoint, or of a file with a tower, in its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from dqecir.encoders.blip2 import Blip2Config
from dqecir.encoders.checkpoints import matrix_sizes, required
from dqecir.encoders.towers import CLIP_VIT_L, EVA_VIT_G, TowerConfig
from dqecir.errors import CheckpointError

_LAYER = "Qformer.bert.encoder.layer"
_HEAD_WIDTH = 64
_TOWER = "visual_encoder."
_PUBLISHED_TOWERS = {tower.hidden_size: tower for tower in (EVA_VIT_G, CLIP_VIT_L)}
_PLAIN_TOWER = re.compile(
    r"(cls_token|pos_embed|patch_embed\.proj\.(weight|bias)|class_embedding|positional_embedding|conv1\.weight|"
    r"ln_pre\.(weight|bias)|(transformer\.res)?blocks\.(?P<block>\d+)\..+)"
)
"""Names of the tensors that BLIP-2 needs from a file with a tower."""


def lavis_tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tower in a LAVIS checkpoint or tower file, with names that begin with ``visual_encoder.``.

    ``eva_vit_g.pth`` and ``clip_vit_L.pth`` have names without a prefix. A last block and heads that BLIP-2
    does not use are left out. The result is empty if there is no tower.
    """
    inside = {key: value for key, value in state.items() if key.startswith(_TOWER)}
    patches = state.get("patch_embed.proj.weight", state.get("conv1.weight"))
    if inside or patches is None:
        return inside
    published = _PUBLISHED_TOWERS.get(int(patches.shape[0]))
    tower = {}
    for key, value in state.items():
        found = _PLAIN_TOWER.fullmatch(key)
        if found and (published is None or int(found["block"] or 0) < published.layers):
            tower[_TOWER + key] = value
    return tower


def lavis_sizes(
    state: Mapping[str, Tensor], heads: int | None = None, tower_heads: int | None = None
) -> Blip2Config:
    """Return the configuration of a :class:`Blip2` for a state dict with LAVIS' names.

    ``heads`` and ``tower_heads`` are the numbers of attention heads of the Q-Former and of the tower, which
    cannot be seen in the tensors. Default: those of BERT and CLIP (64 numbers for each head) and of EVA ViT-g
    (16 heads). Raises :class:`CheckpointError` if the Q-Former, its text part, a projection or the tower is
    missing, or if their sizes do not fit together.
    """
    required(state, "query_tokens", "it contains no Q-Former of BLIP-2")
    required(state, "ln_vision.weight", "it contains no ln_vision")
    embeddings, unread = "Qformer.bert.embeddings", "its Q-Former cannot read text"
    words, hidden = matrix_sizes(state, f"{embeddings}.word_embeddings.weight", unread)
    positions, _ = matrix_sizes(state, f"{embeddings}.position_embeddings.weight", unread)
    feed_forward, _ = matrix_sizes(
        state, f"{_LAYER}.0.intermediate.dense.weight", "its Q-Former has no feed-forward for text"
    )
    embedding, _ = matrix_sizes(state, "vision_proj.weight", "it has no projection of images")
    query = state["query_tokens"]
    if query.dim() != 3 or query.shape[1] < 1 or query.shape[2] != hidden:
        raise CheckpointError(
            f"the checkpoint's query_tokens have the shape {list(query.shape)}, where [1, n, {hidden}] "
            "is needed: copy it again"
        )
    tower = tower_sizes(state, tower_heads)
    width = int(state["ln_vision.weight"].shape[0])
    if tower.token_width != width:
        raise CheckpointError(
            f"the image tower makes tokens of {tower.token_width} numbers, but the Q-Former reads {width}: "
            "take both from one checkpoint"
        )
    layers = 1 + max(int(found[1]) for key in state if (found := re.match(rf"{_LAYER}\.(\d+)\.", key)))
    crossing = sorted(
        int(found[1])
        for key in state
        if (found := re.match(rf"{_LAYER}\.(\d+)\.crossattention\.self\.query\.weight$", key))
    )
    return Blip2Config(
        tower=tower,
        hidden_size=hidden,
        layers=layers,
        heads=heads or max(1, hidden // _HEAD_WIDTH),
        intermediate_size=feed_forward,
        cross_attention_frequency=crossing[1] - crossing[0] if len(crossing) > 1 else layers,
        query_tokens=int(query.shape[1]),
        embedding_size=embedding,
        vocabulary_size=words,
        text_positions=positions,
    )


def tower_sizes(state: Mapping[str, Tensor], heads: int | None = None) -> TowerConfig:
    """Return the configuration of the tower in a state dict with LAVIS' names.

    ``heads`` is the tower's number of attention heads; default: as in :func:`lavis_sizes`. Raises
    :class:`CheckpointError` if there is no tower.
    """
    prefix, what = _TOWER, "its image tower is no ViT of LAVIS"
    if f"{prefix}patch_embed.proj.weight" in state:
        patches = state[f"{prefix}patch_embed.proj.weight"]
        positions = required(state, f"{prefix}pos_embed", what)[0]
        feed_forward, block, kind = "blocks.0.mlp.fc1.weight", r"blocks\.(\d+)\.", "eva"
    elif f"{prefix}conv1.weight" in state:
        patches = state[f"{prefix}conv1.weight"]
        positions = required(state, f"{prefix}positional_embedding", what)
        feed_forward, kind = "transformer.resblocks.0.mlp.c_fc.weight", "clip"
        block = r"transformer\.resblocks\.(\d+)\."
    else:
        raise CheckpointError(
            "the checkpoint has no image tower (no visual_encoder.*): give the tower's own file "
            "(eva_vit_g.pth, clip_vit_L.pth) or the BLIP-2 checkpoint that it was trained from "
            "as --pretrained (tower in Python)"
        )
    intermediate, _ = matrix_sizes(state, prefix + feed_forward, what)
    width, patch = int(patches.shape[0]), int(patches.shape[-1])
    published = _PUBLISHED_TOWERS.get(width)
    numbers = [int(found[1]) for key in state if (found := re.match(re.escape(prefix) + block, key))]
    return TowerConfig(
        kind="eva" if kind == "eva" else "clip",
        image_size=math.isqrt(int(positions.shape[0]) - 1) * patch,
        patch_size=patch,
        hidden_size=width,
        layers=1 + max(numbers),
        heads=heads or (published.heads if published else max(1, width // _HEAD_WIDTH)),
        intermediate_size=intermediate,
    )
