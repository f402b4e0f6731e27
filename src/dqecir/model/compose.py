"""Compose reference images and texts into queries, for training, evaluation and search alike.

The query of several references is the weighted mean of the queries that each of them composes with the text,
so that every index can search it. If a method predicts wanted values, these are averaged too: in a column
that the text does not request, the values of all references are wanted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from dqecir.data.images import ImageSource, RemotePicture, file_state, load_image
from dqecir.encoders.encoder import TextBatch
from dqecir.encoders.store import Store
from dqecir.io.recent import Recent
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.method import REQUESTED, Method, Query, QueryParts
from dqecir.model.composed_model import ComposedModel

CHUNK = 256
"""Number of images or queries that are embedded at a time."""

SEEN = 4096
"""Largest number of images that a method sees before it is trained or embeds a gallery."""


def compose(method: Method, tokens: Tensor, text: TextBatch) -> Query:
    """Compose image tokens [B, M, W] of references and B texts into B queries, on the method's device."""
    return method.embed_query(tokens.to(method.device), text.to(method.device))


@torch.no_grad()
def compose_stored(
    method: Method,
    store: Store,
    encoder: TextEncoder,
    references: Sequence[int],
    texts: Sequence[str],
    blank: bool = False,
    turns: Sequence[int] | None = None,
) -> Iterator[Query]:
    """Compose references, given by their positions in ``store``, and texts into queries.

    Yields :data:`CHUNK` queries at a time, in order. ``encoder`` encodes the texts. ``turns``: how many
    references and texts, one after the other, make up each query, which is the mean of the queries of its
    turns. Default: one each. Raises :class:`DataError` for an empty text, unless ``blank`` allows it.
    """
    counts = [1] * len(texts) if turns is None else list(turns)
    ends = list(accumulate(counts, initial=0))
    for start in range(0, len(counts), CHUNK):
        own = counts[start : start + CHUNK]
        some = slice(ends[start], ends[start + len(own)])
        tokens = store.gather(torch.tensor(references[some]))
        composed = compose(method, tokens, encoder(texts[some], blank))
        yield mixed(composed, [[1.0] * count for count in own])


def learn_images(method: Method, store: Store) -> None:
    """Let a method learn from up to :data:`SEEN` random images of ``store``, which are the same each time.

    Only methods that override :meth:`Method.fit_targets` learn from them.
    """
    rows = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:SEEN]
    method.fit_targets(store.gather(some) for some in rows.split(CHUNK))


@dataclass(frozen=True)
class Reference:
    """A reference image: its pixels [3, S, S], or its image tokens [M, W] if they are already known.

    ``key`` identifies the picture in the cache of image tokens; None: do not cache. ``weight`` (above 0) is
    its share relative to the other references of the same text.
    """

    pixels: Tensor | None = None
    tokens: Tensor | None = None
    key: Hashable = None
    weight: float = 1.0


class QueryComposer:
    """Composes queries with one model, and caches the image tokens of references."""

    def __init__(self, model: ComposedModel, tokens_kept: int = 0) -> None:
        """Compose with ``model``, in evaluation mode. ``tokens_kept``: bytes of the cache; 0: no cache."""
        self.model = model.eval()
        self._keeps = tokens_kept > 0
        self._tokens: Recent[Tensor] = Recent(tokens_kept, lambda kept: kept.numel() * kept.element_size())

    def reference(self, image: ImageSource, weight: float = 1.0) -> Reference:
        """Read a picture for :meth:`compose`; a file whose image tokens are cached is not decoded.

        ``weight`` as in :class:`Reference`. Raises ``ImageError`` if the picture cannot be used.
        """
        key = file_state(image) if self._keeps and isinstance(image, Path | RemotePicture) else None
        tokens = None if key is None else self._tokens.get(key)
        if tokens is not None:
            return Reference(tokens=tokens, weight=weight)
        return Reference(self.model.preprocessing(load_image(image)), key=key, weight=weight)

    @torch.no_grad()
    def compose(self, references: Sequence[Sequence[Reference]], texts: Sequence[str]) -> Query:
        """Return one query for each text and its references, with the weights that the method gives.

        An empty text asks for images like the references. If a text has no references, the text alone is the
        query (:func:`without_reference`).
        """
        method, size = self.model.method, self.model.preprocessing.size
        # A text without references gets a black picture, whose effect without_reference() removes.
        groups = [own or (Reference(torch.zeros(3, size, size)),) for own in references]
        words = [method.text((text,)) for text in texts]
        each = [word for word, own in zip(words, groups, strict=True) for _ in own]
        tokens = self._image_tokens([reference for own in groups for reference in own])
        composed = compose(method, tokens, self.model.text_encoder(each, blank=True))
        query = mixed(composed, [[reference.weight for reference in own] for own in groups])
        if all(references):
            return query
        text = self.model.text_encoder(words, blank=True).to(method.device)
        alone = torch.tensor([not own for own in references], device=method.device)
        return without_reference(query, alone, method.embed_text(text))

    @torch.no_grad()
    def target_embeddings(self, references: Sequence[Reference]) -> list[Tensor]:
        """Return the target embedding [n_t, D] of each picture on the CPU, as an index stores it."""
        return list(self.model.method.embed_target(self._image_tokens(references)).cpu())

    def _image_tokens(self, references: Sequence[Reference]) -> Tensor:
        """Return image tokens [B, M, W] of B references; all that are not known are encoded together."""
        pixels = [one.pixels for one in references if one.tokens is None and one.pixels is not None]
        encoder = self.model.method.backbone
        encoded = iter(encoder.image_tokens(torch.stack(pixels).to(encoder.device)) if pixels else ())
        rows = []
        for one in references:
            row = next(encoded) if one.tokens is None else one.tokens
            if one.tokens is None and one.key is not None:
                # Copy the row; a view would keep its whole batch in memory.
                self._tokens.put(one.key, row.clone())
            rows.append(row)
        return torch.stack(rows)


