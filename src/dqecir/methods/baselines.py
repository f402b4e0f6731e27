"""Baselines without training: the reference alone, the text alone, their sum and their product.

Every results table shows them, because a benchmark that one of them solves does not measure composition.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dqecir.encoders.encoder import TextBatch, unit
from dqecir.errors import DataError
from dqecir.methods.method import Method, MethodOptions, Query, QueryParts, TrainingBatch, register


class BaselineOptions(MethodOptions):
    """Baselines have no options."""


class Baseline(Method):
    """The base of methods whose queries are pretrained embeddings, without any training."""

    options_type: ClassVar[type[MethodOptions]] = BaselineOptions
    requires = frozenset({"image", "text"})

    def image_embedding(self, reference: Tensor) -> Tensor:
        """Return a unit vector [B, D] of each image: the direction of the mean of its target embedding.

        ``reference`` are image tokens [B, M, W].
        """
        return unit(self.backbone.target_embeddings(reference).mean(dim=1))

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        raise DataError(
            f"{self.name} is a baseline with nothing to train: name a method such as dqe in the recipe"
        )


@register("image_only")
class ImageOnly(Baseline):
    """The query is the embedding of the reference image; the text is ignored."""

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        return Query(self.image_embedding(reference)[:, None])


@register("text_only")
class TextOnly(Baseline):
    """The query is the embedding of the modification text; the reference image is ignored."""

    def embed_text(self, text: TextBatch) -> Tensor:
        return unit(self.backbone.pooled_text(text))[:, None]

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        return Query(unit(self.backbone.pooled_text(text))[:, None])


@register("image_plus_text")
class ImagePlusText(Baseline):
    """The query is the sum of the unit embeddings of reference and text, scaled to length 1."""

    def embed_text(self, text: TextBatch) -> Tensor:
        return unit(self.backbone.pooled_text(text))[:, None]

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        words = unit(self.backbone.pooled_text(text))
        return Query(unit(self.image_embedding(reference) + words)[:, None])


@register("product")
class Product(Baseline):
    """The score is the product of the similarities to reference and text, so that a target must fit both."""

    score_rule = "product"

    @property
    def target_shape(self) -> tuple[int, int]:
        return 1, self.backbone.sizes.embedding

    def embed_target(self, tokens: Tensor) -> Tensor:
        return self.image_embedding(tokens)[:, None]

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        both = [self.image_embedding(reference), unit(self.backbone.pooled_text(text))]
        return Query(twice_where_blank(torch.stack(both, dim=1), text))


def twice_where_blank(queries: Tensor, text: TextBatch) -> Tensor:
    """Replace the text's vector by the image's, in place, in each query whose text is empty; return all.

    ``queries`` [B, 2, D]: for each query the vectors of its image and of its text.
    """
    blank = [row for row, words in enumerate(text.texts) if not words.strip()]
    queries[blank, 1] = queries[blank, 0]
    return queries


@register("token_mean")
class TokenMean(Baseline):
    """Queries and targets are the mean of an image's patch tokens, as unit vectors; the text is ignored."""

    score_rule = "dot"
    requires = frozenset()

    @property
    def target_shape(self) -> tuple[int, int]:
        return 1, self.backbone.sizes.token_width

    def embed_target(self, tokens: Tensor) -> Tensor:
        return unit(self.backbone.image_grid(tokens).mean(dim=(2, 3)))[:, None]

    def target_state(self) -> dict[str, Tensor]:
        return self.backbone.grid_state("backbone.")

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        base = self.embed_target(reference)
        pieces, weights = base.new_empty(len(base), 0, *base.shape[1:]), base.new_empty(len(base), 0)
        unread = tuple((words,) if words.strip() else () for words in text.texts)
        return Query(base, parts=QueryParts(base, pieces, weights, (), unread=unread))
