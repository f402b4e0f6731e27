"""ComposeAE: composition as a rotation in complex space, with losses of an autoencoder (arXiv 2006.11149).

The image gives the lengths of complex numbers, the text their angles. Rotating the target back by the same
angles must give the reference. Published: ResNet-18 features of 512, BERT's pooled features of 768, which are
not trained; SGD 1e-2, batch 32, 100,000 iterations, rate x0.1 every 8,000.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.encoders.checkpoints import PublishedKeys, matrix_sizes, required
from dqecir.encoders.encoder import Encoder, TextBatch, unit
from dqecir.methods.method import (
    InBatchOptions,
    PooledMethod,
    Query,
    TrainingBatch,
    register,
)
from dqecir.methods.tirg import SCALE, START, BaseLoss, base_loss


class ComplexProjection(nn.Module):
    """Project an image to lengths m and a text to angles δ; re = m cos δ and im = ±m sin δ."""

    def __init__(self, size: int, text_size: int) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.BatchNorm1d(size), nn.Linear(size, size), nn.Dropout(0.5), nn.ReLU(), nn.Linear(size, size)
        )
        self.text = nn.Sequential(
            nn.BatchNorm1d(text_size), nn.Linear(text_size, size), nn.ReLU(), nn.Linear(size, size)
        )

    def forward(self, image: Tensor, text: Tensor, sign: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (m, δ, re, im), each [B, D], for features [B, D] and [B, D_t].

        ``sign``: 1 rotates forward, -1 back.
        """
        length, angle = self.image(image).float(), self.text(text).float()
        return length, angle, length * angle.cos(), sign * length * angle.sin()


def _mapping(size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm1d(2 * size), nn.ReLU(), nn.Linear(2 * size, size), nn.ReLU(), nn.Linear(size, size)
    )


def _decoder(size: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm1d(size), nn.ReLU(), nn.Linear(size, out), nn.ReLU(), nn.Linear(out, out)
    )


