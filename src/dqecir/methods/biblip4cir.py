"""Bi-BLIP4CIR: composition trained in both directions (arXiv 2303.16604).

Forward, the reference and the text must give the target. In reverse, the target and the same text with a
marker before each clause must give the reference. Stage 1 (``biblip4cir_sum``) trains the weights that only
texts use; stage 2 (``biblip4cir``) trains a combiner over the frozen backbone. Published: BLIP ViT-B/16 at
384 px with features of 256; stage 1 AdamW 5e-5 (text projection 5e-3), batch 128, 20 epochs; stage 2 Adam
2e-5, batch 512, 300 epochs; weight of the reverse loss 0.4 and 0.5 (stages 1 and 2) for FashionIQ, 0.1 and
0.1 for CIRR.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from dqecir.data.captions import join_fashioniq
from dqecir.encoders.encoder import Encoder, TextBatch, unit
from dqecir.errors import DataError
from dqecir.methods.clip4cir import COMBINER_KEYS, LOGIT_SCALE, Combiner, combiner_of
from dqecir.methods.losses import contrastive
from dqecir.methods.method import (
    InBatchOptions,
    PooledMethod,
    Query,
    TrainingBatch,
    register,
)
from dqecir.methods.scoring import score

FORWARD, BACKWARD = "[FORWARD]", "[BACKWARD]"


def marked(caption: str, marker: str, published_split: bool = False) -> str:
    """Put ``marker`` before each clause of a caption; the word "and" separates clauses.

    ``published_split``: also the letters "and" inside words ("s·and·als") separate clauses, as in the
    published code.
    """
    joint = "and" if published_split else r"\band\b"
    return "and".join(f" {marker} {clause}" for clause in re.split(joint, caption))


class BiblipSumOptions(InBatchOptions):
    """Options of stage 1."""

    reverse_weight: float = Field(default=0.4, ge=0)
    """Weight of the reverse loss (published: 0.4 for FashionIQ, 0.1 for CIRR)."""
    published_split: bool = False
    """Separate clauses also inside words that contain "and", as the published code does."""
    published_asymmetry: bool = False
    """Normalise the image feature before the sum in the reverse direction but not in the forward one, as the
    published code does in stage 1."""


class BiblipOptions(InBatchOptions):
    """Options of stage 2; the published combiner has sizes of 2,560 and 5,120 over features of 256."""

    projection_size: int = 512
    hidden_size: int = 1024
    reverse_weight: float = Field(default=0.5, ge=0)
    """Weight of the reverse loss (published: 0.5 for FashionIQ, 0.1 for CIRR)."""
    published_split: bool = False


def reverse_loss(composed: Tensor, references: Tensor) -> Tensor:
    """Return the loss of the reverse direction, from target to reference.

    ``composed`` [B, B, D] has at [i, j] the unit composition of target j with the reverse text i;
    ``references`` [B, D] are unit vectors. Of the compositions with text i, that of target i must be the most
    similar to reference i: the cross-entropy over all j at a temperature of 0.01, the mean over i.
    """
    scores = torch.einsum("ijd,id->ij", composed, references)
    return contrastive(scores, torch.arange(len(scores), device=scores.device), scores.new_tensor(0.01))


class BiDirectional(PooledMethod):
    """The common part of both stages: marked texts, frozen image features, and the two losses."""

    reverse_weight: float
    published_split: bool

    def text(self, captions: Sequence[str]) -> str:
        return join_fashioniq([marked(caption, FORWARD, self.published_split) for caption in captions])

    def reverse_text(self, captions: Sequence[str]) -> str:
        return join_fashioniq([marked(caption, BACKWARD, self.published_split) for caption in captions])

    @torch.no_grad()
    def image_features(self, tokens: Tensor) -> Tensor:
        """Return pooled features [N, D] of images, for image tokens [N, M, W]; no stage trains them."""
        return self.backbone.pooled_image(tokens)

    def embed_target(self, tokens: Tensor) -> Tensor:
        return unit(self.image_features(tokens))[:, None]

    @abstractmethod
    def composed(self, images: Tensor, texts: Tensor) -> Tensor:
        """Compose features [B, D] of images and of texts to unit queries [B, D]."""

    @abstractmethod
    def crossed(self, images: Tensor, texts: Tensor) -> Tensor:
        """Compose every text [B, D] with every target image [N, D] to unit queries [B, N, D]."""

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        return Query(self.composed(self.image_features(reference), self.text_features(text))[:, None])

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        if batch.reverse_text is None:
            raise DataError(
                "the batch has no reverse texts, with which this method trains: make the training data with "
                "TrainingData.of and a model of this method"
            )
        references = self.image_features(batch.reference)
        candidates = self.image_features(batch.candidates)
        queries = self.composed(references, self.text_features(batch.text))
        scores = score(queries[:, None], unit(candidates)[:, None], self.score_rule)  # [B, C]
        terms = {"contrast": contrastive(scores, batch.targets, scores.new_tensor(1 / LOGIT_SCALE))}
        if self.reverse_weight > 0:
            back = self.crossed(candidates[batch.targets], self.text_features(batch.reverse_text))
            terms["reverse"] = self.reverse_weight * reverse_loss(back, unit(references))
        return terms


@register("biblip4cir_sum")
class BiblipSum(BiDirectional):
    """Stage 1: the query is the normalised sum of both features.

    Only weights that only texts use are trained.

    The published text encoder is a separate model. In the Q-Former here, texts and images share the
    self-attention, which is therefore frozen, so that images keep their embeddings. Trained are the word and
    position embeddings, the feed-forward layers of texts, and their projection.
    """

    options_type = BiblipSumOptions

    def __init__(self, backbone: Encoder, options: BiblipSumOptions) -> None:
        super().__init__(backbone)
        self.reverse_weight, self.published_split = options.reverse_weight, options.published_split
        self.published_asymmetry = options.published_asymmetry
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(backbone.text_alone.match(name) is not None)

    def image_features(self, tokens: Tensor) -> Tensor:
        # Without dropout, because the embeddings of images must not change.
        was_training = self.backbone.training
        self.backbone.eval()
        features = super().image_features(tokens)
        self.backbone.train(was_training)
        return features

    def composed(self, images: Tensor, texts: Tensor) -> Tensor:
        return unit(images + texts)

    def crossed(self, images: Tensor, texts: Tensor) -> Tensor:
        lent = unit(images) if self.published_asymmetry else images
        return unit(lent[None] + texts[:, None])


@register("biblip4cir")
class Biblip(BiDirectional):
    """Stage 2: train a combiner of pooled features over a frozen backbone."""

    options_type = BiblipOptions
    published_keys = COMBINER_KEYS
    composer_of = staticmethod(combiner_of)
    only_evaluated = ("backbone",)

    def __init__(self, backbone: Encoder, options: BiblipOptions) -> None:
        super().__init__(backbone)
        self.reverse_weight, self.published_split = options.reverse_weight, options.published_split
        size = backbone.sizes.embedding
        self.combiner = Combiner(size, options.projection_size, options.hidden_size)
        backbone.requires_grad_(False)

    @torch.no_grad()
    def text_features(self, text: TextBatch) -> Tensor:
        return super().text_features(text)

    def composed(self, images: Tensor, texts: Tensor) -> Tensor:
        queries: Tensor = self.combiner(images, texts)
        return queries

    def crossed(self, images: Tensor, texts: Tensor) -> Tensor:
        return self.combiner.crossed(images, texts)
