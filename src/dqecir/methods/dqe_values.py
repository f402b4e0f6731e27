"""DQE with attribute values: the query says which values the target should show, column by column.

A text is read twice: with the image, for the base query, and by itself, for what it asks. For every
column c of the catalogue it says whether the column is asked of, m_c, and which values it asks for,
a_c; what is not asked stays as the reference's attribute head sees it, p_r,c. The score stays one
inner product, the expected log-probability of the candidate's heads beside the base score:

    s = w_0 max_k q₀·v_k + κ Σ_c w_c(T) Σ_value q_c(value) log p_v,c(value),
    q_c = m_c a_c + (1 - m_c) p_r,c

with w the learnable attribute weights, decided by the text. The published sub-queries look at the
same target tokens as the base query, and so repeat it; here a colour is compared with the colour.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.attributes import AttributeHeads
from dqecir.backbones.blip2 import Blip2, TextBatch, unit
from dqecir.data.triplets import DataError
from dqecir.methods.dqe import Dqe, DqeOptions
from dqecir.methods.method import MethodContext, MethodOptions, Query, TrainingBatch, register

FLOOR = 0.01
"""Added to probabilities before the logarithm: a head that is sure is sometimes wrong."""


class DqeValuesOptions(DqeOptions):
    """Options of DQE, with the defaults that suit attribute values."""

    attributes: tuple[str, ...] = Field(default=("colour", "shape", "pattern"), min_length=1)
    gate_bias: float = 0.0
    pair_weight: float = Field(default=0.0, ge=0)
    ranking_weight: float = Field(default=0.0, ge=0)
    attribute_weight: float = Field(default=0.0, ge=0)
    contrast_weight: float = Field(default=1.0, ge=0)
    contrast_right_answers: Literal["kept", "left_out"] = "left_out"
    value_weight: float = Field(default=1.0, ge=0)
    """Weight of the log-likelihood of the target's true values under the query's."""
    mention_weight: float = Field(default=1.0, ge=0)
    """Weight of telling which columns the text asks of, where the data knows."""
    head_scale: float = Field(default=0.07, gt=0)
    """Scale of log-probabilities beside cosines [κ]; at the temperature's value they count in full."""


