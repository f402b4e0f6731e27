"""TIRG: the text gates the image feature, and adds a residual (arXiv 1812.07119).

Published: ResNet-18 and an LSTM with features of 512, all trained; SGD 1e-2, momentum 0.9, batch 32, 160,000
iterations, rate x0.1 every 50,000; no recipe for FashionIQ or CIRR.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dqecir.encoders.checkpoints import PublishedKeys, matrix_sizes
from dqecir.encoders.encoder import Encoder, TextBatch, unit
from dqecir.encoders.lstm import LstmTextEncoder
from dqecir.methods.losses import contrastive, draw_triplets, soft_triplet
from dqecir.methods.method import (
    InBatchOptions,
    PooledMethod,
    Query,
    TrainingBatch,
    register,
)
from dqecir.methods.scoring import score

START = (1.0, 10.0)
"""Initial factors a₁ of the gated image and a₂ of the residual."""
SCALE = 4.0
"""Initial length of the normalised features of queries and targets in the loss."""

BaseLoss = Literal["batch", "soft_triplet"]


class TirgComposer(nn.Module):
    """q = a₁ σ(g(z)) ⊙ x + a₂ e(z) with z = [x; u]: a gated image feature x, and a residual.

    u is the text feature; g and e are small networks. ``scale`` is the learned length of normalised features
    in the loss.
    """

    def __init__(self, size: int, text_size: int) -> None:
        super().__init__()
        joint = size + text_size
        self.gate = nn.Sequential(nn.BatchNorm1d(joint), nn.ReLU(), nn.Linear(joint, size))
        self.residual = nn.Sequential(
            nn.BatchNorm1d(joint), nn.ReLU(), nn.Linear(joint, joint), nn.ReLU(), nn.Linear(joint, size)
        )
        self.amounts = nn.Parameter(torch.tensor(START))
        self.scale = nn.Parameter(torch.tensor([SCALE]))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Compose features of images [B, D] and texts [B, D_t] to queries [B, D], not normalised."""
        joint = torch.cat([image, text], dim=1)
        gated = self.gate(joint).float().sigmoid() * image
        return self.amounts[0] * gated + self.amounts[1] * self.residual(joint).float()


def base_loss(
    queries: Tensor,
    candidates: Tensor,
    targets: Tensor,
    scale: Tensor,
    kind: BaseLoss,
    halved_gradient: bool,
) -> Tensor:
    """Return the loss ``kind`` of TIRG for queries [B, D] and candidates [C, D], all unit vectors.

    ``scale`` is the length that both are scaled to. ``targets`` [B] are places among the candidates.
    ``batch``: the cross-entropy of each query's target among all candidates, by inner products.
    ``soft_triplet``: :func:`soft_triplet` of queries and their targets, with up to three random triplets for
    each anchor; only this uses ``halved_gradient``.
    """
    if kind == "batch":
        scores = score(queries[:, None], candidates[:, None], "dot")
        return contrastive(scores, targets, scale.float() ** -2)
    pool = scale * torch.cat([queries, candidates[targets]])
    return soft_triplet(pool, draw_triplets(len(queries)).to(pool.device), halved_gradient)


class TextSourceOptions(InBatchOptions):
    """Options of a method that has a choice of text features."""

    text_source: Literal["backbone", "lstm"] = "backbone"
    """Where text features come from: the shared backbone, or an LSTM of the method's own, as published."""


class TextSourceMethod(PooledMethod):
    """A method with the text features of the backbone, or of an LSTM of its own."""

    options: TextSourceOptions

    def add_lstm(self) -> None:
        """Add the LSTM if the options choose it."""
        if self.options.text_source == "lstm":
            size = self.backbone.sizes.embedding
            self.words = LstmTextEncoder(self.backbone.sizes.vocabulary, size, size, size)

    def text_features(self, text: TextBatch) -> Tensor:
        """Return features [B, D_t] of texts, not normalised."""
        if self.options.text_source == "backbone":
            return super().text_features(text)
        features: Tensor = self.words(text)
        return features


class TirgOptions(TextSourceOptions):
    """Options of TIRG: its loss, its backward pass, and its text features."""

    base_loss: BaseLoss = "batch"
    """Which loss is used (:func:`base_loss`)."""
    halved_gradient: bool = False
    """Halve the soft triplet's gradient, as the published code's backward pass does."""


@register("tirg")
class Tirg(TextSourceMethod):
    """TIRG over pooled features of the shared backbone; queries and targets are one vector each."""

    options: TirgOptions
    options_type = TirgOptions
    published_keys = PublishedKeys(
        (
            (r"^gated_feature_composer\.1\.", r"gate.0."),
            (r"^gated_feature_composer\.3\.", r"gate.2."),
            (r"^res_info_composer\.1\.", r"residual.0."),
            (r"^res_info_composer\.3\.", r"residual.2."),
            (r"^res_info_composer\.5\.", r"residual.4."),
            (r"^a$", r"amounts"),
            (r"^normalization_layer\.norm_s$", r"scale"),
        ),
        not_needed=r"^(img_model|text_model)\.",
        leading=(("a", 2),),
    )

    def __init__(self, backbone: Encoder, options: TirgOptions) -> None:
        super().__init__(backbone)
        self.options = options
        size = backbone.sizes.embedding
        self.composer = TirgComposer(size, size)
        self.add_lstm()

    @classmethod
    def composer_of(cls, state: Mapping[str, Tensor]) -> TirgComposer:
        """Return an untrained composer with the sizes of the tensors in a published state dict.

        Raises :class:`CheckpointError` if it has no composer of TIRG.
        """
        what = "it holds no composer of TIRG"
        size, joint = matrix_sizes(state, "gated_feature_composer.3.weight", what)
        return TirgComposer(size, joint - size)

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        composed = self.composer(self.backbone.pooled_image(reference), self.text_features(text))
        return Query(unit(composed)[:, None])

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        queries = self.embed_query(batch.reference, batch.text).embeddings[:, 0]
        candidates = self.embed_target(batch.candidates)[:, 0]
        options = self.options
        return {
            options.base_loss: base_loss(
                queries,
                candidates,
                batch.targets,
                self.composer.scale,
                options.base_loss,
                options.halved_gradient,
            )
        }
