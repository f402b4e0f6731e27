"""DQE-CIR: distinctive query embeddings (arXiv 2603.04037).

A query is a base query plus one sub-query for each attribute, such as colour; learned attribute weights,
which depend on the text, decide how much each counts (E1 to E5 of docs/method.md). Training contrasts each
query with one negative that is near the target, by a pairwise KL loss, a margin ranking loss and attribute
margins (E8). Choices that the publication leaves open are options; the defaults are the published recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.encoder import TextBatch, unit
from dqecir.methods.losses import (
    attribute_margin,
    contrastive,
    grouped_contrast,
    hardness_weighted,
    margin_ranking,
    pairwise_kl,
    preference,
    several_positives,
)
from dqecir.methods.method import (
    Method,
    MethodContext,
    MethodOptions,
    Query,
    QueryParts,
    TrainingBatch,
    register,
)
from dqecir.methods.negatives import NegativeSampling
from dqecir.methods.scoring import score


class DqeOptions(MethodOptions):
    """Options of DQE-CIR; symbols of docs/method.md are in square brackets."""

    removed_keys: ClassVar[Mapping[str, object]] = {"smoothing": 0.0}
    removed_values: ClassVar[Mapping[str, tuple[object, ...]]] = {"weights": ("softmax",)}

    attributes: tuple[str, ...] = ("colour", "shape")
    """Vocabularies that have a sub-query each. Empty: only the base query, which is that of QuRe."""
    sub_query: Literal["prompt_attention", "projection"] = "prompt_attention"
    """How sub-queries are made: by attention of an attribute prompt over all states (E3), or as a projection
    of the mean state."""
    weights: Literal["text_gate", "scalar", "fixed"] = "text_gate"
    """Attribute weights that depend on the text (E4), that are learned but equal for all texts, or that are
    fixed at 1."""
    lexicon_bias: float = 2.0
    """Initial number that is added to the attention logits of words in the attribute's lexicon [b_a]."""
    gate_bias: float = -2.0
    """Initial bias of the gate that computes attribute weights [c_a]; with -2 they begin at σ(-2) ≈ 0.12."""
    pair_weight: float = Field(default=1.0, ge=0)
    ranking_weight: float = Field(default=1.0, ge=0)
    margin: float = Field(default=0.15, ge=0)
    attribute_weight: float = Field(default=0.5, ge=0)
    attribute_margin: float = Field(default=0.10, ge=0)
    unmentioned: float = Field(default=0.25, ge=0, le=1)
    """Factor of an attribute's margin loss if the text does not mention the attribute [ρ]."""
    pair: Literal["kl", "grouped", "preference"] = "kl"
    """The pairwise loss: ``kl`` (E8), ``grouped`` (:func:`grouped_contrast`) or ``preference``
    (:func:`preference`)."""
    preference_margin: float = Field(default=0.05, ge=0)
    """Margin by which the target's score should exceed that of a negative, if ``pair`` is ``preference``."""
    contrast_weight: float = Field(default=0.0, ge=0)
    """Weight of a contrast with the other images of the batch; the publication has none."""
    contrast: Literal["info_nce", "hardness_weighted", "several_positives"] = "info_nce"
    """The contrast within the batch. With ``several_positives`` known right answers in the batch count as
    targets too."""
    hardness: float = Field(default=0.5, ge=0)
    """How much more hard negatives weigh [β], if ``contrast`` is ``hardness_weighted``."""
    contrast_right_answers: Literal["kept", "left_out"] = "kept"
    """Whether known right answers in the batch count as negatives (``kept``) or not (``left_out``)."""
    temperature_bounds: tuple[float, float] = (0.01, 0.5)

    @model_validator(mode="after")
    def _something_is_trained(self) -> DqeOptions:
        if self.pair_weight + self.ranking_weight + self.contrast_weight == 0:
            raise ValueError(
                "pair_weight, ranking_weight and contrast_weight are all zero, but attribute margins alone "
                "do not train the whole query: set one of them above 0"
            )
        return self

    @property
    def needs_negatives(self) -> bool:
        """Whether any term of the loss compares the target with drawn negatives."""
        auxiliary = self.attribute_weight if self.attributes else 0.0
        return self.pair_weight + self.ranking_weight + auxiliary > 0

    def check_negatives(self, negatives: NegativeSampling) -> None:
        """Raise ``ValueError`` if a loss would have no negatives, or if negatives would have no loss.

        Also raised if the warm-up or the ranking loss would train nothing.
        """
        if self.needs_negatives and negatives.choose == "none":
            raise ValueError(
                "pairwise losses need negatives: set negatives.choose, or set pair_weight, ranking_weight "
                "and attribute_weight to 0"
            )
        if negatives.mined and negatives.warm_up == "in_batch" and self.contrast_weight == 0:
            raise ValueError(
                "the warm-up is in-batch contrast and contrast_weight is 0, so it would train nothing: set "
                "contrast_weight, or negatives.warm_up to random"
            )
        if not self.needs_negatives and negatives.choose != "none":
            raise ValueError("negatives are drawn but no loss uses them: set negatives.choose to none")
        fixed_band = negatives.choose == "mid_zone" and negatives.bounds == "absolute"
        if fixed_band and self.ranking_weight > 0 and self.margin <= negatives.low:
            raise ValueError(
                f"margin ({self.margin}) must exceed negatives.low ({negatives.low}): every mined negative "
                "already lies further than the margin, so the ranking loss would be zero at each refresh"
            )