class ComposeaeComposer(nn.Module):
    """A linear and a convolutional layer over two complex projections, and decoders of image and text.

    ``channels`` of the convolution must divide 2D, because its pooled output has 2D numbers; raises
    ``ValueError`` otherwise.
    """

    def __init__(self, size: int, text_size: int, channels: int) -> None:
        super().__init__()
        if (2 * size) % channels:
            raise ValueError(f"channels ({channels}) must divide twice the feature size ({2 * size})")
        self.linear_projection = ComplexProjection(size, text_size)
        self.linear_mapping = _mapping(size)
        self.conv_projection = ComplexProjection(size, text_size)
        self.conv = nn.Conv1d(5, channels, kernel_size=3, padding=1)
        self.pool = nn.AdaptiveMaxPool1d(2 * size // channels)
        self.conv_mapping = _mapping(size)
        self.image_decoder = _decoder(size, size)
        self.text_decoder = _decoder(size, text_size)
        self.amounts = nn.Parameter(torch.tensor(START))
        self.scale = nn.Parameter(torch.tensor([SCALE]))

    def forward(self, image: Tensor, text: Tensor, sign: float = 1.0) -> Tensor:
        """Compose features of images [B, D] and texts [B, D_t] to queries [B, D], which are not normalised.

        ``sign``: -1 composes in the reverse direction, from target to reference.
        """
        _, _, real, imaginary = self.linear_projection(image, text, sign)
        linear = self.linear_mapping(torch.cat([real, imaginary], dim=1)).float()
        length, angle, real, imaginary = self.conv_projection(image, text, sign)
        stacked = torch.stack([length, angle, image, real, imaginary], dim=1)  # [B, 5, D]
        pooled = self.pool(self.conv(stacked)).flatten(1)  # [B, 2D]
        convolved = self.conv_mapping(pooled).float()
        return self.amounts[1] * linear + self.amounts[0] * convolved


class ComposeaeOptions(InBatchOptions):
    """Options of ComposeAE; the defaults of the weights are the published ones."""

    channels: int = Field(default=64, gt=0)
    image_weight: float = Field(default=0.1, ge=0)
    """Weight of the loss of decoding the reference's feature from the query."""
    text_weight: float = Field(default=0.1, ge=0)
    """Weight of the loss of decoding the text's feature from the query."""
    rotation_weight: float = Field(default=0.01, ge=0)
    """Weight of the loss of finding the reference by rotating the target back."""
    base_loss: BaseLoss = "batch"
    halved_gradient: bool = False
    """Halve the soft triplet's gradient, as the published code's backward pass does."""


_COMPLEX = (
    (r"^encoderLinear\.0\.image_features\.", r"linear_projection.image."),
    (r"^encoderLinear\.0\.bert_features\.", r"linear_projection.text."),
    (r"^encoderLinear\.1\.mapping\.", r"linear_mapping."),
    (r"^encoderWithConv\.0\.image_features\.", r"conv_projection.image."),
    (r"^encoderWithConv\.0\.bert_features\.", r"conv_projection.text."),
    (r"^encoderWithConv\.1\.conv\.", r"conv."),
    (r"^encoderWithConv\.1\.mapping\.", r"conv_mapping."),
    (r"^decoder\.", r"image_decoder."),
    (r"^txtdecoder\.", r"text_decoder."),
    (r"^a$", r"amounts"),
    (r"^normalization_layer\.norm_s$", r"scale"),
)


@register("composeae")
class Composeae(PooledMethod):
    """ComposeAE over pooled features of the shared backbone; the text features are not trained."""

    options_type = ComposeaeOptions
    published_keys = PublishedKeys(_COMPLEX, r"^(img_model|text_model)\.", (("a", 2),))

    def __init__(self, backbone: Encoder, options: ComposeaeOptions) -> None:
        super().__init__(backbone)
        self.options = options
        size = backbone.sizes.embedding
        self.composer = ComposeaeComposer(size, size, options.channels)

    @classmethod
    def composer_of(cls, state: Mapping[str, Tensor]) -> ComposeaeComposer:
        """Return an untrained composer with the sizes of the tensors in a published state dict.

        Raises :class:`CheckpointError` if it has no composer of ComposeAE.
        """
        what = "it holds no composer of ComposeAE"
        size, text_size = matrix_sizes(state, "encoderLinear.0.bert_features.1.weight", what)
        channels = required(state, "encoderWithConv.1.conv.weight", what).shape[0]
        return ComposeaeComposer(size, text_size, channels)

    @torch.no_grad()
    def text_features(self, text: TextBatch) -> Tensor:
        """Return features [B, D_t] of texts, not normalised and without gradient."""
        return super().text_features(text)

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        composed = self.composer(self.backbone.pooled_image(reference), self.text_features(text))
        return Query(unit(composed)[:, None])

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        return self.feature_loss(
            self.backbone.pooled_image(batch.reference),
            self.text_features(batch.text),
            self.backbone.pooled_image(batch.candidates),
            batch.targets,
        )

    def feature_loss(
        self, reference: Tensor, text: Tensor, candidates: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        """Return the terms of the loss by name, each multiplied by its weight, without those of weight 0.

        The features are not normalised: references [B, D], texts [B, D_t] and candidates [C, D]. ``targets``
        [B] are the places of the targets among the C candidates.
        """
        options, composer = self.options, self.composer
        query = composer(reference, text)
        kind, halved = options.base_loss, options.halved_gradient
        terms: dict[str, Tensor] = {}
        terms[kind] = base_loss(unit(query), unit(candidates), targets, composer.scale, kind, halved)
        if options.image_weight > 0:
            terms["image"] = options.image_weight * F.mse_loss(composer.image_decoder(query), reference)
        if options.text_weight > 0:
            terms["text"] = options.text_weight * F.mse_loss(composer.text_decoder(query), text)
        if options.rotation_weight > 0:
            back = composer(candidates[targets], text, sign=-1.0)
            own = torch.arange(len(back), device=back.device)
            rotation = base_loss(unit(back), unit(reference), own, composer.scale, kind, halved)
            terms["rotation"] = options.rotation_weight * rotation
        return terms
