"""Quantized tokens: two bytes instead of every token, searched first where scoring all items is too slow.

Each place of a token, 1 to n_t, has a codebook of its own: 256 centroids, and 256 corrections to them.
For one query and one place, a score rule is then a table of 65,536 numbers, and the approximate score of an
item is one look-up a token. The best items by it are scored exactly.

The quantized tokens of a segment never change, and can be made again from its tokens at any time. They are
made before their segment counts, so that no search scores a large one whole meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from dqecir.io.files import write_bytes
from dqecir.methods.scoring import SMOOTHING, ScoreRule

FILE = "sketch.safetensors"
"""Its name in the format of the index."""

SIZE = 256
"""Centroids of a codebook, and corrections to them: a byte each."""

_TAUGHT = 16_384
"""Items from which a codebook is learned."""

_ROUNDS = 12
"""Of k-means."""

_ENCODED = 8_192
"""Items encoded at once."""

_MANY = 0.4
"""Share of the items that may be found above which all are looked up."""

_SPAN = 65_536
"""Items whose scores are summed at once: they, their codes and a table fit a core's cache."""

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class QuantizedTokens:
    """Codes [n_t, N] of a segment's tokens, and what they stand for.

    The token at place p with the code 256 a + b is ``coarse[p, a] + fine[p, b]``, both [n_t, 256, D], and
    the square of that, number by number, where ``roots[p]`` is set.
    """

    codes: NDArray[np.uint16]
    coarse: Numbers
    fine: Numbers
    roots: NDArray[np.bool_]

    def best(self, query: Tensor, rule: ScoreRule, count: int, allowed: NDArray[np.bool_]) -> Tensor:
        """Rows of the ``count`` allowed items that score best by their codes, in order of rows.

        Of equals the first rows are taken. Fewer where fewer are allowed.
        """
        share = allowed.mean()
        rows = None if share == 1 else np.flatnonzero(allowed)
        # Looking up few is quicker than leaving out many.
        scores = self.scores(query, rule, rows if share <= _MANY else None)
        if rows is not None and share > _MANY:
            scores = scores[rows]
        if count < len(scores):
            worst = np.partition(scores, len(scores) - count)[len(scores) - count]
            best = np.flatnonzero(scores >= worst)
            if len(best) > count:
                equal = np.flatnonzero(scores[best] == worst)
                best = np.delete(best, equal[len(equal) - (len(best) - count) :])
        else:
            best = np.arange(len(scores))
        return torch.from_numpy(best if rows is None else rows[best])

    def scores(self, query: Tensor, rule: ScoreRule, rows: NDArray[np.int64] | None = None) -> Numbers:
        """What ``rule`` makes of a query [n_q, D] and the items in ``rows``, or all, by their codes [N].

        All is done by numpy in threads of its own: torch has its threads wait for each other after every
        step, which on a busy machine takes a hundred times as long as the step.
        """
        places = len(self.codes)
        items = self.codes.shape[1] if rows is None else len(rows)
        plan = PLANS[rule](query.numpy(), places)
        found = np.empty(items, dtype=np.float32)
        tables: list[Numbers] = []

        def fill(start: int) -> None:
            out = found[start : start + _SPAN]
            looked_up = np.empty_like(out)
            span = slice(start, start + _SPAN) if rows is None else rows[start : start + _SPAN]
            out[:] = -np.inf if plan.highest else 0
            for place, table in enumerate(tables):
                if place >= plan.highest and table.min() == table.max():
                    continue  # it orders nothing, as a column of no weight
                np.take(table, self.codes[place, span], out=looked_up, mode="clip")
                (np.maximum if place < plan.highest else np.add)(out, looked_up, out=out)

        # A pool a search: threads are cheap beside it, and none is left to a process that forks.
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            tables += pool.map(lambda place: plan.table(self, place), range(places))
            list(pool.map(fill, range(0, items, _SPAN)))
        return found

    def products(self, vectors: Numbers, place: int) -> Numbers:
        """Inner products of vectors [n, D] with all that codes can say at a place [n, 65536]."""
        ends = self._ends[place]
        vectors, coarse, fine = vectors[:, :ends], self.coarse[place, :, :ends], self.fine[place, :, :ends]
        if not self.roots[place]:
            return ((vectors @ coarse.T)[:, :, None] + (vectors @ fine.T)[:, None]).reshape(len(vectors), -1)
        # Products this small are left to one thread.
        mixed: Numbers = np.matmul((vectors[:, None] * (2 * coarse)).reshape(-1, 32, ends), fine.T)
        mixed = mixed.reshape(len(vectors), SIZE, SIZE)
        mixed += (vectors @ np.square(coarse).T)[:, :, None]
        mixed += (vectors @ np.square(fine).T)[:, None]
        return mixed.reshape(len(vectors), -1)

    @torch.no_grad()
    def encoded(self, tokens: Tensor) -> NDArray[np.uint16]:
        """The codes [n_t, N] of tokens [N, n_t, D] in these codebooks; tokens are read a part at a time."""
        codes = np.empty((len(self.codes), len(tokens)), dtype=np.uint16)
        coarse, fine = torch.from_numpy(self.coarse), torch.from_numpy(self.fine)
        for start in range(0, len(tokens), _ENCODED):
            part = tokens[start : start + _ENCODED].float()
            for place, ends in enumerate(self._ends):
                told = part[:, place, :ends]
                if self.roots[place]:
                    told = told.clamp(min=0).sqrt()
                first = _nearest(told, coarse[place, :, :ends])
                second = _nearest(told - coarse[place, first, :ends], fine[place, :, :ends])
                codes[place, start : start + _ENCODED] = (SIZE * first + second).numpy()
        return codes

    @cached_property
    def _ends(self) -> list[int]:
        """How many of the first numbers are ever other than zero, at each place."""
        ever = (self.coarse != 0).any(axis=1) | (self.fine != 0).any(axis=1)
        return [int(np.flatnonzero(row).max(initial=0)) + 1 for row in ever]

    def as_bytes(self) -> bytes:
        """Codes and codebooks as a safetensors file."""
        return save(
            {
                "codes": self.codes,
                "coarse": self.coarse.astype(np.float16),
                "fine": self.fine.astype(np.float16),
                "roots": self.roots,
            }
        )


