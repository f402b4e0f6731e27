"""CLIP4Cir: add pooled features, then train a combiner (CVPR Workshops 2022; arXiv 2308.11485).

Stage 1 (``clip4cir_sum``) trains the encoders so that the sum of the features of reference and text is near
the target's feature; stage 2 (``clip4cir``) freezes them and trains a combiner. Published: CLIP RN50x4 with
features of 640; stage 1 AdamW 2e-6, batch 128, 100 epochs; stage 2 Adam 2e-5, batch 4096, 300 epochs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dqecir.encoders.checkpoints import PublishedKeys, matrix_sizes, required
from dqecir.encoders.encoder import Encoder, TextBatch, unit
from dqecir.methods.losses import contrastive
from dqecir.methods.method import (
    InBatchOptions,
    PooledMethod,
    Query,
    TrainingBatch,
    register,
)
from dqecir.methods.scoring import score

LOGIT_SCALE = 100.0
"""Factor of cosines in the loss, as in the published code; it is not learned."""

COMBINER_KEYS = PublishedKeys(
    (
        (r"^text_projection_layer\.", r"text_projection."),
        (r"^image_projection_layer\.", r"image_projection."),
        (r"^combiner_layer\.", r"hidden."),
        (r"^output_layer\.", r"output."),
        (r"^dynamic_scalar\.", r"balance."),
    )
)


class Combiner(nn.Module):
    """A learned mixture of image and text with a residual (sizes: D feature, P projection, H hidden).

    q = n(W h + λu + (1-λ)x) for a text feature u and an image feature x; n normalises. h and λ are computed
    from projections of both. The features are not normalised, so their lengths matter.
    """

    def __init__(self, size: int, projection_size: int, hidden_size: int) -> None:
        super().__init__()
        self.text_projection = nn.Linear(size, projection_size)
        self.image_projection = nn.Linear(size, projection_size)
        self.hidden = nn.Linear(2 * projection_size, hidden_size)
        self.output = nn.Linear(hidden_size, size)
        self.balance = nn.Sequential(
            nn.Linear(2 * projection_size, hidden_size),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden_size, 1),
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Compose features [B, D] of images and of texts to unit queries [B, D]."""
        joint = torch.cat([self._projected_text(text), self._projected_image(image)], dim=1)
        hidden = self.dropout(self.hidden(joint).relu())
        share = self.balance(joint).float().sigmoid()  # λ, [B, 1]
        return unit(self.output(hidden).float() + share * text + (1 - share) * image)

    def crossed(self, images: Tensor, texts: Tensor) -> Tensor:
        """Compose every text [B, D] with every image [N, D] to unit queries [B, N, D].

        The first layers are linear, so their text part and image part are computed once for each text and
        image; only later layers run on all pairs.
        """
        text, image = self._projected_text(texts), self._projected_image(images)
        hidden = self.dropout(_pairwise(self.hidden, text, image).relu())  # [B, N, H]
        first, rest = self.balance[0], self.balance[1:]
        assert isinstance(first, nn.Linear)
        share = rest(_pairwise(first, text, image)).float().sigmoid()  # [B, N, 1]
        return unit(self.output(hidden).float() + share * texts[:, None] + (1 - share) * images)

    def _projected_text(self, text: Tensor) -> Tensor:
        projected: Tensor = self.dropout(self.text_projection(text).relu())
        return projected

    def _projected_image(self, image: Tensor) -> Tensor:
        projected: Tensor = self.dropout(self.image_projection(image).relu())
        return projected


def _pairwise(layer: nn.Linear, text: Tensor, image: Tensor) -> Tensor:
    """Apply ``layer`` to all pairs [text; image]: [B, N, H] for texts [B, P] and images [N, P]."""
    text_weight, image_weight = layer.weight.split(text.shape[1], dim=1)
    own = nn.functional.linear(text, text_weight, layer.bias)
    return own[:, None] + nn.functional.linear(image, image_weight)[None]


def combiner_of(state: Mapping[str, Tensor]) -> Combiner:
    """Return an untrained combiner with the sizes of the tensors in a published state dict.

    Raises :class:`CheckpointError` if it has no combiner.
    """
    projection, size = matrix_sizes(state, "text_projection_layer.weight", "it holds no combiner")
    hidden = required(state, "combiner_layer.weight", "it holds no combiner").shape[0]
    return Combiner(size, projection, hidden)


class Clip4cirSumOptions(InBatchOptions):
    """Stage 1 has no options."""


class Clip4cirOptions(Clip4cirSumOptions):
    """Sizes of the combiner; published: 2,560 and 5,120 over features of 640."""

    projection_size: int = 512
    hidden_size: int = 1024


@register("clip4cir_sum")
class Clip4cirSum(PooledMethod):
    """Stage 1: the query is the normalised sum of pooled features.

    All of the backbone but its tower is trained.
    """

    options_type = Clip4cirSumOptions

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        summed = self.backbone.pooled_image(reference) + self.backbone.pooled_text(text)
        return Query(unit(summed)[:, None])

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        queries = self.embed_query(batch.reference, batch.text).embeddings
        scores = score(queries, self.embed_target(batch.candidates), self.score_rule)  # [B, C]
        return {"contrast": contrastive(scores, batch.targets, scores.new_tensor(1 / LOGIT_SCALE))}


@register("clip4cir")
class Clip4cir(Clip4cirSum):
    """Stage 2: train a combiner of pooled features over a frozen backbone."""

    options_type = Clip4cirOptions
    published_keys = COMBINER_KEYS
    composer_of = staticmethod(combiner_of)
    only_evaluated = ("backbone",)

    def __init__(self, backbone: Encoder, options: Clip4cirOptions) -> None:
        super().__init__(backbone)
        size = backbone.sizes.embedding
        self.combiner = Combiner(size, options.projection_size, options.hidden_size)
        backbone.requires_grad_(False)

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        with torch.no_grad():
            image, words = self.backbone.pooled_image(reference), self.backbone.pooled_text(text)
        return Query(self.combiner(image, words)[:, None])

    @torch.no_grad()
    def embed_target(self, tokens: Tensor) -> Tensor:
        return super().embed_target(tokens)