@register("dqe")
class Dqe(Method):
    """DQE-CIR over a BLIP-2 backbone.

    The score is the largest product of the query [B, 1, D] with a target token.
    """

    backbone: Blip2
    options_type: ClassVar[type[MethodOptions]] = DqeOptions
    requires = frozenset({"text_states", "composed", "word_embeddings"})

    def __init__(self, backbone: Blip2, options: DqeOptions) -> None:
        super().__init__(backbone)
        self.options = options
        width, size = backbone.config.hidden_size, backbone.config.embedding_size
        count = len(options.attributes)
        if count == 0:
            return
        self.residual = nn.Parameter(torch.zeros(count, width, size))  # R_a
        if options.sub_query == "prompt_attention":
            self.prompts = nn.Parameter(torch.zeros(count, width))  # p_a
            self.key = nn.Linear(width, width, bias=False)  # K
            nn.init.eye_(self.key.weight)
            self.state_norm = nn.LayerNorm(width)
            self.lexicon_bias = nn.Parameter(torch.full((count,), options.lexicon_bias))  # b_a
        if options.weights == "text_gate":
            self.gate_norm = nn.LayerNorm(width)
            self.gate = nn.Linear(width, count)  # g_a, c_a
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, options.gate_bias)
        elif options.weights == "scalar":
            self.gate_bias = nn.Parameter(torch.full((count,), options.gate_bias))
        if options.weights != "fixed":
            self.scale = nn.Parameter(torch.ones(count))  # λ_a

    @classmethod
    def from_context(cls, backbone: Blip2, options: MethodOptions, context: MethodContext) -> Dqe:
        assert isinstance(options, DqeOptions)
        method = cls(backbone, options)
        method.start_from_words(context)
        return method

    @property
    def weighted_attributes(self) -> tuple[int, ...]:
        return tuple(range(len(self.options.attributes)))

    def start_from_words(self, context: MethodContext) -> None:
        """Set every prompt, if there are prompts, to the mean word embedding of its attribute's lexicon."""
        if self.options.attributes and self.options.sub_query == "prompt_attention":
            words = self.backbone.embeddings.word_embeddings.weight.detach()
            self.prompts.data.copy_(torch.stack([words[ids].mean(dim=0) for ids in context.lexicon_ids]))

    def embed_query(self, reference: Tensor, text: TextBatch, order: Tensor | None = None) -> Query:
        """Compose queries from references and texts.

        ``reference`` are image tokens [B, M, W]. ``order`` [B] exchanges attribute weights, to test them: row
        b gets those of row ``order[b]``. None: each row keeps its own.
        """
        states, words = self.backbone.composed_states(reference, text.ids, text.mask)
        base = unit(self.backbone.text_projection(states.mean(dim=1)))  # [B, D] (E1)
        if not self.options.attributes:
            return Query(base[:, None])
        pooled = self.attribute_states(states, words, text)  # [B, A, H]
        residual = torch.einsum("bah,ahd->bad", pooled, self.residual)
        attribute = unit(self.backbone.text_projection(pooled) + residual)  # [B, A, D] (E3)
        weights = self.attribute_weights(words[:, 0], order)  # [B, A]
        total = base + torch.einsum("ba,bad->bd", weights, attribute)
        pieces = attribute[:, :, None]
        parts = QueryParts(base[:, None], pieces, weights, self.weighted_attributes, normalised=True)
        return Query(unit(total)[:, None], pieces, weights, parts)  # (E5)

    def attribute_states(self, states: Tensor, words: Tensor, text: TextBatch) -> Tensor:
        """Return a state of each attribute [B, A, H] from query states [B, n_q, H] and word states [B, L, H].

        ``text`` says which words are padding, and which belong to the lexicon of an attribute.
        """
        if self.options.sub_query == "projection":
            return states.mean(dim=1)[:, None].expand(-1, len(self.options.attributes), -1)
        values = torch.cat([states, words], dim=1)  # [B, n_q + L, H]
        keys = self.key(self.state_norm(values))
        logits = torch.einsum("ah,bsh->bas", self.prompts, keys) / values.shape[2] ** 0.5
        count = states.shape[1]
        mentioned = nn.functional.pad(text.mentions.to(logits.dtype), (count, 0))
        kept = nn.functional.pad(text.mask.bool(), (count, 0), value=True)
        logits = logits + self.lexicon_bias[None, :, None] * mentioned
        attention = logits.masked_fill(~kept[:, None], -torch.inf).softmax(dim=2)
        return torch.einsum("bas,bsh->bah", attention, values)

    def attribute_weights(self, text_state: Tensor, order: Tensor | None = None) -> Tensor:
        """Return attribute weights [B, A] (E4) from the state [B, H] of each text.

        ``order`` [B] exchanges them: row b gets the weights of row ``order[b]``. None: each keeps its own.
        """
        if order is not None:
            text_state = text_state[order]
        rows, count = text_state.shape[0], len(self.options.attributes)
        if self.options.weights == "fixed":
            return text_state.new_ones(rows, count, dtype=torch.float32)
        if self.options.weights == "scalar":
            return (self.scale * self.gate_bias.sigmoid()).expand(rows, count)
        return self.scale * self.gate(self.gate_norm(text_state)).float().sigmoid()

    def contrasted(self, batch: TrainingBatch) -> Tensor:
        """Return a mask [B, C] of the negatives: drawn ones, and those of the contrast within the batch."""
        if self.options.contrast_weight > 0:
            taken = super().contrasted(batch)
            return taken & ~batch.right if self._right_left_out else taken
        taken = torch.zeros_like(batch.right)
        return taken.scatter_(1, batch.negatives, True)

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        return self.score_terms(self.embed_query(batch.reference, batch.text), batch)

    def score_terms(self, query: Query, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the loss terms that compare scores, by name: those of E8, and the contrast within the batch.

        Each is multiplied by its weight; those of weight 0 are left out.
        """
        options = self.options
        candidates = self.embed_target(batch.candidates)  # [C, n_t, D]
        scores = score(query.embeddings, candidates, self.score_rule)  # [B, C]
        terms: dict[str, Tensor] = {}
        if options.contrast_weight > 0:
            terms["contrast"] = options.contrast_weight * self._contrast(scores, batch)
        if batch.negatives.shape[1] == 0:
            return terms
        positive = scores.gather(1, batch.targets[:, None])[:, 0]
        negative = scores.gather(1, batch.negatives)
        if options.pair_weight > 0:
            terms["pair"] = options.pair_weight * self._pair(positive, negative)
        if options.ranking_weight > 0:
            terms["ranking"] = options.ranking_weight * margin_ranking(positive, negative, options.margin)
        if query.attribute_embeddings is not None and options.attribute_weight > 0:
            terms["attribute"] = options.attribute_weight * self._attribute_margin(
                query.attribute_embeddings, candidates, batch
            )
        return terms

    @property
    def _right_left_out(self) -> bool:
        """Whether known right answers do not count as negatives in the contrast within the batch."""
        options = self.options
        return options.contrast == "several_positives" or options.contrast_right_answers == "left_out"

    def _contrast(self, scores: Tensor, batch: TrainingBatch) -> Tensor:
        """Return the contrast within the batch that the options choose, for scores [B, C]."""
        temperature = self.backbone.temperature
        if self.options.contrast == "several_positives":
            positives = batch.right.scatter(1, batch.targets[:, None], True)
            return several_positives(scores, positives, temperature)
        left_out = batch.right if self._right_left_out else None
        if self.options.contrast == "hardness_weighted":
            return hardness_weighted(scores, batch.targets, temperature, self.options.hardness, left_out)
        return contrastive(scores, batch.targets, temperature, left_out)

    def _pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the pairwise loss that the options choose; scores of targets [B] and of negatives [B, K]."""
        temperature = self.backbone.temperature
        if self.options.pair == "preference":
            return preference(positive, negative, temperature, self.options.preference_margin)
        return {"kl": pairwise_kl, "grouped": grouped_contrast}[self.options.pair](
            positive, negative, temperature
        )

    def _attribute_margin(self, attribute: Tensor, candidates: Tensor, batch: TrainingBatch) -> Tensor:
        """Return the margin loss of the sub-queries ``attribute`` [B, A, D]: each must prefer the target.

        ``candidates`` are target embeddings [C, n_t, D]. The loss of an attribute that the text does not
        mention counts less, by the option ``unmentioned``.
        """
        rows, count = attribute.shape[:2]
        scores = score(attribute.flatten(0, 1), candidates, self.score_rule)
        scores = scores.unflatten(0, (rows, count))  # [B, A, C]
        positive = scores.gather(2, batch.targets[:, None, None].expand(-1, count, -1))[:, :, 0]
        negative = scores.gather(2, batch.negatives[:, None].expand(-1, count, -1))
        mentioned = batch.text.mentions.any(dim=2)
        weights = torch.where(mentioned, 1.0, self.options.unmentioned)
        return attribute_margin(positive, negative, weights, self.options.attribute_margin)

    @torch.no_grad()
    def after_step(self) -> None:
        self.backbone.temperature.clamp_(*self.options.temperature_bounds)
