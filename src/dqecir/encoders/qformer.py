"""The Q-Former of BLIP-2: a BERT in which query tokens also attend to an image.

Modules are named as in transformers, so that its state dicts fit. transformers' own class is not used,
because importing it takes longer than a search. Source: LAVIS ``blip2_qformer`` (arXiv 2301.12597).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attention = Literal["sdpa", "eager"]
"""How attention is computed: with torch's fused kernels, or step by step, which trains faster on a CPU."""

_INITIAL = 0.02
"""Standard deviation of initial weights, as in BERT."""


@dataclass(frozen=True)
class QFormerSizes:
    """The sizes of a :class:`QFormer`."""

    width: int
    layers: int
    heads: int
    inner_width: int
    image_width: int
    cross_every: int
    """Layers whose number, counted from 0, is a multiple of this attend to the image."""
    dropout: float
    attention: Attention


class WordEmbeddings(nn.Module):
    """Embeddings of tokens and of their positions."""

    def __init__(self, pieces: int, positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(pieces, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, width)
        for table in (self.word_embeddings, self.position_embeddings):
            nn.init.normal_(table.weight, std=_INITIAL)

    def forward(self, ids: Tensor, queries: Tensor | None = None) -> Tensor:
        """Return embeddings [B, L, H] of token ids [B, L].

        With ``queries`` [B, n_q, H], these come before them.
        """
        words: Tensor = self.word_embeddings(ids.to(self.word_embeddings.weight.device))
        words = words + self.position_embeddings.weight[: ids.shape[1]]
        return words if queries is None else torch.cat([queries.to(words.dtype), words], dim=1)


class QFormer(nn.Module):
    """A BERT with cross-attention.

    The first slots are queries, which attend to image tokens, the others words.

    Queries and words attend to each other, and have separate feed-forward layers.
    """

    def __init__(self, sizes: QFormerSizes) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(sizes.width, eps=1e-12)
        self.dropout = nn.Dropout(sizes.dropout)
        layers = [_Layer(sizes, crosses=layer % sizes.cross_every == 0) for layer in range(sizes.layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_INITIAL)
                nn.init.zeros_(module.bias)

    def forward(
        self, slots: Tensor, queries: int, mask: Tensor | None = None, image: Tensor | None = None
    ) -> Tensor:
        """Return states [B, S, H] of embedded slots [B, S, H], of which the first ``queries`` are queries.

        ``mask`` [B, S] is 0 for padding; None: no padding. ``image`` [B, M, W] is needed if there are
        queries.
        """
        dtype = self.layernorm.weight.dtype
        states: Tensor = self.dropout(self.layernorm(slots.to(dtype)))
        # torch has faster kernels for attention without a mask.
        seen = None if mask is None or mask.all() else mask.bool()[:, None, None]
        tokens = None if image is None else image.to(dtype)
        for layer in self.encoder["layer"].children():
            states = layer(states, queries, seen, tokens)
        return states


class _Layer(nn.Module):
    """Attention among all slots, attention of queries to the image, and two feed-forward layers."""

    def __init__(self, sizes: QFormerSizes, crosses: bool) -> None:
        super().__init__()
        self.attention = _Attention(sizes, sizes.width)
        self.crosses = crosses
        if crosses:
            self.crossattention = _Attention(sizes, sizes.image_width)
        self.intermediate = _expansion(sizes)
        self.output = _Residual(sizes.inner_width, sizes)
        self.intermediate_query = _expansion(sizes)
        self.output_query = _Residual(sizes.inner_width, sizes)

    def forward(self, states: Tensor, queries: int, mask: Tensor | None, image: Tensor | None) -> Tensor:
        states = self.attention(states, states, mask)
        words = states[:, queries:]
        parts = []
        if queries:
            asking = states[:, :queries]
            if self.crosses:
                asking = self.crossattention(asking, image, None)
            parts.append(self.output_query(self.intermediate_query(asking), asking))
        if words.shape[1]:
            parts.append(self.output(self.intermediate(words), words))
        return torch.cat(parts, dim=1)


class _Attention(nn.Module):
    """Attention of states to themselves or to other states, added to the states and normalised."""

    def __init__(self, sizes: QFormerSizes, source_width: int) -> None:
        super().__init__()
        self.heads, self.dropout, self.fused = sizes.heads, sizes.dropout, sizes.attention == "sdpa"
        self.attention = nn.ModuleDict(
            {
                "query": nn.Linear(sizes.width, sizes.width),
                "key": nn.Linear(source_width, sizes.width),
                "value": nn.Linear(source_width, sizes.width),
            }
        )
        self.output = _Residual(sizes.width, sizes)

    def forward(self, states: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (
            project(given).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, slots, H / heads]
            for project, given in zip(self.attention.values(), (states, source, source), strict=True)
        )
        dropped = self.dropout if self.training else 0.0
        if self.fused:
            read = F.scaled_dot_product_attention(query, key, value, mask, dropped)
        else:
            logits = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
            if mask is not None:
                logits = logits.float().masked_fill(~mask, -torch.inf)
            read = F.dropout(logits.softmax(dim=3), dropped) @ value
        return self.output(read.transpose(1, 2).flatten(2), states)


class _Residual(nn.Module):
    """A projection with a residual connection and normalisation."""

    def __init__(self, width: int, sizes: QFormerSizes) -> None:
        super().__init__()
        self.dense = nn.Linear(width, sizes.width)
        self.LayerNorm = nn.LayerNorm(sizes.width, eps=1e-12)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, inner: Tensor, states: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(inner)) + states)


def _expansion(sizes: QFormerSizes) -> nn.Sequential:
    return nn.Sequential(OrderedDict(dense=nn.Linear(sizes.width, sizes.inner_width), gelu=nn.GELU()))
