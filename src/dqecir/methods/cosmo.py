"""CoSMo: change the content of an image by attention and its style by the text (Lee, Kim and Han, CVPR 2021).

It works on a grid of image features. Published: the last map of ResNet-50 (2,048 x 7 x 7) and an LSTM of 512,
all trained; RAdam 2e-4, decay 5e-5, batch 32, 50 epochs, rate x0.1 at epoch 30, one model for each category,
both orders of the captions in training and in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.encoders.checkpoints import PublishedKeys, matrix_sizes, required
from dqecir.encoders.encoder import Encoder, TextBatch, unit
from dqecir.errors import DataError
from dqecir.methods.losses import contrastive
from dqecir.methods.method import Query, TrainingBatch, register
from dqecir.methods.scoring import score
from dqecir.methods.tirg import TextSourceMethod, TextSourceOptions

LENGTH = 4.0
"""Length of query and target features in the loss, so that logits are 16 times the cosines."""


class EqualisedLinear(nn.Module):
    """A linear layer whose weights are drawn from N(0, 1) and scaled by √(2 / inputs) when used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, values: Tensor) -> Tensor:
        return F.linear(values, self.weight * math.sqrt(2 / self.weight.shape[1]), self.bias)


class ContentAttention(nn.Module):
    """Self-attention plus attention by the text, both over the positions of a feature map.

    Both attention matrices are softmaxes and are added, so each row of the sum adds up to 2.
    """

    def __init__(self, channels: int, text_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.text = nn.Linear(text_size, channels)
        self.merge = nn.Conv2d(channels + text_size, channels, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.result = nn.Conv2d(channels, channels, 1)

    def attention(self, content: Tensor, text: Tensor) -> Tensor:
        """Return the attention [B, heads, S², S²] of a map [B, C, S, S] and text features [B, D_t]."""
        query, key = self._by_head(self.query(content)), self._by_head(self.key(content))
        scale = math.sqrt(query.shape[2])
        own = torch.einsum("bhdq,bhdk->bhqk", query, key).float().div(scale).softmax(dim=3)
        asked = self.text(text).unflatten(1, (self.heads, -1))  # [B, heads, d]
        by_text = torch.einsum("bhdk,bhd->bhk", self._by_head(content).to(asked.dtype), asked)
        return own + by_text.float().div(scale).softmax(dim=2)[:, :, None]

    def forward(self, content: Tensor, text: Tensor) -> Tensor:
        """Return the change [B, C, S, S] that is added to a map [B, C, S, S], for text features [B, D_t]."""
        side = content.shape[2]
        tiled = text[:, :, None, None].expand(-1, -1, side, side).to(content.dtype)
        values = self._by_head(self.value(self.merge(torch.cat([content, tiled], dim=1))))
        attention = self.attention(content, text)
        attended = torch.einsum("bhqk,bhdk->bhdq", attention.to(values.dtype), values)
        result: Tensor = self.result(attended.flatten(1, 2).unflatten(2, (side, side))).float()
        return result

    def _by_head(self, values: Tensor) -> Tensor:
        """Turn [B, C, S, S] into [B, heads, C / heads, S²]."""
        return values.flatten(2).unflatten(1, (self.heads, -1))


class CosmoComposer(nn.Module):
    """Change content and style of a feature map by a text; queries and targets share the last layers.

    Raises :class:`DataError` if ``heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, text_size: int, heads: int, size: int) -> None:
        super().__init__()
        if channels % heads:
            raise DataError(f"heads ({heads}) must divide the width of the image tokens ({channels})")
        self.first = ContentAttention(channels, text_size, heads)
        self.second = ContentAttention(channels, text_size, heads)
        self.amounts = nn.Parameter(torch.ones(2))
        self.gate = EqualisedLinear(text_size, 2 * channels)
        self.style = EqualisedLinear(text_size, 2 * channels)
        self.style.bias.data[:channels] = 1.0  # γ starts at one, β at zero
        self.head = nn.Linear(channels, size)

    def content(self, image: Tensor, text: Tensor) -> Tensor:
        """Return the normalised map [B, C, S, S] with the attended change added, for texts [B, D_t]."""
        content = F.instance_norm(image)
        content = content + self.amounts[0] * self.first(content, text)
        return content + self.amounts[1] * self.second(content, text)

    def modulated(self, image: Tensor, text: Tensor) -> Tensor:
        """Return the map [B, C, S, S] with changed content and style, for text features [B, D_t]."""
        mean = image.mean(dim=(2, 3)).detach()
        deviation = image.std(dim=(2, 3), correction=0).detach()
        std_gate, mean_gate = self.gate(text).float().sigmoid().chunk(2, dim=1)
        gamma, beta = self.style(text).float().chunk(2, dim=1)
        gamma, beta = std_gate * deviation + gamma, mean_gate * mean + beta
        return gamma[:, :, None, None] * self.content(image, text) + beta[:, :, None, None]

    def target(self, image: Tensor) -> Tensor:
        """Return unit features [N, D] of targets, for their maps [N, C, S, S]."""
        return unit(self.head(image.mean(dim=(2, 3))))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Compose maps [B, C, S, S] and text features [B, D_t] to unit queries [B, D]."""
        return self.target(self.modulated(image, text))


_ATTENTION = (
    (r"self_att_generator\.W_k\.", "key."),
    (r"self_att_generator\.W_q\.", "query."),
    (r"global_att_generator\.W_t\.", "text."),
    (r"merge\.", "merge."),
    (r"W_v\.", "value."),
    (r"W_r\.", "result."),
)
COSMO_KEYS = PublishedKeys(
    (
        *(
            (rf"^compositor\.{theirs}\.{pattern}", f"{ours}.{name}")
            for theirs, ours in (("att_module", "first"), ("att_module2", "second"))
            for pattern, name in _ATTENTION
        ),
        (r"^compositor\.weights$", "amounts"),
        (r"^compositor\.global_styler\.gate\.linear\.weight_orig$", "gate.weight"),
        (r"^compositor\.global_styler\.gate\.linear\.bias$", "gate.bias"),
        (r"^compositor\.global_styler\.global_transform\.linear\.weight_orig$", "style.weight"),
        (r"^compositor\.global_styler\.global_transform\.linear\.bias$", "style.bias"),
        (r"^upper\.fc\.", "head."),
    )
)


class CosmoOptions(TextSourceOptions):
    """Options of CoSMo: number of attention heads, and the source of text features."""

    heads: int = Field(default=8, gt=0)


@register("cosmo")
class Cosmo(TextSourceMethod):
    """CoSMo over the image tokens of the tower as a grid; queries and targets are one vector each."""

    options_type = CosmoOptions
    requires = frozenset({"text"})
    published_keys = COSMO_KEYS

    def __init__(self, backbone: Encoder, options: CosmoOptions) -> None:
        super().__init__(backbone)
        self.options = options
        size, width = backbone.sizes.embedding, backbone.sizes.token_width
        self.composer = CosmoComposer(width, size, options.heads, size)
        self.add_lstm()

    @classmethod
    def composer_of(cls, state: Mapping[str, Tensor]) -> CosmoComposer:
        """Return an untrained composer with the sizes of the tensors in a published state dict.

        The tensors do not tell the number of heads: it is the published 8, or 4 with fewer than 64 channels.
        Raises :class:`CheckpointError` if the state dict has no composer of CoSMo.
        """
        what = "it holds no composer of CoSMo"
        key = "compositor.att_module.global_att_generator.W_t.weight"
        channels, text_size = matrix_sizes(state, key, what)
        size = required(state, "upper.fc.weight", what).shape[0]
        return CosmoComposer(channels, text_size, 8 if channels >= 64 else 4, size)

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        composed = self.composer(self.backbone.image_grid(reference), self.text_features(text))
        return Query(composed[:, None])

    def embed_target(self, tokens: Tensor) -> Tensor:
        return self.composer.target(self.backbone.image_grid(tokens))[:, None]

    def target_state(self) -> dict[str, Tensor]:
        head = self.composer.head
        return self.backbone.grid_state("backbone.") | head.state_dict(prefix="composer.head.")

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        queries = self.embed_query(batch.reference, batch.text).embeddings
        scores = score(queries, self.embed_target(batch.candidates), self.score_rule)  # [B, C]
        return {"contrast": contrastive(scores, batch.targets, scores.new_tensor(LENGTH**-2))}
