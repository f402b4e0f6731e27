"""Compose batches of reference images and texts into queries, for training, evaluation and search alike."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dqecir.data.images import ImageSource, RemotePicture, file_state, load_image
from dqecir.encoders.encoder import TextBatch
from dqecir.encoders.store import Store
from dqecir.io.recent import Recent
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.method import Method, Query
from dqecir.model.composed_model import ComposedModel

CHUNK = 256
"""Images or queries embedded at once."""

SEEN = 4096
"""Number of images shown to a method before it is trained or embeds a gallery."""


def compose(method: Method, tokens: Tensor, text: TextBatch) -> Query:
    """Compose image tokens [B, M, W] and B texts into queries, on the method's device."""
    return method.embed_query(tokens.to(method.device), text.to(method.device))


@torch.no_grad()
def compose_stored(
    method: Method,
    store: Store,
    encoder: TextEncoder,
    references: Sequence[int],
    texts: Sequence[str],
    blank: bool = False,
) -> Iterator[Query]:
    """Compose references (positions in the store) and texts, :data:`CHUNK` queries at a time.

    Raises :class:`DataError` for an empty text, unless ``blank`` allows it.
    """
    for start in range(0, len(texts), CHUNK):
        some = slice(start, start + CHUNK)
        tokens = store.gather(torch.tensor(references[some]))
        yield compose(method, tokens, encoder(texts[some], blank))


def learn_images(method: Method, store: Store) -> None:
    """Show a method :data:`SEEN` random images, always the same, that it will be trained on or search.

    Only a method with :meth:`Method.fit_targets` learns from them.
    """
    rows = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:SEEN]
    method.fit_targets(store.gather(some) for some in rows.split(CHUNK))


@dataclass(frozen=True)
class Reference:
    """A reference image: its pixels [3, S, S], or its image tokens [M, W] if they are known already.

    ``key`` names the picture, so that its tokens can be kept for the next request.
    """

    pixels: Tensor | None = None
    tokens: Tensor | None = None
    key: Hashable = None


class QueryComposer:
    """Compose queries with one model, and cache the image tokens of references."""

    def __init__(self, model: ComposedModel, tokens_kept: int = 0) -> None:
        """Take the model; ``tokens_kept`` is the size of the cache of image tokens, in bytes."""
        self.model = model.eval()
        self._keeps = tokens_kept > 0
        self._tokens: Recent[Tensor] = Recent(tokens_kept, lambda kept: kept.numel() * kept.element_size())

    def reference(self, image: ImageSource) -> Reference:
        """Return a picture for :meth:`compose`; a file whose tokens are cached is not decoded again.

        Raises ``ImageError`` for a picture that cannot be used.
        """
        key = file_state(image) if self._keeps and isinstance(image, Path | RemotePicture) else None
        tokens = None if key is None else self._tokens.get(key)
        if tokens is not None:
            return Reference(tokens=tokens)
        return Reference(self.model.preprocessing(load_image(image)), key=key)

    def no_picture(self) -> Reference:
        """Return a reference of one colour, for queries without a reference image."""
        return Reference(torch.zeros(3, self.model.preprocessing.size, self.model.preprocessing.size))

    @torch.no_grad()
    def texts_alone(self, texts: Sequence[str]) -> Tensor | None:
        """Return queries [B, n_q, D] of texts alone; None if the model cannot compare texts with targets."""
        words = [self.model.method.text((text,)) for text in texts]
        text = self.model.text_encoder(words, blank=True).to(self.model.device)
        return self.model.method.embed_text(text)

    @torch.no_grad()
    def compose(self, references: Sequence[Reference], texts: Sequence[str]) -> Query:
        """Compose one query for each reference and modification text, without boost or steering.

        An empty text asks for images like the reference.
        """
        words = [self.model.method.text((text,)) for text in texts]
        text = self.model.text_encoder(words, blank=True)
        return compose(self.model.method, self._image_tokens(references), text)

    @torch.no_grad()
    def target_embeddings(self, references: Sequence[Reference]) -> list[Tensor]:
        """Return target embeddings [n_t, D] of pictures, on the CPU, as an index stores them."""
        return list(self.model.method.embed_target(self._image_tokens(references)).cpu())

    def _image_tokens(self, references: Sequence[Reference]) -> Tensor:
        """Return image tokens [B, M, W]; pictures whose tokens are not known are encoded together."""
        pixels = [one.pixels for one in references if one.tokens is None and one.pixels is not None]
        encoded = iter(self._encoded(pixels))
        rows = []
        for one in references:
            row = next(encoded) if one.tokens is None else one.tokens
            if one.tokens is None and one.key is not None:
                # Copy the row; a view would keep its whole batch in memory.
                self._tokens.put(one.key, row.clone())
            rows.append(row)
        return torch.stack(rows)

    def _encoded(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        if not pixels:
            return ()
        return list(self.model.backbone.image_tokens(torch.stack(list(pixels)).to(self.model.device)))
