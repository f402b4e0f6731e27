"""DQE with attribute values over a dual encoder (separate image and text towers); composition is not trained.

The values that an image shows are predicted by trained attribute heads, if the model has them, else from
descriptions of the values (:mod:`dqecir.methods.prompt_heads`). Rules read the requested values in the text;
other columns keep the reference's values. The score is that of :mod:`dqecir.methods.dqe_values` as one inner
product; its base is the score of the dual encoder, which also covers words that belong to no column:

    s = w_0 cos(image + text, target) + κ Σ_c m_c log Σ_value q_c(value) p_c(value)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dqecir.encoders.encoder import TextBatch, unit
from dqecir.errors import DataError
from dqecir.language.parsing import Parser
from dqecir.methods.attribute_heads import AttributeHeads, TextEncoder
from dqecir.methods.baselines import Baseline
from dqecir.methods.method import MethodContext, MethodOptions, Query, QueryParts, register
from dqecir.methods.prompt_heads import PromptHeads, described_columns
from dqecir.methods.text_requests import text_requests
from dqecir.methods.value_vectors import SlicedValues, ValueSlices

_TEXTS = 64
"""Number of texts that are encoded at a time."""


class DualValuesOptions(MethodOptions):
    """Options: which columns are compared, and their weights."""

    attributes: tuple[str, ...] = Field(default=("colour", "shape", "pattern"), min_length=1)
    """Vocabularies whose columns are compared."""
    base_weight: float = 1.0
    """Weight of the dual encoder's score [w_0]."""
    head_scale: float = Field(default=0.05, gt=0)
    """Scale of log-probabilities relative to cosines [κ]."""
    kept_weight: float = Field(default=0.25, ge=0)
    """Weight m_c of a column that is not requested; a requested column has 1."""


@register("dual_values")
class DualValues(Baseline):
    """Queries and targets are one vector: [base; a slice for each column] (:class:`ValueSlices`)."""

    options_type = DualValuesOptions
    score_rule = "dot"
    parser: Parser

    def __init__(
        self,
        backbone: Any,
        options: DualValuesOptions,
        columns: Mapping[str, tuple[str, ...]],
        heads: AttributeHeads | None,
        text_encoder: TextEncoder,
    ) -> None:
        """Compare ``columns`` (column -> its values), which must be among those of ``heads``.

        Without heads (None), values are predicted from their descriptions. ``text_encoder`` encodes these,
        and has the vocabularies that name the values.
        """
        super().__init__(backbone)
        self.options, self.text_encoder = options, text_encoder
        self.columns = dict(columns)
        vocabularies = text_encoder.vocabularies
        self.owners = tuple(
            next(place for place, known in enumerate(vocabularies) if known.column(column) is not None)
            for column in self.columns
        )
        self.heads = None if heads is None else heads.requires_grad_(False)
        width = backbone.sizes.embedding
        self.prompts = None if heads is not None else PromptHeads(self.columns, width)
        self.learns_gallery = heads is None
        sizes = [len(values) for values in self.columns.values()]
        self.layout = ValueSlices(sizes, width, width + 2 * sum(sizes))
        self.parser = Parser(vocabularies, self.columns)

    @classmethod
    def from_context(cls, backbone: Any, options: MethodOptions, context: MethodContext) -> DualValues:
        assert isinstance(options, DualValuesOptions)
        if context.text_encoder is None:
            raise DataError(
                "dual_values needs a text encoder with its vocabularies: build it with the text encoder of "
                "a model"
            )
        if context.heads is None:
            columns = described_columns(context.vocabularies)
        else:
            known = context.heads.config.columns
            columns = {column: values for column, values in known.items() if column in context.columns}
        if not columns:
            raise DataError(
                "the vocabularies in the option attributes of dual_values describe no column that it can "
                "compare: name other vocabularies"
            )
        return cls(backbone, options, columns, context.heads, context.text_encoder)

    def train(self, mode: bool = True) -> DualValues:
        """Stay in evaluation mode whatever ``mode`` is, because nothing is trained; return this method."""
        return super().train(False)

    @torch.no_grad()
    def fit_targets(self, tokens: Iterable[Tensor]) -> None:
        if self.prompts is None:
            return
        images = [self.image_embedding(some.to(self.device)) for some in tokens]
        if images:
            self.prompts.learn(torch.cat(images), self.text_encoder.vocabularies, self._encoded)

    def _encoded(self, texts: list[str]) -> Tensor:
        """Return unit vectors [T, D] of T texts."""
        parts = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
        encoded = [self.backbone.pooled_text(self.text_encoder(part).to(self.device)) for part in parts]
        return unit(torch.cat(encoded))

    @property
    def weighted_attributes(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.owners)))

    @property
    def target_shape(self) -> tuple[int, int]:
        return self.layout.shape

    @property
    def target_values(self) -> Mapping[str, Sequence[str]]:
        return self.columns

    def target_state(self) -> dict[str, Tensor]:
        heads = self.prompts if self.heads is None else self.heads
        assert heads is not None
        return super().target_state() | heads.state_dict(prefix="heads.")

    def shown_values(self, tokens: Tensor, images: Tensor) -> list[Tensor]:
        """Return the probabilities of each column's values, [N, values], for N images.

        ``tokens`` are image tokens [N, M, W], ``images`` the unit vectors [N, D] of the same images. Raises
        :class:`DataError` if there are neither trained heads nor a gallery that calibrates the descriptions.
        """
        if self.heads is not None:
            logits = self.heads(tokens)
            return [logits[column].float().softmax(dim=1) for column in self.columns]
        assert self.prompts is not None
        if not bool(self.prompts.directions.any()):
            raise DataError(
                "dual_values has no trained heads, and has seen no gallery to calibrate descriptions with: "
                "build an index with it (dqecir index build), or train heads (dqecir catalogue fit)"
            )
        return self.prompts(images, self.backbone.temperature)

    def embed_target(self, tokens: Tensor) -> Tensor:
        images = self.image_embedding(tokens)
        return self.layout.targets(images[:, None], self.shown_values(tokens, images))

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        if len(text.texts) != len(reference):
            raise DataError(
                "the batch has token ids but not the texts, which this method reads: encode the texts with "
                "the model's text encoder"
            )
        images = self.image_embedding(reference)
        said = torch.tensor([bool(words.strip()) for words in text.texts], device=images.device)
        words = unit(self.backbone.pooled_text(text))
        base = self.options.base_weight * unit(images + said[:, None] * words)
        shown = self.shown_values(reference, images)
        asked, wanted = text_requests(self.parser, text.texts, self.columns, shown)
        weights = asked + self.options.kept_weight * (1 - asked)  # m [B, C]
        scales = base.new_full((len(self.columns),), self.options.head_scale)
        sliced = SlicedValues(self.layout, scales)
        parts = QueryParts(
            self.layout.base(base),
            sliced.pieces(wanted),
            weights,
            self.owners,
            tuple(self.columns),
            asked=asked,
            wanted=tuple(wanted),
            reads_all=True,
            slices=sliced,
        )
        return Query(parts.embeddings(), parts=parts)
