"""Textual inversion: turn an image into the embedding of a word, and let the text encoder compose.

A network φ maps an image feature to the embedding of a pseudo-word. This replaces the word embedding of the
placeholder $ in "a photo of $ that {text}"; the query is the frozen text encoder's embedding of that
sentence. SEARLE (arXiv 2303.15247) and LinCIR (arXiv 2312.01998) differ in how φ is trained; neither uses the
targets of triplets.

The placeholder is one token of the encoder's tokenizer: its mask token, or a single character.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.data.captions import join_fashioniq
from dqecir.encoders.checkpoints import PublishedKeys, matrix_sizes, required
from dqecir.encoders.encoder import Encoder, TextBatch, unit
from dqecir.encoders.tokenizer import Placeholder
from dqecir.errors import DataError
from dqecir.methods.method import InBatchOptions, Method, MethodContext, Query, TrainingBatch

PHI_KEYS = PublishedKeys(renames=())
"""Names in published checkpoints: in both codes φ is a sequence ``layers`` whose linear parts are 0, 3 and 6,
as here."""


class InversionOptions(InBatchOptions):
    """Sizes of φ; published: hidden size of four times the feature's, dropout 0.5."""

    hidden_factor: int = Field(default=4, gt=0)
    """Hidden size of φ, as a multiple of the image feature's size."""
    dropout: float = Field(default=0.5, ge=0, lt=1)


class Phi(nn.Module):
    """The network φ: image features [B, D] to embeddings of pseudo-words [B, W]."""

    def __init__(self, size: int, hidden_size: int, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size, hidden_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, width),
        )

    def forward(self, features: Tensor) -> Tensor:
        words: Tensor = self.layers(features)
        return words.float()


def phi_of(state: Mapping[str, Tensor]) -> Phi:
    """Return an untrained φ with the sizes of the tensors in a published state dict.

    Raises :class:`CheckpointError` if it has no inversion network.
    """
    hidden, size = matrix_sizes(state, "layers.0.weight", "it holds no inversion network")
    width = required(state, "layers.6.weight", "it holds no inversion network").shape[0]
    return Phi(size, hidden, width)


def paired_contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss of SEARLE for B pairs: row i of ``first`` [B, D] and of ``second`` [B, D].

    Each of the 2B vectors must find its partner among the 2B - 1 others, by cosines divided by
    ``temperature``.
    """
    vectors = unit(torch.cat([first, second]))
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    logits = (vectors @ vectors.T / temperature).masked_fill(itself, -torch.inf)
    partners = torch.arange(len(vectors), device=vectors.device).roll(len(first))
    return F.cross_entropy(logits, partners)


class Inversion(Method):
    """A frozen backbone and a trained φ; the score is the largest product of the query with a target token.

    Queries are [B, 1, D]. For FashionIQ the publications average the unit embeddings of both orders of the
    two captions. Methods here read one text, so only the given order is used.
    """

    composer_of = staticmethod(phi_of)
    requires = frozenset({"image", "text", "word_embeddings"})
    published_keys = PHI_KEYS
    only_evaluated = ("backbone",)

    def __init__(self, backbone: Encoder, options: InversionOptions, placeholder: Placeholder) -> None:
        super().__init__(backbone)
        backbone.requires_grad_(False)
        self.placeholder = placeholder
        size, width = backbone.sizes.embedding, backbone.sizes.word_width
        self.phi = Phi(size, options.hidden_factor * size, width, options.dropout)

    def contrasted(self, batch: TrainingBatch) -> Tensor:
        """Return a mask [B, C] without any candidate, because training does not use targets."""
        return torch.zeros_like(batch.right)

    def text(self, captions: Sequence[str]) -> str:
        asked = join_fashioniq(captions)
        return f"a photo of {self.placeholder.text} that {asked[:1].lower()}{asked[1:]}"

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        words = self.phi(self.image_feature(reference))
        return Query(unit(self.injected(text, words))[:, None])

    @torch.no_grad()
    def embed_target(self, tokens: Tensor) -> Tensor:
        return super().embed_target(tokens)

    @torch.no_grad()
    def image_feature(self, tokens: Tensor) -> Tensor:
        """Return the input of φ [B, D]: pooled image features, not normalised, for image tokens [B, M, W]."""
        return self.backbone.pooled_image(tokens)

    def injected(self, text: TextBatch, words: Tensor) -> Tensor:
        """Return text embeddings [B, D], not normalised, in which ``words`` [B, W] replace the placeholders.

        Raises :class:`DataError` if a text has no placeholder.
        """
        same = text.ids == self.placeholder.id
        if not bool(same.any(dim=1).all()):
            raise DataError(
                f"a text has no {self.placeholder.text} for the image: build it with the method's text()"
            )
        # Take the first, because the modification text may contain the same character, such as "$".
        places = same & (same.cumsum(dim=1) == 1)
        return self.backbone.text_with_words(text.ids, text.mask, words, places)


def placeholder_of(context: MethodContext, name: str) -> Placeholder:
    """Return the placeholder of a method's context; raises :class:`DataError` if the tokenizer has none.

    ``name`` is the method, for the error message.
    """
    if context.placeholder is None:
        raise DataError(
            f"{name} replaces a token that stands for the image, such as [MASK], and this model's "
            "tokenizer has none: use another tokenizer"
        )
    return context.placeholder
