"""BLIP-2 as an encoder: a frozen tower and a trained Q-Former.

One class covers all sizes, from a tiny configuration to the published ones. Source: LAVIS ``blip2_qformer``
(arXiv 2301.12597).
"""

from __future__ import annotations

import copy
import re
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from dqecir.encoders.encoder import CAPABILITIES, Encoder, EncoderSizes, TextBatch, register_encoder, unit
from dqecir.encoders.qformer import Attention, QFormer, QFormerSizes, WordEmbeddings
from dqecir.encoders.towers import CLIP_VIT_L, EVA_VIT_G, TowerConfig, build_tower
from dqecir.settings import Strict


class Blip2Config(Strict):
    """The sizes and settings of a :class:`Blip2`."""

    tower: TowerConfig
    hidden_size: int = 768
    layers: int = 12
    heads: int = 12
    intermediate_size: int = 3072
    cross_attention_frequency: int = 2
    query_tokens: int = 32
    embedding_size: int = 256
    vocabulary_size: int = 30523
    """Number of tokens: those of uncased BERT and ``[DEC]``."""
    text_positions: int = 512
    dropout: float = 0.1
    temperature: float = Field(default=0.07, gt=0)
    attention: Attention = "sdpa"
    """How the Q-Former computes attention; ``eager`` trains faster on a CPU."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {self.heads} heads")
        return self


READERS = ("crossattention.attention.key", "crossattention.attention.value")
"""Endings of the names of the Q-Former's modules that take image tokens as input."""

TEXT_ALONE = re.compile(
    r"^(embeddings\.|text_projection\.|qformer\.encoder\.layer\.\d+\.(intermediate|output)\.)"
)
"""Names of the weights that only texts use."""

BLIP2_VIT_G = Blip2Config(tower=EVA_VIT_G)
BLIP2_VIT_L = Blip2Config(tower=CLIP_VIT_L)


