"""DQE with attribute heads: compare each attribute of the query with the same attribute of the image.

The published sub-queries are compared with the same target tokens as the base query, and so repeat it. Here a
sub-query is the probability of each value that the target should have, and trained attribute heads give the
probability of each value that it shows. The score is still one inner product:

    s = max_k q₀·v_k + κ Σ_c w_c(T) Σ_value log p_q,c(value) · p_v,c(value)

where c is a catalogue column, p_v are the heads' probabilities for the candidate, p_q those of the query, and
w is the learned attribute weight of the column's attribute for the text T.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.data.cells import UNKNOWN_CODE
from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.encoder import TextBatch, unit
from dqecir.errors import DataError
from dqecir.methods.attribute_heads import AttributeHeads
from dqecir.methods.headed import HeadedDqe, HeadedOptions
from dqecir.methods.method import MethodContext, MethodOptions, Query, QueryParts, TrainingBatch, register

HEAD_SMOOTHING = 1e-3
"""Added to probabilities before the logarithm, because heads are sometimes confidently wrong."""


class DqeHeadsOptions(HeadedOptions):
    """Options of DQE with attribute heads, besides those of DQE."""

    gate_bias: float = 0.0
    value_weight: float = Field(default=0.5, ge=0)
    """Weight of the cross-entropy between the query's values and the true values of the target."""
    head_scale: float = Field(default=0.07, gt=0)
    """Scale of the attribute scores relative to the cosines of the base query [κ]."""


@register("dqe_heads")
class DqeHeads(HeadedDqe):
    """DQE over a backbone with attribute heads; a query vector, and each target token, is [base; values]."""

    options_type = DqeHeadsOptions

    def __init__(
        self, backbone: Blip2, options: DqeHeadsOptions, heads: AttributeHeads, places: dict[str, int]
    ) -> None:
        super().__init__(backbone, options, heads, places)
        del self.residual  # values replace projected sub-queries
        self.value_weight, self.head_scale = options.value_weight, options.head_scale
        width = backbone.config.hidden_size
        self.value_norm = nn.LayerNorm(width)
        self.values = nn.ModuleList(nn.Linear(width, size) for size in self.sizes)
        self.keep = nn.Linear(width, len(self.columns))
        nn.init.zeros_(self.keep.weight)
        nn.init.ones_(self.keep.bias)
        self.column_scale = nn.Parameter(torch.ones(len(self.columns)))

    @classmethod
    def from_context(cls, backbone: Blip2, options: MethodOptions, context: MethodContext) -> DqeHeads:
        assert isinstance(options, DqeHeadsOptions)
        if context.heads is None or not context.columns:
            raise DataError(
                "dqe_heads needs a model with attribute heads for the attributes it names: pretrain one with "
                "dqecir pretrain, or train dqe instead"
            )
        method = cls(backbone, options, context.heads, dict(context.columns))
        method.start_from_words(context)
        return method

    @property
    def target_shape(self) -> tuple[int, int]:
        tokens, size = super().target_shape
        return tokens, size + sum(self.sizes)

    def embed_target(self, tokens: Tensor) -> Tensor:
        base = self.backbone.target_embeddings(tokens)  # [N, n_t, D]
        shown = torch.cat(self.shown_values(tokens), dim=1)  # [N, V]
        return torch.cat([base, shown[:, None].expand(-1, base.shape[1], -1)], dim=2)

    def embed_query(self, reference: Tensor, text: TextBatch, order: Tensor | None = None) -> Query:
        return self.compose(reference, text, order)[0]

    def compose(
        self, reference: Tensor, text: TextBatch, order: Tensor | None = None
    ) -> tuple[Query, list[Tensor]]:
        """Return the queries, and for each column logits [B, values] of the values wanted in the target.

        ``reference`` are image tokens [B, M, W]. ``order`` [B] exchanges attribute weights, to test them: row
        b gets those of row ``order[b]``. None: each row keeps its own.
        """
        states, words = self.backbone.composed_states(reference, text.ids, text.mask)
        base = unit(self.backbone.text_projection(states.mean(dim=1)))  # [B, D]
        asked = self.value_norm(self.attribute_states(states, words, text))  # [B, A, H]
        keep = F.softplus(self.keep(self.value_norm(words[:, 0])).float())  # [B, columns]
        shown = self.shown_values(reference)
        # Add the reference's values to the text's request, as far as the text does not change them.
        logits = [
            value(asked[:, owner]).float() + keep[:, place, None] * (known + HEAD_SMOOTHING).log()
            for place, (value, owner, known) in enumerate(zip(self.values, self.owners, shown, strict=True))
        ]
        weights = self.attribute_weights(words[:, 0], order)  # [B, A]
        blocks = [
            self.head_scale * scale * (values.softmax(dim=1) + HEAD_SMOOTHING).log()
            for values, scale in zip(logits, self.column_scale, strict=True)
        ]
        weighted = [weights[:, o, None] * block for o, block in zip(self.owners, blocks, strict=True)]
        embedding = torch.cat([base, *weighted], dim=1)[:, None]
        pieces = self._pieces(blocks, base)
        rest = F.pad(base, (0, sum(self.sizes)))[:, None]
        parts = QueryParts(rest, pieces, weights[:, list(self.owners)], self.owners, self.columns)
        return Query(embedding, self._by_attribute(pieces), weights, parts), logits

    def _pieces(self, blocks: list[Tensor], base: Tensor) -> Tensor:
        """Return the part of each of C columns in the query, at weight 1: [B, C, 1, D + V].

        ``blocks``: for each column the scaled log-probabilities of its values [B, values]; V values in all.
        ``base`` [B, D] is the base query.
        """
        start, whole, pieces = base.shape[1], base.shape[1] + sum(self.sizes), []
        for block in blocks:
            end = start + block.shape[1]
            pieces.append(F.pad(block, (start, whole - end)))
            start = end
        return torch.stack(pieces, dim=1)[:, :, None]

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        query, logits = self.compose(batch.reference, batch.text)
        terms = self.score_terms(query, batch)
        if self.value_weight > 0:
            wanted = batch.attribute_values[batch.targets][:, list(self.head_places)]  # [B, columns]
            losses = [
                F.cross_entropy(values, wanted[:, place], ignore_index=UNKNOWN_CODE)
                for place, values in enumerate(logits)
                if bool((wanted[:, place] != UNKNOWN_CODE).any())
            ]
            if losses:
                terms["values"] = self.value_weight * torch.stack(losses).mean()
        return terms