def without_reference(query: Query, alone: Tensor, texts: Tensor | None) -> Query:
    """Return the queries, with those in ``alone`` [B] bool replaced by queries of their text alone.

    If the method reports which columns the text requests, such a query keeps only these columns. Otherwise it
    becomes the text's embedding in ``texts`` [B, n_q, D], or zero if ``texts`` is None, so that all items get
    the same score; no query of the result has parts then.
    """
    parts = query.parts
    if parts is None or parts.asked is None:
        own = torch.zeros_like(query.embeddings) if texts is None else texts.to(query.embeddings)
        return Query(torch.where(alone[:, None, None], own, query.embeddings))
    left = alone[:, None] & (parts.asked < REQUESTED)
    parts = replace(
        parts,
        base=parts.base.masked_fill(alone[:, None, None], 0),
        weights=parts.weights.masked_fill(left, 0),
    )
    return replace(query, embeddings=parts.embeddings(), parts=parts)


def mixed(query: Query, groups: Sequence[Sequence[float]]) -> Query:
    """Return the weighted mean of the queries in each group.

    ``query`` holds the queries of all groups, one group after the other; ``groups`` has for each group the
    positive weights of its queries, of which only the proportions count. The result has embeddings and parts,
    but no attribute embeddings. If every group has one query, ``query`` is returned unchanged.
    """
    if all(len(group) == 1 for group in groups):
        return query
    shares = torch.zeros(len(groups), len(query.embeddings))
    start = 0
    for row, group in enumerate(groups):
        shares[row, start : start + len(group)] = torch.tensor(group) / sum(group)
        start += len(group)
    shares = shares.to(query.embeddings)
    parts = None if query.parts is None else _mixed_parts(query.parts, shares)
    embeddings = _weighted_mean(query.embeddings, shares) if parts is None else parts.embeddings()
    return Query(embeddings, parts=parts)


def _mixed_parts(parts: QueryParts, shares: Tensor) -> QueryParts:
    first = shares.argmax(dim=1).tolist()
    weights = shares @ parts.weights
    added = _weighted_mean(parts.weights[:, :, None, None] * parts.pieces, shares)
    # A piece times its weight must be the mean of what the pieces of the references add.
    pieces = added / weights.clamp(min=torch.finfo(weights.dtype).tiny)[:, :, None, None]
    wanted = tuple(_weighted_mean(values, shares) for values in parts.wanted)
    return replace(
        parts,
        base=_weighted_mean(parts.base, shares),
        pieces=pieces if parts.slices is None else parts.slices.pieces(wanted),
        weights=weights,
        asked=None if parts.asked is None else _weighted_mean(parts.asked, shares),
        wanted=wanted,
        # The unread parts of a text are the same with every reference.
        unread=None if parts.unread is None else tuple(parts.unread[row] for row in first),
    )


def _weighted_mean(values: Tensor, shares: Tensor) -> Tensor:
    """Return weighted means [G, ...] of ``values`` [B, ...], for ``shares`` [G, B]."""
    return torch.einsum("gb,b...->g...", shares.to(values), values)
