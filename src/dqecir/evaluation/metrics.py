"""Ranks and metrics: integer ranks per query, and everything that follows from them.

Sources: FashionIQ and CIRR recall (PROTOCOLS.md §1 and §2), CIRCO's average precision (§3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dqecir.data.triplets import Benchmark, DataError, Positions

Scores = NDArray[np.float32]
RECALLS = (1, 5, 10, 50)
KEPT = 50
"""How many of each query's best candidates are remembered."""


def average_precision(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """AP@k = Σ_{i≤k} P(i)·rel(i) / min(|relevant|, k), of ranked ``hits`` [Q, >=k] (CIRCO)."""
    top = hits[:, :k]
    precision = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    return np.asarray((precision * top).sum(axis=1) / np.minimum(relevant, k), dtype=np.float64)


@dataclass(frozen=True)
class RetrievalResults:
    """What every query found; made once, read by metrics, reports and pictures.

    One row a query, in the order of ``benchmark.triplets``.
    """

    benchmark: Benchmark
    ranks: Positions
    """[Q] rank of the annotated target, from 0."""
    found: Positions
    """[Q, 50] positions of the best candidates, best first; -1 where a gallery holds fewer."""
    average_precision_10: NDArray[np.float64]
    r_precision: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.benchmark.triplets)
        for name in ("ranks", "found", "average_precision_10", "r_precision"):
            values = getattr(self, name)
            if len(values) != count:
                raise DataError(f"{name} has {len(values)} rows for {count} queries")
        if count and self.ranks.min() < 0:
            raise DataError("a rank is negative: the target of a query was taken out of its ranking")

    def hits(self) -> NDArray[np.bool_]:
        """[Q, 50]: whether each found candidate is a right answer."""
        return np.stack(
            [
                np.isin(row, triplet.relevant)
                for row, triplet in zip(self.found, self.benchmark.triplets, strict=True)
            ]
        )


def collect(
    benchmark: Benchmark, chunks: Iterable[tuple[str, NDArray[np.int64], Scores]]
) -> RetrievalResults:
    """Rank every query from chunks of scores (category, triplet numbers [q], scores [q, |gallery|]).

    The reference (where the protocol says so) and ``Triplet.ignored`` are taken out. Among equal
    scores the lower position counts as ranked first. Raises :class:`DataError` for scores that are
    not numbers, and where a query was left out or scored twice.
    """
    count = len(benchmark.triplets)
    ranks = np.full(count, -1, dtype=np.int64)
    found = np.full((count, KEPT), -1, dtype=np.int64)
    precision = np.zeros(count)
    r_precision = np.zeros(count)
    seen = np.zeros(count, dtype=np.int64)
    for category, numbers, scores in chunks:
        if np.isnan(scores).any():
            raise DataError(f"a score of the category {category!r} is not a number: the model is damaged")
        seen[numbers] += 1
        gallery = benchmark.galleries[category]
        triplets = [benchmark.triplets[number] for number in numbers]
        masked = np.array(scores, dtype=np.float32)
        for row, triplet in enumerate(triplets):
            out = (*triplet.ignored, triplet.reference) if benchmark.mask_reference else triplet.ignored
            masked[row, _columns(gallery, out)] = -np.inf
        columns = np.searchsorted(gallery, [triplet.target for triplet in triplets])
        own = masked[np.arange(len(triplets)), columns][:, None]
        before = np.arange(gallery.size)[None] < columns[:, None]
        ranks[numbers] = ((masked > own) | ((masked == own) & before)).sum(axis=1)
        order = _best(masked, max(KEPT, max(len(triplet.relevant) for triplet in triplets)))
        hits = np.stack(
            [np.isin(gallery[row], triplet.relevant) for row, triplet in zip(order, triplets, strict=True)]
        )
        relevant = np.array([len(triplet.relevant) for triplet in triplets], dtype=np.int64)
        precision[numbers] = average_precision(hits, relevant, 10)
        first = np.arange(hits.shape[1])[None] < relevant[:, None]
        r_precision[numbers] = (hits & first).sum(axis=1) / relevant
        width = min(KEPT, order.shape[1])
        kept = gallery[order[:, :width]]
        finite = np.take_along_axis(masked, order[:, :width], axis=1) > -np.inf
        found[numbers, :width] = np.where(finite, kept, -1)
    if np.any(seen != 1):
        raise DataError(f"{int((seen != 1).sum())} of {count} queries were not scored exactly once")
    return RetrievalResults(benchmark, ranks, found, precision, r_precision)


def _columns(gallery: Positions, positions: Sequence[int]) -> Positions:
    """Columns of those ``positions`` that the gallery holds."""
    wanted = np.asarray(positions, dtype=np.int64)
    columns = np.searchsorted(gallery, wanted).clip(max=gallery.size - 1)
    return columns[gallery[columns] == wanted]


def _best(scores: Scores, k: int) -> Positions:
    """Columns of the ``k`` best of each row, best first, equal scores by column."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def summarise(results: RetrievalResults) -> dict[str, float]:
    """Metrics in percent: R@1/5/10/50 of the target, mAP@10 and R-precision of all right answers.

    The headline of each is the unweighted mean over categories; ``<category>/R@10`` and so on give
    each category, ``seen/…`` and ``unseen/…`` the two kinds of wording where both occur.
    """
    triplets = results.benchmark.triplets
    categories = np.array([triplet.category for triplet in triplets])
    unseen = np.array([triplet.unseen_wording for triplet in triplets])
    table: dict[str, float] = {}
    everything = np.ones(len(triplets), dtype=bool)
    by_category = {
        name: categories == name for name in results.benchmark.galleries if (categories == name).any()
    }
    table |= _mean_over(results, by_category.values(), everything)
    if len(by_category) > 1:
        for name, rows in by_category.items():
            table |= {f"{name}/{key}": value for key, value in _metrics(results, rows).items()}
    if unseen.any() and not unseen.all():
        for name, chosen in (("seen", ~unseen), ("unseen", unseen)):
            part = _mean_over(results, by_category.values(), chosen)
            table |= {f"{name}/{key}": value for key, value in part.items()}
    return table


def _mean_over(
    results: RetrievalResults, groups: Iterable[NDArray[np.bool_]], chosen: NDArray[np.bool_]
) -> dict[str, float]:
    parts = [_metrics(results, rows & chosen) for rows in groups if (rows & chosen).any()]
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}


def _metrics(results: RetrievalResults, rows: NDArray[np.bool_]) -> dict[str, float]:
    ranks = results.ranks[rows]
    metrics: Mapping[str, float] = {f"R@{k}": 100 * float((ranks < k).mean()) for k in RECALLS}
    return {
        **metrics,
        "mAP@10": 100 * float(results.average_precision_10[rows].mean()),
        "R-precision": 100 * float(results.r_precision[rows].mean()),
    }