@register_encoder("blip2")
class Blip2(Encoder):
    """Image tower, Q-Former in its three modes, and the projections of images and texts.

    :meth:`image_tokens` runs the tower once for each image, without gradient. Methods that read images take
    these tokens, which are not yet normalised by ``ln_vision``. n_q is the number of query tokens, H the
    width of states, D that of embeddings.
    """

    config_type = Blip2Config
    provides = frozenset(CAPABILITIES)
    text_alone = TEXT_ALONE
    config: Blip2Config

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(config)
        width = config.tower.token_width
        self.sizes = EncoderSizes(
            image=config.tower.image_size,
            token_count=config.tower.token_count,
            token_width=width,
            grid_side=config.tower.grid_side,
            embedding=config.embedding_size,
            target_tokens=config.query_tokens,
            vocabulary=config.vocabulary_size,
            word_width=config.hidden_size,
        )
        self.tower = build_tower(config.tower)
        self.ln_vision = nn.LayerNorm(width, eps=1e-5)
        # transformers initialises them with zeros, which makes all queries equal.
        self.query_tokens = nn.Parameter(
            torch.empty(1, config.query_tokens, config.hidden_size).normal_(0, 0.02)
        )
        self.embeddings = WordEmbeddings(config.vocabulary_size, config.text_positions, config.hidden_size)
        self.qformer = QFormer(
            QFormerSizes(
                width=config.hidden_size,
                layers=config.layers,
                heads=config.heads,
                inner_width=config.intermediate_size,
                image_width=width,
                cross_every=config.cross_attention_frequency,
                dropout=config.dropout,
                attention=config.attention,
            )
        )
        self.vision_projection = nn.Linear(config.hidden_size, config.embedding_size)
        self.text_projection = nn.Linear(config.hidden_size, config.embedding_size)
        self.temperature = nn.Parameter(torch.tensor(config.temperature))

    @property
    def untraced(self) -> list[Any]:
        return [self.config.tower.untraced, self.config.heads]

    def image_states(self, tokens: Tensor) -> Tensor:
        """Run mode 1, the image alone: image tokens [B, M, W] to query states [B, n_q, H]."""
        queries = self.query_tokens.expand(tokens.shape[0], -1, -1)
        return self._read(queries, queries.shape[1], None, tokens)

    def pooled_composed(self, tokens: Tensor, text: TextBatch) -> Tensor:
        states, _ = self.composed_states(tokens, text.ids, text.mask)
        pooled: Tensor = self.text_projection(states.mean(dim=1))
        return pooled

    def composed_states(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run mode 2, image with text: return query states [B, n_q, H] and text states [B, L, H].

        ``tokens`` [B, M, W] are image tokens; ``ids`` and ``mask`` [B, L] are as in :class:`TextBatch`.
        """
        queries = self.query_tokens.expand(tokens.shape[0], -1, -1)
        count = queries.shape[1]
        seen = torch.cat([mask.new_ones(mask.shape[0], count), mask], dim=1)
        states = self._read(self.embeddings(ids, queries), count, seen, tokens)
        return states[:, :count], states[:, count:]

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Run mode 3, the text alone: return text states [B, L, H], with [CLS] at place 0.

        ``ids`` and ``mask`` [B, L] are as in :class:`TextBatch`.
        """
        states: Tensor = self.qformer(self.embeddings(ids), 0, mask)
        return states

    def target_embeddings(self, tokens: Tensor) -> Tensor:
        """Return unit embeddings [B, n_q, D] of candidate images (docs/method.md, E2).

        ``tokens`` [B, M, W] are image tokens.
        """
        return unit(self.vision_projection(self.image_states(tokens)))

    def text_embedding(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the unit embedding [B, D] of a text alone, from its [CLS] state.

        ``ids`` and ``mask`` [B, L] are as in :class:`TextBatch`.
        """
        return unit(self.text_projection(self.text_states(ids, mask)[:, 0]))

    def pooled_image(self, tokens: Tensor) -> Tensor:
        """Return the mean projected query state of each image [B, D], not normalised.

        It is the image feature of methods that compose pooled features.
        """
        pooled: Tensor = self.vision_projection(self.image_states(tokens)).mean(dim=1)
        return pooled.float()

    def pooled_text(self, text: TextBatch) -> Tensor:
        """Return the projected [CLS] state of each text [B, D], not normalised."""
        pooled: Tensor = self.text_projection(self.text_states(text.ids, text.mask)[:, 0])
        return pooled.float()

    def text_with_words(self, ids: Tensor, mask: Tensor, words: Tensor, places: Tensor) -> Tensor:
        ordinary = self.embeddings.word_embeddings(ids)
        embedded = torch.where(places[..., None], words[:, None].to(ordinary.dtype), ordinary)
        positions = self.embeddings.position_embeddings.weight[: ids.shape[1]]
        states = self.qformer(embedded + positions, 0, mask)
        projected: Tensor = self.text_projection(states[:, 0])
        return projected.float()

    def image_grid(self, tokens: Tensor) -> Tensor:
        """Return image tokens [B, M, W] after ``ln_vision`` as a map [B, W, G, G], without class token.

        G is ``sizes.grid_side``.
        """
        return super().image_grid(self._normalised(tokens))

    def grid_state(self, prefix: str) -> dict[str, Tensor]:
        return self.ln_vision.state_dict(prefix=f"{prefix}ln_vision.")

    def frozen_copy(self) -> Blip2:
        """Return a frozen copy without a tower, for targets that must not change in training."""
        copied = copy.deepcopy(self, {id(self.tower): nn.Identity()})
        return copied.requires_grad_(False).eval()

    def _read(self, slots: Tensor, queries: int, mask: Tensor | None, tokens: Tensor) -> Tensor:
        """Return the states of the Q-Former's ``slots`` [B, S, H].

        The first ``queries`` of them read the image.

        ``tokens`` [B, M, W] are normalised first. If ``ln_vision`` is trained but the tokens need no
        gradient, its scale and shift are multiplied into the weights of the keys and values that read them.
        Thus no gradient of the tokens is computed, which saves a third of the work.
        """
        norm, moved = self.ln_vision, dict[str, Tensor]()
        if tokens.requires_grad or not (torch.is_grad_enabled() and norm.weight.requires_grad):
            normalised = self._normalised(tokens)
        else:
            normalised = F.layer_norm(tokens.to(norm.weight.dtype), norm.normalized_shape, eps=norm.eps)
            with torch.autocast(tokens.device.type, enabled=False):
                for name, reader in self.qformer.named_modules():
                    if name.endswith(READERS):
                        moved[f"{name}.weight"] = reader.weight * norm.weight
                        moved[f"{name}.bias"] = reader.bias + reader.weight @ norm.bias
        states: Tensor = functional_call(self.qformer, moved, (slots, queries, mask, normalised))
        return states

    def _normalised(self, tokens: Tensor) -> Tensor:
        normalised: Tensor = self.ln_vision(tokens.to(self.ln_vision.weight.dtype))
        return normalised