@register("dqe_values")
class DqeValues(Dqe):
    """DQE over a backbone with attribute heads; queries and target tokens are [base; values]."""

    options_type = DqeValuesOptions

    def __init__(
        self, backbone: Blip2, options: DqeValuesOptions, heads: AttributeHeads, places: dict[str, int]
    ) -> None:
        # The sub-queries of the base class are not built: values take their place.
        super().__init__(backbone, options.model_copy(update={"attributes": ()}))
        self.options: DqeValuesOptions = options
        self.heads = heads.requires_grad_(False)
        known = heads.config.columns
        self.columns = tuple(column for column in known if column in places)
        self.head_places = tuple(list(known).index(column) for column in self.columns)
        self.sizes = tuple(len(known[column]) for column in self.columns)
        self.owners = tuple(places[column] for column in self.columns)
        width, count = backbone.config.hidden_size, len(self.columns)
        self.prompts = nn.Parameter(torch.zeros(count, width))
        self.key = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.key.weight)
        self.word_norm = nn.LayerNorm(width)
        self.read_norm = nn.LayerNorm(width)
        self.lexicon_bias = nn.Parameter(torch.full((count,), options.lexicon_bias))
        self.asks = nn.Parameter(torch.zeros(count, width))
        self.asks_bias = nn.Parameter(torch.zeros(count))
        self.values = nn.ModuleList(nn.Linear(width, size) for size in self.sizes)
        # How a comparison moves the reference's own value: what "darker" makes of each colour.
        self.moves = nn.ModuleList(nn.Linear(width + size, size) for size in self.sizes)
        self.gate_norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, len(options.attributes))
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, options.gate_bias)
        self.column_scale = nn.Parameter(torch.ones(count))
        self.base_scale = nn.Parameter(torch.ones(()))

    @classmethod
    def build(cls, backbone: Blip2, options: MethodOptions, context: MethodContext) -> DqeValues:
        assert isinstance(options, DqeValuesOptions)
        if context.heads is None or not context.columns:
            raise DataError(
                "dqe_values needs a model with attribute heads for the attributes it names: pretrain one "
                "with dqecir pretrain, or train dqe instead"
            )
        method = cls(backbone, options, context.heads, dict(context.columns))
        words = backbone.embeddings.word_embeddings.weight.detach()
        lexicons = torch.stack([words[context.lexicon_ids[owner]].mean(dim=0) for owner in method.owners])
        method.prompts.data.copy_(lexicons)
        return method

    @property
    def target_shape(self) -> tuple[int, int]:
        tokens, size = super().target_shape
        return tokens, size + sum(self.sizes)

    def train(self, mode: bool = True) -> DqeValues:
        """Set the mode of everything but the frozen heads."""
        super().train(mode)
        self.heads.eval()
        return self

    def embed_target(self, tokens: Tensor) -> Tensor:
        base = self.backbone.target_embeddings(tokens)  # [N, n_t, D]
        shown = torch.cat([(values + FLOOR).log() for values in self.shown_values(tokens)], dim=1)  # [N, V]
        return torch.cat([base, shown[:, None].expand(-1, base.shape[1], -1)], dim=2)

    @torch.no_grad()
    def shown_values(self, tokens: Tensor) -> list[Tensor]:
        """Probabilities of every column's values as the heads see them: one [N, values] a column."""
        logits = self.heads(tokens)
        return [logits[column].float().softmax(dim=1) for column in self.columns]

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        return self._compose(reference, text)[0]

    def _compose(self, reference: Tensor, text: TextBatch) -> tuple[Query, list[Tensor], Tensor]:
        """The query, the values it asks for (one [B, values] a column), and the logits of m [B, C]."""
        states, _ = self.backbone.composed_states(reference, text.ids, text.mask)
        base = unit(self.backbone.text_projection(states.mean(dim=1)))  # [B, D]
        words = self.backbone.text_states(text.ids, text.mask)  # [B, L, H]
        read = self.read_norm(self._read(words, text))  # [B, C, H]
        asks = torch.einsum("bch,ch->bc", read, self.asks).float() + self.asks_bias
        wanted = [
            self._wanted(place, read[:, place], asks[:, place], known)
            for place, known in enumerate(self.shown_values(reference))
        ]
        weights = 2 * self.gate(self.gate_norm(words[:, 0])).float().sigmoid()  # [B, A]
        blocks = [
            self.options.head_scale * scale * values
            for values, scale in zip(wanted, self.column_scale, strict=True)
        ]
        weighted = [weights[:, o, None] * block for o, block in zip(self.owners, blocks, strict=True)]
        embedding = torch.cat([self.base_scale * base, *weighted], dim=1)[:, None]
        return Query(embedding, self._attribute_parts(blocks, base), weights), wanted, asks

    def _read(self, words: Tensor, text: TextBatch) -> Tensor:
        """What each column reads of word states [B, L, H]: [B, C, H]."""
        keys = self.key(self.word_norm(words))
        logits = torch.einsum("ch,blh->bcl", self.prompts, keys).float() / words.shape[2] ** 0.5
        mentioned = text.mentions[:, list(self.owners)].to(logits.dtype)  # [B, C, L]
        logits = logits + self.lexicon_bias[None, :, None] * mentioned
        attention = logits.masked_fill(~text.mask.bool()[:, None], -torch.inf).softmax(dim=2)
        return torch.einsum("bcl,blh->bch", attention.to(words.dtype), words)

    def _wanted(self, place: int, read: Tensor, asks: Tensor, known: Tensor) -> Tensor:
        """q_c [B, values]: what the text asks of a column, or what the reference shows of it."""
        moved = self.moves[place](torch.cat([read, known.to(read.dtype)], dim=1))
        asked = (self.values[place](read) + moved).float().softmax(dim=1)
        share = asks.sigmoid()[:, None]
        return share * asked + (1 - share) * known

    def _attribute_parts(self, blocks: list[Tensor], base: Tensor) -> Tensor:
        """For each attribute the query of that attribute alone, unweighted: [B, A, D + V]."""
        parts = []
        for attribute in range(len(self.options.attributes)):
            own = [
                block if owner == attribute else torch.zeros_like(block)
                for owner, block in zip(self.owners, blocks, strict=True)
            ]
            parts.append(torch.cat([torch.zeros_like(base), *own], dim=1))
        return torch.stack(parts, dim=1)

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        query, wanted, asks = self._compose(batch.reference, batch.text)
        terms = self.score_terms(query, batch)
        places = list(self.head_places)
        true = batch.attribute_values[batch.targets][:, places]  # [B, C]
        if self.options.value_weight > 0:
            losses = [
                F.nll_loss((values + FLOOR).log(), true[:, place], ignore_index=-1)
                for place, values in enumerate(wanted)
                if bool((true[:, place] >= 0).any())
            ]
            if losses:
                terms["values"] = self.options.value_weight * torch.stack(losses).mean()
        if self.options.mention_weight > 0 and batch.asked is not None:
            asked = batch.asked[:, places]
            known = asked >= 0
            if bool(known.any()):
                wrong = F.binary_cross_entropy_with_logits(asks[known], asked[known].float())
                terms["mentions"] = self.options.mention_weight * wrong
        return terms
