"""Sketches: two bytes in place of every token, searched first where scoring all items takes too long.

Each place of a token, 1 to n_t, has a codebook of its own: 256 centroids, and 256 corrections to them.
Under a query, what a score rule makes of the token at that place is then a table of 65,536 numbers, and
an item's sketched score is as many look-ups as it has tokens. The best of them are scored exactly.

A sketch belongs to one segment, never changes, and can be made again from its tokens at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dqecir.files import write_bytes
from dqecir.scoring import FLOOR, ScoreRule

FILE = "sketch.safetensors"

SIZE = 256
"""Centroids of a codebook, and corrections to them: a byte each."""

_TAUGHT = 16_384
"""Items from which a codebook is learned."""

_ROUNDS = 12
"""Of k-means."""

_ENCODED = 8_192
"""Items encoded at once."""

_SPAN = 65_536
"""Items whose scores are summed at once: they, their codes and a table fit a core's cache."""

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Sketch:
    """Codes [n_t, N] of a segment's tokens, and what they stand for.

    The token at place p with the code 256 a + b is ``coarse[p, a] + fine[p, b]``, squared where
    ``roots[p]`` is set: [n_t, 256, D] both, the same in all segments of one model only by chance.
    """

    codes: NDArray[np.uint16]
    coarse: Tensor
    fine: Tensor
    roots: Tensor

    def scores(self, query: Tensor, rule: ScoreRule) -> Scores:
        """What ``rule`` makes of a query [n_q, D] and every item, as far as codes can tell [N]."""
        highest, added = (tables.numpy() for tables in _TABLES[rule](self, query))
        # What is the same for every code orders nothing: columns that the query gives no weight.
        first = len(highest)
        told = [(place, table) for place, table in enumerate(added, start=first) if table.min() < table.max()]
        found = np.empty(self.codes.shape[1], dtype=np.float32)

        def fill(start: int) -> None:
            out = found[start : start + _SPAN]
            looked_up = np.empty_like(out)
            out[:] = 0 if first == 0 else -np.inf
            codes = self.codes[:, start : start + _SPAN]
            # Taken by numpy, because torch would have every thread wait for all the others.
            for place in range(first):
                np.maximum(out, np.take(highest[place], codes[place], out=looked_up, mode="clip"), out=out)
            for place, table in told:
                np.add(out, np.take(table, codes[place], out=looked_up, mode="clip"), out=out)

        starts = range(0, len(found), _SPAN)
        # A pool a search: threads are cheap beside it, and none is left to a process that forks.
        with ThreadPoolExecutor(max(1, min(torch.get_num_threads(), len(starts)))) as pool:
            list(pool.map(fill, starts))
        return found

    def best(self, query: Tensor, rule: ScoreRule, count: int, allowed: NDArray[np.bool_]) -> Tensor:
        """Rows of the ``count`` allowed items that score best by their codes, in order of rows.

        Of equals the first rows are taken. Fewer where fewer are allowed.
        """
        scores = self.scores(query, rule)
        scores[~allowed] = -np.inf
        if count < len(scores):
            worst = np.partition(scores, len(scores) - count)[len(scores) - count]
            rows = np.flatnonzero(scores >= worst)
            if len(rows) > count:
                equal = np.flatnonzero(scores[rows] == worst)
                rows = np.delete(rows, equal[len(equal) - (len(rows) - count) :])
        else:
            rows = np.arange(len(scores))
        return torch.from_numpy(rows[allowed[rows]])

    def products(self, query: Tensor, place: int) -> Tensor:
        """Inner products of query vectors [n_q, D] with all that codes can say at a place [n_q, 65536]."""
        coarse, fine = self.coarse[place], self.fine[place]
        if not self.roots[place]:
            return ((query @ coarse.T)[:, :, None] + (query @ fine.T)[:, None]).flatten(1)
        mixed = (query[:, None] * coarse) @ fine.T  # [n_q, 256, 256]
        squares = (query @ coarse.square().T)[:, :, None] + (query @ fine.square().T)[:, None]
        return (squares + 2 * mixed).flatten(1)

    def as_bytes(self) -> bytes:
        """The sketch as a safetensors file."""
        return save(
            {
                "codes": torch.from_numpy(self.codes.view(np.int16)),
                "coarse": self.coarse.half(),
                "fine": self.fine.half(),
                "roots": self.roots,
            }
        )


def write_sketch(folder: Path, sketch: Sketch) -> str:
    """Write the sketch of the segment in ``folder``; its SHA-256, by which :func:`read_sketch` knows it."""
    data = sketch.as_bytes()
    write_bytes(folder / FILE, data)
    return hashlib.sha256(data).hexdigest()


