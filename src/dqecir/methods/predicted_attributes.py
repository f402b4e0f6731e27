"""Predicted attributes and a parsed text: a baseline without trained composition.

Trained attribute heads predict the values of the reference and of every candidate; rules read requested
values in the text. Candidates are ranked by the log-probability that they show the requested values and, in
all other columns, those of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from dqecir.encoders.encoder import Encoder, TextBatch
from dqecir.errors import DataError
from dqecir.language.parsing import Parser
from dqecir.language.vocabulary import SHIPPED
from dqecir.methods.attribute_heads import AttributeHeads
from dqecir.methods.baselines import Baseline
from dqecir.methods.method import MethodContext, MethodOptions, Query, QueryParts, register
from dqecir.methods.text_requests import text_requests
from dqecir.questions.answers import RequestedValues
from dqecir.settings import nearest

PREDICTION_SMOOTHING = 0.01
"""Added to probabilities before the logarithm, because heads are sometimes confidently wrong."""


class PredictedAttributesOptions(MethodOptions):
    """Options: the vocabularies of the parser, and the columns that are compared."""

    attributes: tuple[str, ...] = SHIPPED
    """Vocabularies of the parser."""
    columns: tuple[str, ...] | None = None
    """Columns that are compared. Default: all columns of the heads."""


@register("predicted_attributes")
class PredictedAttributes(Baseline):
    """The score is s = Σ_c Σ_v a_c(v) log p_c(v): wanted values a_c against a candidate's probabilities p_c.

    a_c gives equal probabilities to the requested values of a column c; without a request, it is the
    reference's distribution. Because the sum over values v is outside of the logarithm, the score is one
    inner product, which every index can compute; ``evaluation/predicted.py`` ranks by the exact
    log-probability.
    """

    options_type = PredictedAttributesOptions
    score_rule = "dot"
    requires = frozenset()
    parser: Parser

    def __init__(
        self, backbone: Encoder, heads: AttributeHeads, columns: Sequence[str], parser: Parser
    ) -> None:
        super().__init__(backbone)
        self.heads = heads.requires_grad_(False)
        self.columns, self.parser = tuple(columns), parser

    @classmethod
    def from_context(
        cls, backbone: Encoder, options: MethodOptions, context: MethodContext
    ) -> PredictedAttributes:
        assert isinstance(options, PredictedAttributesOptions)
        if context.heads is None:
            raise DataError(
                "predicted_attributes needs a model with attribute heads: pretrain one with dqecir pretrain"
            )
        known = context.heads.config.columns
        columns = options.columns or tuple(known)
        for column in columns:
            if column not in known:
                raise DataError(f"the model has no attribute head for {column!r}{nearest(column, known)}")
        parser = Parser(context.vocabularies, {column: known[column] for column in columns})
        return cls(backbone, context.heads, columns, parser)

    def train(self, mode: bool = True) -> PredictedAttributes:
        """Stay in evaluation mode whatever ``mode`` is, because nothing is trained; return this method."""
        return super().train(False)

    @property
    def target_shape(self) -> tuple[int, int]:
        return 1, sum(len(self.heads.config.columns[column]) for column in self.columns)

    @torch.no_grad()
    def shown(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return column -> probabilities of its values [N, values], for image tokens [N, M, W]."""
        logits = self.heads(tokens)
        return {column: logits[column].float().softmax(dim=1) for column in self.columns}

    def embed_target(self, tokens: Tensor) -> Tensor:
        shown = self.shown(tokens)
        return torch.cat([(shown[column] + PREDICTION_SMOOTHING).log() for column in self.columns], dim=1)[
            :, None
        ]

    def target_state(self) -> dict[str, Tensor]:
        return self.heads.state_dict(prefix="heads.")

    @property
    def target_values(self) -> Mapping[str, Sequence[str]]:
        return {column: self.heads.config.columns[column] for column in self.columns}

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        if len(text.texts) != len(reference):
            raise DataError(
                "the batch has token ids but not the texts, which this method reads: encode the texts with "
                "the model's text encoder"
            )
        shown = list(self.shown(reference).values())
        asked, wanted = text_requests(self.parser, text.texts, self.target_values, shown)
        sizes = [values.shape[1] for values in wanted]
        pieces = torch.zeros(len(reference), len(sizes), 1, sum(sizes), device=reference.device)
        for place, (values, end) in enumerate(zip(wanted, accumulate(sizes), strict=True)):
            pieces[:, place, 0, end - sizes[place] : end] = values
        parts = QueryParts(
            torch.zeros_like(pieces[:, 0]),
            pieces,
            torch.ones_like(asked),
            (),
            self.columns,
            asked=asked,
            wanted=tuple(wanted),
            unread=tuple(map(self._unread, text.texts)),
        )
        return Query(parts.embeddings(), parts=parts)

    def _unread(self, words: str) -> tuple[str, ...]:
        """Return the clauses of a text that request nothing."""
        return tuple(clause.words for clause in self.parser.clauses(words) if not clause.readings)

    def known(self, shown: Mapping[str, Tensor], row: int) -> dict[str, dict[str, float]]:
        """Return column -> value -> probability for the image in ``row`` of ``shown``."""
        return {
            column: dict(zip(self.heads.config.columns[column], shown[column][row].tolist(), strict=True))
            for column in self.columns
        }

    def admissible(self, column: str, asked: RequestedValues) -> Tensor | None:
        """Return 1.0 for each requested value of a column and 0.0 for each other, [values].

        None if the column is not requested. ``asked``: column -> requested values.
        """
        if column not in asked:
            return None
        values = self.heads.config.columns[column]
        return torch.tensor([1.0 if value in asked[column] else 0.0 for value in values])
