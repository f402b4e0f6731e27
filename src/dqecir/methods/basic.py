"""BASIC: composition without training, by the similarities to the reference and to the text.

The mean feature of the gallery is subtracted from image features, the mean of a text corpus from text
features. The reference is projected to directions in which texts about subjects vary and texts about styles
do not, so that its subject counts and its style does not. From each similarity, the smallest one of its kind
in the gallery is subtracted; both are then combined by the score rule ``harris``.

Source: Psomas et al. (arXiv 2510.25387) and its public code. Two of its steps are left out: expanding a query
by the results of a first search, and averaging a text over many sentences about other subjects. The
publication takes means and smallest similarities from its own pictures and texts; here they come from the
gallery.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dqecir.encoders.encoder import TextBatch, unit
from dqecir.errors import DataError
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.baselines import Baseline, twice_where_blank
from dqecir.methods.method import MethodContext, MethodOptions, Query, register

_ADDED = 1e-5
"""Number that is added to the covariance matrix of the projection, as in the public code."""
_LEAST = 1e-6
_TEXTS = 64
"""Number of texts that are encoded at a time."""


class BasicOptions(MethodOptions):
    """The settings of the projection."""

    components: int = Field(default=250, gt=0)
    """Largest number of directions that the projection keeps."""
    style_weight: float = Field(default=0.2, ge=0, lt=1)
    """Weight of the covariance of the texts about styles, which is subtracted from that of the texts about
    subjects."""


@dataclass(frozen=True)
class BasicStatistics:
    """Statistics of a gallery and of two text corpora, for unit features of width D."""

    image_mean: Tensor
    """Mean image feature of the gallery [D]."""
    text_mean: Tensor
    """Mean text feature of the corpus of subjects [D]."""
    projection: Tensor
    """Projection of image features to directions of subjects [D, D]."""
    least_image: Tensor
    """Smallest similarity of two images of the gallery, after subtracting means; a scalar."""
    least_text: Tensor
    """Smallest similarity of a text about a subject and an image, after subtracting means; a scalar."""

    @classmethod
    def of(cls, images: Tensor, subjects: Tensor, styles: Tensor, options: BasicOptions) -> BasicStatistics:
        """Compute the statistics from unit features of a gallery's images [N, D] and of two corpora of texts.

        ``subjects`` and ``styles`` have the shape [T, D] with their own T each. ``options`` are those of the
        projection.
        """
        image_mean, text_mean = images.mean(dim=0), subjects.mean(dim=0)
        centred = images - image_mean
        kept = projection(subjects - text_mean, styles - text_mean, options)
        return cls(
            image_mean,
            text_mean,
            kept,
            (centred @ centred.T).min(),
            ((subjects - text_mean) @ centred.T).min(),
        )


def projection(subjects: Tensor, styles: Tensor, options: BasicOptions) -> Tensor:
    """Return the projection [D, D] to directions in which subjects vary and styles do not.

    ``subjects`` and ``styles`` are features of texts [T, D], less the mean feature of the subjects;
    ``options`` say how many directions are kept, and how much styles count.
    """

    def covariance(features: Tensor) -> Tensor:
        return features.T @ features / max(1, len(features) - 1)

    share = options.style_weight
    contrasted = (1 - share) * covariance(subjects) - share * covariance(styles) + _ADDED
    values, vectors = torch.linalg.eigh(contrasted)  # in ascending order
    count = min(options.components, int((values > 0).sum()))
    kept = vectors[:, len(values) - count :]
    return kept @ kept.T


@register("basic")
class Basic(Baseline):
    """Queries are two vectors, of the reference and of the text; targets are one vector and a constant.

    With the constant, the inner product of a query vector with a target also subtracts the smallest
    similarity.
    """

    options_type: ClassVar[type[MethodOptions]] = BasicOptions
    score_rule = "harris"
    learns_gallery = True

    def __init__(self, backbone: Any, options: BasicOptions, text_encoder: TextEncoder) -> None:
        super().__init__(backbone)
        self.options, self.text_encoder = options, text_encoder
        width = backbone.sizes.embedding
        self.image_mean: Tensor
        self.text_mean: Tensor
        self.projection: Tensor
        self.least_image: Tensor
        self.least_text: Tensor
        self.register_buffer("image_mean", torch.zeros(width))
        self.register_buffer("text_mean", torch.zeros(width))
        self.register_buffer("projection", torch.zeros(width, width))
        self.register_buffer("least_image", torch.zeros(()))
        self.register_buffer("least_text", torch.zeros(()))

    @classmethod
    def from_context(cls, backbone: Any, options: MethodOptions, context: MethodContext) -> Basic:
        assert isinstance(options, BasicOptions)
        if context.text_encoder is None:
            raise DataError(
                "basic needs a text encoder to encode its corpora: build it with the text encoder of a model"
            )
        return cls(backbone, options, context.text_encoder)

    @torch.no_grad()
    def fit_targets(self, tokens: Iterable[Tensor]) -> None:
        images = [self.image_embedding(some.to(self.device)) for some in tokens]
        if not images:
            return
        subjects, styles = self._corpus("subjects"), self._corpus("styles")
        found = BasicStatistics.of(torch.cat(images), subjects, styles, self.options)
        for name, value in vars(found).items():
            self.get_buffer(name).copy_(value)

    def _corpus(self, name: str) -> Tensor:
        """Return unit features [T, D] of the texts of the shipped corpus ``name``."""
        texts = corpus(name)
        parts = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
        encoded = [self.backbone.pooled_text(self.text_encoder(part).to(self.device)) for part in parts]
        return unit(torch.cat(encoded))

    @property
    def target_shape(self) -> tuple[int, int]:
        return 1, self.backbone.sizes.embedding + 1

    def target_state(self) -> dict[str, Tensor]:
        return super().target_state() | {"image_mean": self.image_mean}

    def embed_target(self, tokens: Tensor) -> Tensor:
        self._check_learned()
        centred = self.image_embedding(tokens) - self.image_mean
        return F.pad(centred, (0, 1), value=1.0)[:, None]

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        self._check_learned()
        scale = self.least_image.abs().clamp(min=_LEAST)
        seen = (self.image_embedding(reference) - self.image_mean) @ self.projection
        words = unit(self.backbone.pooled_text(text)) - self.text_mean
        both = [
            torch.cat([vectors, -least.expand(len(vectors), 1)], dim=1) / scale
            for vectors, least in ((seen, self.least_image), (words, self.least_text))
        ]
        return Query(twice_where_blank(torch.stack(both, dim=1), text))

    def _check_learned(self) -> None:
        if not bool(self.text_mean.any()):
            raise DataError(
                "basic needs the mean feature of a gallery, and has seen none: build an index with it "
                "(dqecir index build)"
            )


@cache
def corpus(name: str) -> tuple[str, ...]:
    """Return the texts of a shipped corpus: ``subjects`` or ``styles``."""
    path = resources.files("dqecir") / "assets" / "corpora" / f"{name}.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())
