"""Learn the codebooks of quantized tokens by k-means, and encode tokens in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.index.quantized_tokens import SIZE, QuantizedTokens

_TAUGHT = 16_384
"""Number of items from which a codebook is learned."""

_ROUNDS = 12
"""Of k-means."""

_ENCODED = 8_192
"""Number of items encoded in one step."""


def quantize(tokens: Tensor) -> QuantizedTokens:
    """Learn codebooks from some of a segment's tokens [N, n_t, D], and encode all of them.

    Tokens are read a part at a time. The result depends only on the tokens.
    """
    learned = _learned(tokens)
    return replace(learned, codes=encoded(learned, tokens))


def joined_quantized(
    parts: Sequence[tuple[QuantizedTokens | None, Tensor, NDArray[np.bool_]]],
) -> QuantizedTokens | None:
    """Join the living items of segments, in order; a part is (quantized tokens, tokens, living items).

    If one part with quantized tokens has at least half of the items, its codebooks are reused, and only the
    other parts' tokens are encoded. Otherwise return None, so that new codebooks are learned.
    """
    total = sum(int(left.sum()) for _, _, left in parts)
    chosen = next((quantized for quantized, _, left in parts if quantized and 2 * left.sum() >= total), None)
    if chosen is None:
        return None
    codes = [
        quantized.codes[:, left]
        if quantized is chosen
        else encoded(chosen, tokens[torch.from_numpy(np.flatnonzero(left))])
        for quantized, tokens, left in parts
    ]
    return replace(chosen, codes=np.concatenate(codes, axis=1))


@torch.no_grad()
def encoded(quantized: QuantizedTokens, tokens: Tensor) -> NDArray[np.uint16]:
    """Encode tokens [N, n_t, D] with known codebooks: [n_t, N]. Tokens are read a part at a time."""
    codes = np.empty((len(quantized.codes), len(tokens)), dtype=np.uint16)
    coarse, fine = torch.from_numpy(quantized.coarse), torch.from_numpy(quantized.fine)
    for start in range(0, len(tokens), _ENCODED):
        part = tokens[start : start + _ENCODED].float()
        for place, ends in enumerate(quantized.ends):
            told = part[:, place, :ends]
            if quantized.roots[place]:
                told = told.clamp(min=0).sqrt()
            first = _nearest(told, coarse[place, :, :ends])
            second = _nearest(told - coarse[place, first, :ends], fine[place, :, :ends])
            codes[place, start : start + _ENCODED] = (SIZE * first + second).numpy()
    return codes


@torch.no_grad()
def _learned(tokens: Tensor) -> QuantizedTokens:
    """Learn codebooks of tokens [N, n_t, D], without codes."""
    count, places, width = tokens.shape
    draw = torch.Generator().manual_seed(0)
    some = tokens[torch.randperm(count, generator=draw)[:_TAUGHT].sort().values].float()
    # For shares, compare square roots: the ratio of 0.01 and 0.02 matters, not their difference.
    roots = (some >= 0).flatten(2).all(dim=2).all(dim=0)
    coarse, fine = torch.zeros(places, SIZE, width), torch.zeros(places, SIZE, width)
    for place in range(places):
        ends = _used(some[:, place])
        taught = some[:, place, :ends]
        if roots[place]:
            taught = taught.sqrt()
        coarse[place, :, :ends] = _centroids(taught, draw)
        rest = taught - coarse[place, _nearest(taught, coarse[place, :, :ends]), :ends]
        fine[place, :, :ends] = _centroids(rest, draw)
    # In the stored precision, so that codes fit the codebooks that are read.
    coarse, fine = coarse.half().float(), fine.half().float()
    return QuantizedTokens(
        np.empty((places, 0), dtype=np.uint16), coarse.numpy(), fine.numpy(), roots.numpy()
    )


def _used(vectors: Tensor) -> int:
    """Return how many leading numbers of vectors [N, D] are not always zero; at least one."""
    ever = (vectors != 0).any(dim=0).nonzero()
    return int(ever.max()) + 1 if len(ever) else 1


def _nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    return torch.addmm(-0.5 * centroids.square().sum(dim=1), vectors, centroids.T).argmax(dim=1)


def _centroids(vectors: Tensor, draw: torch.Generator) -> Tensor:
    """Return means [256, D] of k-means over vectors [N, D].

    Empty clusters are re-seeded with the worst-fitted vectors.
    """
    start = torch.randperm(len(vectors), generator=draw)[:SIZE]
    centroids = vectors[start.repeat(-(-SIZE // len(start)))[:SIZE]].clone()
    for _ in range(_ROUNDS):
        nearest = _nearest(vectors, centroids)
        counts = torch.bincount(nearest, minlength=SIZE)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, vectors)
        means = sums / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0][: len(vectors)]
        if len(empty):
            apart = (vectors - means[nearest]).square().sum(dim=1)
            means[empty] = vectors[apart.topk(len(empty)).indices]
        centroids = means
    return centroids