def read_sketch(folder: Path, sha256: str | None) -> Sketch | None:
    """The sketch of a segment; none where it was not made, is missing, or is not the one of this hash."""
    if sha256 is None:
        return None
    try:
        data = (folder / FILE).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        parts = load(data)
    except (OSError, SafetensorError):
        return None
    codes: NDArray[np.uint16] = parts["codes"].numpy().view(np.uint16)
    return Sketch(codes, parts["coarse"].float(), parts["fine"].float(), parts["roots"])


@torch.no_grad()
def make_sketch(tokens: Tensor) -> Sketch:
    """Learn codebooks from some of a segment's tokens [N, n_t, D], and encode all of them.

    Tokens are read a part at a time. What is learned and written follows from the tokens alone.
    """
    count, places, width = tokens.shape
    draw = torch.Generator().manual_seed(0)
    some = tokens[torch.randperm(count, generator=draw)[:_TAUGHT].sort().values].float()
    # Of shares, roots are compared: what matters about 0.01 and 0.02 is that one is twice the other.
    roots = (some >= 0).flatten(2).all(dim=2).all(dim=0)
    coarse, fine = torch.zeros(places, SIZE, width), torch.zeros(places, SIZE, width)
    used = [_used(some[:, place]) for place in range(places)]
    for place, ends in enumerate(used):
        taught = some[:, place, :ends]
        if roots[place]:
            taught = taught.sqrt()
        coarse[place, :, :ends] = _centroids(taught, draw)
        rest = taught - coarse[place, _nearest(taught, coarse[place, :, :ends]), :ends]
        fine[place, :, :ends] = _centroids(rest, draw)
    # As they are kept, so that codes fit what is read again.
    coarse, fine = coarse.half().float(), fine.half().float()
    codes = np.empty((places, count), dtype=np.uint16)
    for start in range(0, count, _ENCODED):
        part = tokens[start : start + _ENCODED].float()
        for place, ends in enumerate(used):
            taught = part[:, place, :ends]
            if roots[place]:
                taught = taught.clamp(min=0).sqrt()
            first = _nearest(taught, coarse[place, :, :ends])
            second = _nearest(taught - coarse[place, first, :ends], fine[place, :, :ends])
            codes[place, start : start + _ENCODED] = (SIZE * first + second).numpy()
    return Sketch(codes, coarse, fine, roots)


def _used(vectors: Tensor) -> int:
    """How many of the first numbers of vectors [N, D] are ever other than zero; at least one."""
    ever = (vectors != 0).any(dim=0).nonzero()
    return int(ever.max()) + 1 if len(ever) else 1


def _nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    return torch.addmm(-0.5 * centroids.square().sum(dim=1), vectors, centroids.T).argmax(dim=1)


def _centroids(vectors: Tensor, draw: torch.Generator) -> Tensor:
    """Means [256, D] of k-means over vectors [N, D]; who loses all takes the worst fitted."""
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


_Tables = tuple[Tensor, Tensor]
"""[a, 65536] for the first places, whose highest counts, and [n_t - a, 65536] for the others, which add."""


def _mean(sketch: Sketch, query: Tensor) -> _Tables:
    mean = query.mean(dim=0, keepdim=True)
    tables = [sketch.products(mean, place)[0] for place in range(len(sketch.codes))]
    return torch.empty(0, SIZE * SIZE), torch.stack(tables) / len(tables)


def _highest(sketch: Sketch, query: Tensor) -> _Tables:
    tables = [sketch.products(query, place).amax(dim=0) for place in range(len(sketch.codes))]
    return torch.stack(tables), torch.empty(0, SIZE * SIZE)


def _likelihood(sketch: Sketch, query: Tensor) -> _Tables:
    first = len(sketch.codes) - (len(query) - 1)
    base = torch.stack([sketch.products(query[:1], place)[0] for place in range(first)])
    tables = []
    for place, wanted in enumerate(query[1:], start=first):
        mass = wanted.sum()
        shares = (wanted / mass.clamp(min=1e-6))[None]
        tables.append(mass * (sketch.products(shares, place)[0].clamp(min=0) + FLOOR).log())
    return base, torch.stack(tables)


_TABLES: dict[ScoreRule, Callable[[Sketch, Tensor], _Tables]] = {
    "dot": _mean,
    "max_t": _highest,
    "mean_mean": _mean,
    "max_max": _highest,
    "likelihood": _likelihood,
}
"""What each rule of ``dqecir.scoring`` makes of what codes can say."""
