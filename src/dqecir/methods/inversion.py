"""Textual inversion: an image becomes a word, and the text encoder composes.

A network φ turns an image feature into the embedding of a pseudo-word. It replaces the placeholder's word
embedding in "a photo of $ that {text}"; the frozen text encoder's embedding of this sentence is the query.
SEARLE (arXiv 2303.15247) and LinCIR (arXiv 2312.01998) differ in the training of φ; neither uses the target
of a triplet.

The placeholder is one token of the encoder's tokenizer: its mask token, or a single sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.data.captions import join_fashioniq
from dqecir.encoders.checkpoints import PublishedKeys, required
from dqecir.encoders.encoder import Encoder, TextBatch, unit
from dqecir.encoders.tokenizer import Placeholder
from dqecir.errors import DataError
from dqecir.methods.method import InBatchOptions, Method, MethodContext, Query, TrainingBatch

PHI_KEYS = PublishedKeys(renames=())
"""In both published codes φ is a sequence ``layers`` whose linear parts are 0, 3 and 6, as here."""


class InversionOptions(InBatchOptions):
    """Sizes of φ; published: a hidden size of four times the feature's, dropout 0.5."""

    hidden_factor: int = Field(default=4, gt=0)
    """Hidden size of φ as a multiple of the image feature's size."""
    dropout: float = Field(default=0.5, ge=0, lt=1)


class Phi(nn.Module):
    """φ, which turns features [B, D] into embeddings of pseudo-words [B, W]."""

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
    """Return an untrained φ of the sizes of a published state dict; raises :class:`CheckpointError`."""
    hidden, size = required(state, "layers.0.weight", "it holds no inversion network").shape
    width = required(state, "layers.6.weight", "it holds no inversion network").shape[0]
    return Phi(size, hidden, width)


def paired_contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the symmetric contrast of ``first`` [B, D] with ``second`` [B, D] over all 2B vectors (SEARLE).

    Every vector must find its partner by cosine among the 2B - 1 others.
    """
    vectors = unit(torch.cat([first, second]))
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    logits = (vectors @ vectors.T / temperature).masked_fill(itself, -torch.inf)
    partners = torch.arange(len(vectors), device=vectors.device).roll(len(first))
    return F.cross_entropy(logits, partners)


class Inversion(Method):
    """A frozen backbone and a φ that is trained; queries [B, 1, D], scored by the maximum over tokens.

    FashionIQ's published query is the mean of the unit embeddings of both orders of its captions. Methods
    here read one text, so only the captions' own order is used.
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
        """Return no candidate, because training does not use targets."""
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
        """Return the input of φ for an image [B, D]: its raw pooled feature, scaled as text features."""
        return self.backbone.pooled_image(tokens)

    def injected(self, text: TextBatch, words: Tensor) -> Tensor:
        """Return raw text embeddings [B, D] of B texts with ``words`` [B, W] for their placeholders.

        Raises :class:`DataError` if a text has none.
        """
        same = text.ids == self.placeholder.id
        if not bool(same.any(dim=1).all()):
            raise DataError(
                f"a text has no {self.placeholder.text} for the image: build it with the method's text()"
            )
        # The first one, because the modification text may contain the same word, such as "$".
        places = same & (same.cumsum(dim=1) == 1)
        return self.backbone.text_with_words(text.ids, text.mask, words, places)


def placeholder_of(context: MethodContext, name: str) -> Placeholder:
    """Return the placeholder; raises :class:`DataError` if the tokenizer has none."""
    if context.placeholder is None:
        raise DataError(
            f"{name} replaces a token that stands for the image, such as [MASK], and this model's "
            "tokenizer has none: use another tokenizer"
        )
    return context.placeholder
