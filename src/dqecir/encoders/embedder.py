"""Embedders of sentence-transformers: one vector for an image, for a text, or for both together.

Embedders preprocess pictures themselves. So the tower here only cuts a square picture into patches, which are
the image tokens. The weights have various formats, so a model folder contains them as sentence-transformers
writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.data.images import Preprocessing
from dqecir.encoders.embedder_folder import read_sentence_transformer
from dqecir.encoders.encoder import Encoder, EncoderSizes, TextBatch, register_encoder
from dqecir.settings import Strict

SIDE = 448
"""Side in pixels of the square pictures that an embedder gets."""
PATCH = 16

PREPARATION = Preprocessing(
    size=SIDE, pad_ratio=1.0, pad_colour=(255, 255, 255), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
"""Preprocessing: pictures are padded with white to squares."""

OWN_FOLDER = "embedder"
"""Sub-folder of a model folder that contains the folder of sentence-transformers."""


class EmbedderConfig(Strict):
    """What is stored about an embedder besides its own files: the width of its vectors."""

    embedding: int


class Patches(nn.Module):
    """Cuts pictures into patches without changing any pixel."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Return patches [B, M, W] of pixels [B, 3, S, S]."""
        return F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2)


@register_encoder("embedder")
class Embedder(Encoder):
    """A model of sentence-transformers that takes an image, a text, or both together."""

    config_type = EmbedderConfig
    provides = frozenset({"tokens", "image", "composed"})
    own_weights = ("model.",)
    config: EmbedderConfig

    def __init__(self, config: EmbedderConfig, model: Any) -> None:
        """Take ``model``, a ``SentenceTransformer``."""
        super().__init__(config)
        self.model = model
        self.tower = Patches()
        self.sizes = EncoderSizes(
            image=SIDE,
            token_count=(SIDE // PATCH) ** 2,
            token_width=3 * PATCH**2,
            grid_side=SIDE // PATCH,
            embedding=config.embedding,
        )
        self.temperature = nn.Parameter(torch.tensor(0.07))

    @classmethod
    def published(cls, folder: Path) -> Embedder:
        """Read the embedder in a folder of sentence-transformers; raises :class:`CheckpointError`."""
        model = read_sentence_transformer(folder)
        return cls(EmbedderConfig(embedding=int(model.get_embedding_dimension())), model)

    @classmethod
    def read(cls, config: EmbedderConfig, folder: Path) -> Self:
        return cls(config, read_sentence_transformer(folder / OWN_FOLDER))

    def save_own(self, folder: Path) -> None:
        self.model.save_pretrained(str(folder / OWN_FOLDER), create_model_card=False)

    def pooled_image(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.model.encode_document(pictures_in(tokens), **self._form)
        return found.float()

    def pooled_composed(self, tokens: Tensor, text: TextBatch) -> Tensor:
        inputs: list[Any] = [
            {"image": picture, "text": words} if words.strip() else picture
            for picture, words in zip(pictures_in(tokens), text.texts, strict=True)
        ]
        # sentence-transformers needs inputs of the same kind (with or without text) in one call.
        rows: list[Tensor] = [self.model.encode_query([one], **self._form)[0].float() for one in inputs]
        return torch.stack(rows)

    @property
    def _form(self) -> dict[str, Any]:
        return {"convert_to_tensor": True, "show_progress_bar": False, "device": str(self.device)}


def pictures_in(tokens: Tensor) -> Sequence[Image.Image]:
    """Return RGB pictures from patches [B, M, W] with values from 0 to 1."""
    pixels = F.fold(tokens.float().transpose(1, 2), SIDE, PATCH, stride=PATCH)
    values = (255 * pixels).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in values]
