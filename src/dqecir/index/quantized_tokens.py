"""Quantized tokens: two bytes for each token, which choose candidates if scoring all items is too slow.

Each of the n_t tokens of an item has its own codebook: 256 centroids, and 256 corrections to them. For one
query and one token, a score rule is then a table of 65,536 numbers, and an item's approximate score needs one
look-up for each token. The best items by it are scored exactly.

The quantized tokens of a segment never change, and can be recomputed from its tokens. They are made before
the segment becomes visible, so that no search scores a large segment completely in the meantime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dqecir.io.files import write_bytes
from dqecir.methods.score_rules import HARRIS, SMOOTHING, ScoreRule

FILE = "sketch.safetensors"
"""The name of this format in the index."""

SIZE = 256
"""Number of centroids of a codebook, and of corrections to them: a byte each."""

_MANY = 0.4
"""If a larger share of the items may be found, all items are looked up."""

_SPAN = 65_536
"""Items whose scores are summed in one step: scores, codes and a table fit a core's cache."""

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class QuantizedTokens:
    """Codes [n_t, N] of a segment's tokens, and their codebooks.

    The token at place p with the code 256 a + b is ``coarse[p, a] + fine[p, b]``, both [n_t, 256, D]; if
    ``roots[p]`` is set, it is the elementwise square of that.
    """

    codes: NDArray[np.uint16]
    coarse: Numbers
    fine: Numbers
    roots: NDArray[np.bool_]

    def best(
        self,
        query: Numbers,
        rule: ScoreRule,
        count: int,
        allowed: NDArray[np.bool_],
        threads: int,
        added: Numbers | None = None,
    ) -> NDArray[np.int64]:
        """Return the rows, ascending, of the ``count`` allowed items that score best by their codes.

        ``added`` [N] is added to the scores.
        Of equal scores the first rows are taken. There are fewer if fewer are allowed.
        """
        share = allowed.mean()
        rows = None if share == 1 else np.flatnonzero(allowed)
        # Looking up few items is faster than looking up all.
        scores = self.scores(query, rule, rows if share <= _MANY else None, threads)
        if added is not None:
            scores += added if share > _MANY else added[rows]
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
        return best if rows is None else rows[best]

    def scores(
        self, query: Numbers, rule: ScoreRule, rows: NDArray[np.int64] | None = None, threads: int = 1
    ) -> Numbers:
        """Return the scores [N] of a query [n_q, D] under ``rule`` by the codes of items in ``rows``, or all.

        It uses numpy in separate threads: torch's threads wait for each other after every step, which on a
        busy machine takes a hundred times as long as the step.
        """
        places = len(self.codes)
        items = self.codes.shape[1] if rows is None else len(rows)
        plan = SCAN_PLANS[rule](query, places)
        found = np.empty(items, dtype=np.float32)
        tables: list[Numbers] = []

        def fill(start: int) -> None:
            out = found[start : start + _SPAN]
            looked_up = np.empty_like(out)
            span = slice(start, start + _SPAN) if rows is None else rows[start : start + _SPAN]
            out[:] = -np.inf if plan.highest else 0
            for place, table in enumerate(tables):
                if place >= plan.highest and table.min() == table.max():
                    continue  # A column without weight does not change the order.
                np.take(table, self.codes[place, span], out=looked_up, mode="clip")
                (np.maximum if place < plan.highest else np.add)(out, looked_up, out=out)

        # A pool for each search: threads are cheap, and a process that forks has none left over.
        with ThreadPoolExecutor(threads) as pool:
            tables += pool.map(lambda place: plan.table(self, place), range(places))
            list(pool.map(fill, range(0, items, _SPAN)))
        return found

    def products(self, vectors: Numbers, place: int) -> Numbers:
        """Return inner products [n, 65536] of vectors [n, D] with the tokens of all codes at a place."""
        ends = self.ends[place]
        vectors, coarse, fine = vectors[:, :ends], self.coarse[place, :, :ends], self.fine[place, :, :ends]
        if not self.roots[place]:
            return ((vectors @ coarse.T)[:, :, None] + (vectors @ fine.T)[:, None]).reshape(len(vectors), -1)
        # One thread computes products this small.
        mixed: Numbers = np.matmul((vectors[:, None] * (2 * coarse)).reshape(-1, 32, ends), fine.T)
        mixed = mixed.reshape(len(vectors), SIZE, SIZE)
        mixed += (vectors @ np.square(coarse).T)[:, :, None]
        mixed += (vectors @ np.square(fine).T)[:, None]
        return mixed.reshape(len(vectors), -1)

    @cached_property
    def ends(self) -> list[int]:
        """How many leading numbers of each place's tokens are not always zero."""
        ever = (self.coarse != 0).any(axis=1) | (self.fine != 0).any(axis=1)
        return [int(np.flatnonzero(row).max(initial=0)) + 1 for row in ever]

    def as_bytes(self) -> bytes:
        """Return codes and codebooks as a safetensors file."""
        return save(
            {
                "codes": self.codes,
                "coarse": self.coarse.astype(np.float16),
                "fine": self.fine.astype(np.float16),
                "roots": self.roots,
            }
        )


@dataclass(frozen=True)
class ScanPlan:
    """How a score rule sums look-ups: the highest of the first places, plus those of the others."""

    highest: int
    table: Callable[[QuantizedTokens, int], Numbers]
    """Place -> its table [65536]."""


def write_quantized(folder: Path, quantized: QuantizedTokens) -> str:
    """Write a segment's quantized tokens into its folder, and return the file's SHA-256."""
    data = quantized.as_bytes()
    write_bytes(folder / FILE, data)
    return hashlib.sha256(data).hexdigest()


def read_quantized(folder: Path, sha256: str | None, items: int) -> QuantizedTokens | None:
    """Read a segment's quantized tokens; None if they are missing, damaged or in another format."""
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


def _mean(query: Numbers, places: int) -> ScanPlan:
    mean = query.mean(axis=0, keepdims=True) / np.float32(places)
    return ScanPlan(0, lambda quantized, place: quantized.products(mean, place)[0])


def _highest(query: Numbers, places: int) -> ScanPlan:
    return ScanPlan(places, lambda quantized, place: quantized.products(query, place).max(axis=0))


def _likelihood(query: Numbers, places: int) -> ScanPlan:
    first = places - (len(query) - 1)

    def table(quantized: QuantizedTokens, place: int) -> Numbers:
        if place < first:
            return quantized.products(query[:1], place)[0]
        wanted = query[1 + place - first]
        mass = wanted.sum()
        fits = quantized.products((wanted / max(mass, 1e-6))[None], place)[0]
        return mass * np.log(np.maximum(fits, 0, out=fits) + np.float32(SMOOTHING))

    return ScanPlan(first, table)


def _two(score: Callable[[Numbers, Numbers], Numbers]) -> Callable[[Numbers, int], ScanPlan]:
    """Return the plan of a rule of two similarities to the only token of an item."""

    def plan(query: Numbers, places: int) -> ScanPlan:
        return ScanPlan(0, lambda quantized, place: score(*np.maximum(quantized.products(query, place), 0)))

    return plan


SCAN_PLANS: dict[ScoreRule, Callable[[Numbers, int], ScanPlan]] = {
    "dot": _mean,
    "max_t": _highest,
    "mean_mean": _mean,
    "max_max": _highest,
    "likelihood": _likelihood,
    "product": _two(np.multiply),
    "harris": _two(lambda first, second: first * second - np.float32(HARRIS) * np.square(first + second)),
}
"""Score rule -> scan plan for a query [n_q, D] and codes of n_t places."""