@dataclass(frozen=True)
class Plan:
    """What a rule makes of codes: the highest look-up of the first places, and the others added to it."""

    highest: int
    table: Callable[[QuantizedTokens, int], Numbers]
    """A place's table [65536]."""


def write_quantized(folder: Path, quantized: QuantizedTokens) -> str:
    """Write a segment's quantized tokens into its folder, and return the file's SHA-256."""
    data = quantized.as_bytes()
    write_bytes(folder / FILE, data)
    return hashlib.sha256(data).hexdigest()


def read_quantized(folder: Path, sha256: str | None, items: int) -> QuantizedTokens | None:
    """Read a segment's quantized tokens; None where there are none of this hash, or in another format."""
    if sha256 is None:
        return None
    try:
        data = (folder / FILE).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        parts = load(data)
        codes, coarse, fine, roots = (parts[name] for name in ("codes", "coarse", "fine", "roots"))
    except (OSError, SafetensorError, KeyError):
        return None
    if codes.dtype != np.uint16 or codes.shape != (len(roots), items):
        return None
    return QuantizedTokens(codes, coarse.astype(np.float32), fine.astype(np.float32), roots)


def quantize(tokens: Tensor) -> QuantizedTokens:
    """Learn codebooks from some of a segment's tokens [N, n_t, D], and encode all of them.

    Tokens are read a part at a time. What is learned and written follows from the tokens alone.
    """
    learned = _learned(tokens)
    return replace(learned, codes=learned.encoded(tokens))


def joined_quantized(
    parts: Sequence[tuple[QuantizedTokens | None, Tensor, NDArray[np.bool_]]],
) -> QuantizedTokens | None:
    """Join what is left of some segments, in order: (quantized tokens, tokens, which items are left).

    If one of them has half of the items or more and quantized tokens, its codebooks serve all, and only the
    other segments' tokens are encoded. None otherwise, because codebooks grow old.
    """
    total = sum(int(left.sum()) for _, _, left in parts)
    chosen = next((quantized for quantized, _, left in parts if quantized and 2 * left.sum() >= total), None)
    if chosen is None:
        return None
    codes = [
        quantized.codes[:, left]
        if quantized is chosen
        else chosen.encoded(tokens[torch.from_numpy(np.flatnonzero(left))])
        for quantized, tokens, left in parts
    ]
    return replace(chosen, codes=np.concatenate(codes, axis=1))


@torch.no_grad()
def _learned(tokens: Tensor) -> QuantizedTokens:
    """Codebooks of tokens [N, n_t, D], and no codes."""
    count, places, width = tokens.shape
    draw = torch.Generator().manual_seed(0)
    some = tokens[torch.randperm(count, generator=draw)[:_TAUGHT].sort().values].float()
    # Of shares, roots are compared: what matters about 0.01 and 0.02 is that one is twice the other.
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
    # As they are kept, so that codes fit what is read again.
    coarse, fine = coarse.half().float(), fine.half().float()
    return QuantizedTokens(
        np.empty((places, 0), dtype=np.uint16), coarse.numpy(), fine.numpy(), roots.numpy()
    )


def _used(vectors: Tensor) -> int:
    """How many of the first numbers of vectors [N, D] are ever other than zero; at least one."""
    ever = (vectors != 0).any(dim=0).nonzero()
    return int(ever.max()) + 1 if len(ever) else 1


def _nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    return torch.addmm(-0.5 * centroids.square().sum(dim=1), vectors, centroids.T).argmax(dim=1)


def _centroids(vectors: Tensor, draw: torch.Generator) -> Tensor:
    """Means [256, D] of k-means over vectors [N, D].

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


def _mean(query: Numbers, places: int) -> Plan:
    mean = query.mean(axis=0, keepdims=True) / np.float32(places)
    return Plan(0, lambda quantized, place: quantized.products(mean, place)[0])


def _highest(query: Numbers, places: int) -> Plan:
    return Plan(places, lambda quantized, place: quantized.products(query, place).max(axis=0))


def _likelihood(query: Numbers, places: int) -> Plan:
    first = places - (len(query) - 1)

    def table(quantized: QuantizedTokens, place: int) -> Numbers:
        if place < first:
            return quantized.products(query[:1], place)[0]
        wanted = query[1 + place - first]
        mass = wanted.sum()
        fits = quantized.products((wanted / max(mass, 1e-6))[None], place)[0]
        return mass * np.log(np.maximum(fits, 0, out=fits) + np.float32(SMOOTHING))

    return Plan(first, table)


PLANS: dict[ScoreRule, Callable[[Numbers, int], Plan]] = {
    "dot": _mean,
    "max_t": _highest,
    "mean_mean": _mean,
    "max_max": _highest,
    "likelihood": _likelihood,
}
"""What each rule of ``dqecir.methods.scoring`` makes of a query [n_q, D] and codes of n_t places."""
