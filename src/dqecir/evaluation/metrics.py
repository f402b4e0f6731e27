"""Ranks and metrics: integer ranks per query, and everything that follows from them.

Sources: FashionIQ and CIRR recall (arXiv 1905.12794, 2108.04024), CIRCO's average precision (2303.15247).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dqecir.data.triplets import Benchmark, DataError, Positions, Triplet
from dqecir.scoring import best_columns

Scores = NDArray[np.float32]
RECALLS = (1, 5, 10, 50)
SUBSET_RECALLS = (1, 2, 3)
KEPT = 50
"""How many of each query's best candidates are remembered."""


def average_precision(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """AP@k = Σ_{i≤k} P(i)·rel(i) / min(|relevant|, k), each [Q], a fraction (CIRCO).

    ``hits`` [Q, K] says which of the ranked candidates are right; where K < k, the rest are misses.
    ``relevant`` [Q] counts all right answers of a query.
    """
    top = hits[:, :k]
    precision = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    return np.asarray((precision * top).sum(axis=1) / np.minimum(relevant, k), dtype=np.float64)


@dataclass(frozen=True)
class RetrievalResults:
    """What every query found; made once, read by metrics, reports and pictures.

    One row a query, in the order of ``benchmark.triplets``; the arrays are made read-only. Raises
    :class:`DataError` where they do not fit the benchmark.
    """

    benchmark: Benchmark
    ranks: Positions
    """[Q] rank of the annotated target, from 0."""
    found: Positions
    """[Q, 50] positions of the best candidates, best first; -1 where a gallery holds fewer."""
    average_precision_10: NDArray[np.float64]
    """[Q] AP@10 over all right answers, a fraction."""
    r_precision: NDArray[np.float64]
    """[Q] share of right answers among as many best candidates as there are right answers."""
    subset_ranks: Positions
    """[Q] rank of the target within ``Triplet.subset``, from 0; -1 where a query has no subset."""

    def __post_init__(self) -> None:
        count = len(self.benchmark.triplets)
        if not count:
            raise DataError(f"{self.benchmark.name} asks no questions: there is nothing to measure")
        for name in ("ranks", "found", "average_precision_10", "r_precision", "subset_ranks"):
            values = getattr(self, name)
            shape = (count, KEPT) if name == "found" else (count,)
            if values.shape != shape:
                raise DataError(f"{name} has shape {list(values.shape)} where {list(shape)} is needed")
            values.setflags(write=False)
        if self.ranks.min() < 0:
            raise DataError("a rank is negative: the target of a query was taken out of its ranking")
        if self.found.min() < -1 or self.found.max() >= len(self.benchmark.image_ids):
            raise DataError("a candidate that was found is no image of the benchmark")
        for fractions in (self.average_precision_10, self.r_precision):
            if not np.all((fractions >= 0) & (fractions <= 1)):
                raise DataError("a precision is not between 0 and 1")

    def hits(self) -> NDArray[np.bool_]:
        """[Q, 50]: whether each found candidate is a right answer."""
        return _right(self.found, self.benchmark.triplets)


def collect(
    benchmark: Benchmark, chunks: Iterable[tuple[str, NDArray[np.int64], Scores]]
) -> RetrievalResults:
    """Rank every query from chunks of scores (category, triplet numbers [q], scores [q, |gallery|]).

    The reference (where the protocol says so) and ``Triplet.ignored`` are taken out. Among equal
    scores the lower position counts as ranked first. Raises :class:`DataError` for scores that are
    not finite numbers or not of the gallery, for a right answer that is not in the ranking, and
    where a query was left out or scored twice.
    """
    count = len(benchmark.triplets)
    ranks = np.full(count, -1, dtype=np.int64)
    found = np.full((count, KEPT), -1, dtype=np.int64)
    precision = np.zeros(count)
    r_precision = np.zeros(count)
    subset_ranks = np.full(count, -1, dtype=np.int64)
    seen = np.zeros(count, dtype=np.int64)
    for category, numbers, scores in chunks:
        if not len(numbers):
            continue
        gallery = benchmark.galleries[category]
        triplets = [benchmark.triplets[number] for number in numbers]
        _check(category, gallery, triplets, scores)
        seen[numbers] += 1
        masked = _masked(scores, gallery, triplets, benchmark.mask_reference)
        ranks[numbers] = rank_columns(masked, np.searchsorted(gallery, [t.target for t in triplets]))
        relevant = np.array([len(triplet.relevant) for triplet in triplets], dtype=np.int64)
        values, columns = best_columns(torch.from_numpy(masked), max(KEPT, int(relevant.max())))
        order = np.where(values.numpy() > -np.inf, gallery[columns.numpy()], -1)
        hits = _right(order, triplets)
        precision[numbers] = average_precision(hits, relevant, 10)
        first = np.arange(hits.shape[1])[None] < relevant[:, None]
        r_precision[numbers] = (hits & first).sum(axis=1) / relevant
        subset_ranks[numbers] = [
            _subset_rank(row, gallery, triplet) for row, triplet in zip(masked, triplets, strict=True)
        ]
        found[numbers, : min(KEPT, order.shape[1])] = order[:, :KEPT]
    if np.any(seen != 1):
        raise DataError(f"{int((seen != 1).sum())} of {count} queries were not scored exactly once")
    return RetrievalResults(benchmark, ranks, found, precision, r_precision, subset_ranks)


def rank_columns(scores: Scores, columns: Positions) -> Positions:
    """Rank from 0 of one column of each row of ``scores`` [Q, N]; equal scores rank by column."""
    rows, own = torch.from_numpy(scores), torch.from_numpy(columns)[:, None]
    values = rows.gather(1, own)
    ranks = (rows > values).sum(dim=1)
    # Ties are rare, and counting what stands before them costs as much as all else together.
    for row in ((rows == values).sum(dim=1) > 1).nonzero()[:, 0].tolist():
        ranks[row] += int((rows[row, : columns[row]] == values[row]).sum())
    return ranks.numpy()


def _subset_rank(scores: Scores, gallery: Positions, triplet: Triplet) -> int:
    """Rank of the target among its subset by the same scores [N] and ties; -1 without a subset."""
    if not triplet.subset:
        return -1
    columns = _columns(gallery, triplet.subset)
    if columns.size != len(triplet.subset):
        raise DataError(f"the subset {triplet.subset} of a query is not in the gallery {triplet.category!r}")
    place = np.searchsorted(gallery[columns], [triplet.target])
    return int(rank_columns(scores[None, columns], place)[0])


def _check(category: str, gallery: Positions, triplets: Sequence[Triplet], scores: Scores) -> None:
    if scores.shape != (len(triplets), gallery.size):
        raise DataError(
            f"scores of the category {category!r} have shape {list(scores.shape)} where "
            f"{[len(triplets), gallery.size]} is needed"
        )
    if not bool(torch.from_numpy(scores).isfinite().all()):
        raise DataError(f"a score of the category {category!r} is not a number: the model is damaged")
    for triplet in triplets:
        if triplet.category != category:
            raise DataError(f"a query of the category {triplet.category!r} was scored in {category!r}")


def _masked(scores: Scores, gallery: Positions, triplets: Sequence[Triplet], mask_reference: bool) -> Scores:
    """``scores`` in which what is left out of a ranking is -inf; a copy where there is something."""
    out = [(*t.ignored, t.reference) if mask_reference else t.ignored for t in triplets]
    masked = np.array(scores, dtype=np.float32) if any(out) else np.ascontiguousarray(scores, np.float32)
    for row, (triplet, left_out) in enumerate(zip(triplets, out, strict=True)):
        if left_out:
            masked[row, _columns(gallery, left_out)] = -np.inf
        right = _columns(gallery, triplet.relevant)
        if right.size != len(triplet.relevant) or np.isneginf(masked[row, right]).any():
            raise DataError(
                f"a right answer to the reference {triplet.reference} (category {triplet.category!r}) is "
                "not in its gallery, or is left out of its own ranking"
            )
    return masked


def _columns(gallery: Positions, positions: Sequence[int]) -> Positions:
    """Columns of those ``positions`` that the gallery holds."""
    wanted = np.asarray(positions, dtype=np.int64)
    columns = np.searchsorted(gallery, wanted).clip(max=gallery.size - 1)
    return columns[gallery[columns] == wanted]


def _right(found: Positions, triplets: Sequence[Triplet]) -> NDArray[np.bool_]:
    """Which ``found`` positions [Q, K] answer their query."""
    return np.stack([np.isin(row, triplet.relevant) for row, triplet in zip(found, triplets, strict=True)])


def summarise(results: RetrievalResults) -> dict[str, float]:
    """Metrics in percent: R@1/5/10/50 of the target, mAP@10 and R-precision of all right answers.

    Where every query has a subset, R_sub@1/2/3 of the target within it (CIRR).

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


def recall(results: RetrievalResults, k: int) -> NDArray[np.float64]:
    """[Q] whether the annotated target is among the first ``k``, as 0 or 1."""
    return (results.ranks < k).astype(np.float64)


def subset_recall(results: RetrievalResults, k: int) -> NDArray[np.float64]:
    """[Q] whether the target is among the first ``k`` of its subset, as 0 or 1 (CIRR).

    Raises :class:`DataError` where a query has no subset.
    """
    if results.subset_ranks.min() < 0:
        raise DataError(
            f"{results.benchmark.name} has queries without a subset: R_sub needs CIRR's image sets"
        )
    return (results.subset_ranks < k).astype(np.float64)


def precision_at(results: RetrievalResults, k: int) -> NDArray[np.float64]:
    """[Q] AP@k over all right answers, a fraction; k is 50 at most (CIRCO)."""
    if not 1 <= k <= KEPT:
        raise DataError(f"AP@{k} cannot be had: the best {KEPT} candidates of a query are kept")
    relevant = np.array([len(triplet.relevant) for triplet in results.benchmark.triplets], dtype=np.int64)
    return average_precision(results.hits(), relevant, k)


def three_means(values: Sequence[float]) -> dict[str, float]:
    """Arithmetic, harmonic and geometric mean, as CLIP4Cir and SPRC log them of CIRR's seven numbers.

    The last two are 0 where a value is.
    """
    numbers = np.asarray(values, dtype=np.float64)
    positive = bool((numbers > 0).all())
    return {
        "arithmetic mean": float(numbers.mean()),
        "harmonic mean": float(len(numbers) / (1 / numbers).sum()) if positive else 0.0,
        "geometric mean": float(np.exp(np.log(numbers).mean())) if positive else 0.0,
    }


def _mean_over(
    results: RetrievalResults, groups: Iterable[NDArray[np.bool_]], chosen: NDArray[np.bool_]
) -> dict[str, float]:
    parts = [_metrics(results, rows & chosen) for rows in groups if (rows & chosen).any()]
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}


def _metrics(results: RetrievalResults, rows: NDArray[np.bool_]) -> dict[str, float]:
    ranks = results.ranks[rows]
    metrics: Mapping[str, float] = {f"R@{k}": 100 * float((ranks < k).mean()) for k in RECALLS}
    subset_ranks = results.subset_ranks[rows]
    if (subset_ranks >= 0).all():
        metrics = {
            **metrics,
            **{f"R_sub@{k}": 100 * float((subset_ranks < k).mean()) for k in SUBSET_RECALLS},
        }
    return {
        **metrics,
        "mAP@10": 100 * float(results.average_precision_10[rows].mean()),
        "R-precision": 100 * float(results.r_precision[rows].mean()),
    }
