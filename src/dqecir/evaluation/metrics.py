"""Compute the ranks of targets and right answers, and metrics from them. The best rank is 0.

Sources: FashionIQ and CIRR recall (arXiv 1905.12794, 2108.04024), CIRCO's average precision (2303.15247),
nDCG with a gain of 1 for each right answer (as in trec_eval and MTEB), hard negatives (PinPoint, 2603.04598).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from dqecir.data.triplets import Benchmark, Positions, Triplet
from dqecir.errors import DataError
from dqecir.methods.scoring import best_columns
from dqecir.questions.answers import CodedAttributes, wrong_as_asked

Scores = NDArray[np.float32]
RECALLS = (1, 5, 10, 50)
SUBSET_RECALLS = (1, 2, 3)
KEPT = 50
"""Default number of best candidates that are kept for each query."""
FIRST = 10
"""Number of first results in mAP@10, nDCG@10 and hard negatives: those that a user sees first."""
_FRACTIONS = ("average_precision_10", "ndcg_10", "r_precision")
CACHED = 1 << 18
"""Number of scores that are ranked at a time; blocks that fit the cache of a core are twice as fast."""


def average_precision(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return AP@k = Σ_{i≤k} P(i)·rel(i) / min(|relevant|, k) of each query [Q], from 0 to 1 (CIRCO).

    ``hits`` [Q, K] bool: whether each of the first K candidates is right; if K < k, the rest count as wrong.
    ``relevant`` [Q]: number of all right answers.
    """
    top = hits[:, :k]
    precision = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    return np.asarray((precision * top).sum(axis=1) / np.minimum(relevant, k), dtype=np.float64)


def whole_average_precision(ranks: Sequence[int] | Positions) -> float:
    """Return the average precision over a whole ranking: the mean of i / (rank + 1) over all right answers.

    i counts the right answers from the top, from 1. ``ranks`` are those of all right answers of one query,
    from 0, in any order.
    """
    places = np.sort(np.asarray(ranks, dtype=np.int64)) + 1
    return float((np.arange(1, len(places) + 1) / places).mean())


def trapezoid_precision(ranks: Sequence[int] | Positions) -> float:
    """Return the average precision by the trapezoid rule, as in the code of i-CIR.

    For the i-th right answer from the top, it takes the mean of two precisions: at its place, and at the
    place before, (i - 1) / rank (1 if the rank is 0). ``ranks`` as in :func:`whole_average_precision`. The
    divisor has 1e-5 added, as published.
    """
    places = np.sort(np.asarray(ranks, dtype=np.int64))
    numbers = np.arange(len(places))
    before = np.where(places == 0, 1.0, numbers / np.maximum(places, 1))
    at = (numbers + 1) / (places + 1)
    return float((before + at).sum() / 2 / (len(places) + 1e-5))


def ndcg(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return nDCG@k of each query [Q]: Σ_{i≤k} rel(i) / log₂(i + 1), divided by that of a perfect ranking.

    ``hits`` and ``relevant`` as in :func:`average_precision`.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    top = hits[:, :k]
    gains = (top * discounts[: top.shape[1]]).sum(axis=1)
    return np.asarray(gains / np.cumsum(discounts)[np.minimum(relevant, k) - 1], dtype=np.float64)


@dataclass(frozen=True)
class RetrievalResults:
    """The results of every query, from which metrics, reports and pictures are made.

    A row is a query, in the order of ``benchmark.triplets``. The arrays become read-only. Raises
    :class:`DataError` if they do not fit the benchmark.
    """

    benchmark: Benchmark
    ranks: Positions
    """[Q]: rank of the annotated target, from 0."""
    found: Positions
    """[Q, kept]: positions of the best candidates, the best first; -1 if the gallery has fewer."""
    average_precision_10: NDArray[np.float64]
    """[Q]: AP@10 over all right answers, from 0 to 1."""
    ndcg_10: NDArray[np.float64]
    """[Q]: nDCG@10 over all right answers, from 0 to 1."""
    r_precision: NDArray[np.float64]
    """[Q]: share of right answers among the first R candidates, where R is the number of right answers."""
    subset_ranks: Positions
    """[Q]: rank of the target within ``Triplet.subset``, from 0; -1 for a query without a subset."""
    right_ranks: tuple[Positions, ...]
    """For each query the ranks of all right answers, from 0, in any order."""

    def __post_init__(self) -> None:
        count = len(self.benchmark.triplets)
        if not count:
            raise DataError(f"{self.benchmark.name} asks no questions: choose another split")
        for name in ("ranks", "found", "subset_ranks", *_FRACTIONS):
            values = getattr(self, name)
            shape = (count, self.kept) if name == "found" else (count,)
            if values.shape != shape:
                raise DataError(
                    f"{name} has shape {list(values.shape)} where {list(shape)} is needed: make one row for "
                    "each query"
                )
            values.setflags(write=False)
        if self.ranks.min() < 0:
            raise DataError(
                "a rank is negative, because the target of a query was excluded from its ranking: rank every "
                "target"
            )
        if self.kept and (self.found.min() < -1 or self.found.max() >= len(self.benchmark.image_ids)):
            raise DataError("a result is not an image of the benchmark: rank only the benchmark's images")
        for name in _FRACTIONS:
            fractions = getattr(self, name)
            if not np.all((fractions >= 0) & (fractions <= 1 + 1e-9)):
                raise DataError(f"{name} is not between 0 and 1")

    @cached_property
    def average_precision(self) -> NDArray[np.float64]:
        """[Q]: average precision of all right answers over the whole ranking, from 0 to 1."""
        return np.array([whole_average_precision(ranks) for ranks in self.right_ranks])

    @property
    def kept(self) -> int:
        """Number of best candidates that are kept for each query."""
        return self.found.shape[1]

    def hits(self) -> NDArray[np.bool_]:
        """Return a mask [Q, kept]: whether each kept candidate is a right answer."""
        images = len(self.benchmark.image_ids)
        rows, right = _flat([triplet.relevant for triplet in self.benchmark.triplets])
        starts = images * np.arange(len(self.found))
        return np.isin(self.found + starts[:, None], right + starts[rows]) & (self.found >= 0)


def collect(
    benchmark: Benchmark, chunks: Iterable[tuple[str, NDArray[np.int64], Scores]], kept: int = KEPT
) -> RetrievalResults:
    """Rank every query of ``benchmark`` from ``chunks``, which are as :func:`query_scores` yields them.

    ``Triplet.ignored`` is left out, and with ``benchmark.mask_reference`` the reference. In a benchmark with
    products, each product is ranked once, by its best view, and the reference stands for its product. Equal
    scores are ranked by position, the lower first. ``kept`` is the number of best candidates to keep; 0 is
    fastest, because then queries with one right answer need not be sorted. Raises :class:`DataError` for
    scores that are not finite or do not fit the gallery, for a right answer that is not ranked, and if a
    query is not scored exactly once.
    """
    count = len(benchmark.triplets)
    ranks = np.full(count, -1, dtype=np.int64)
    found = np.full((count, kept), -1, dtype=np.int64)
    fractions = {name: np.zeros(count) for name in _FRACTIONS}
    subset_ranks = np.full(count, -1, dtype=np.int64)
    right_ranks = [np.empty(0, dtype=np.int64)] * count
    seen = np.zeros(count, dtype=np.int64)
    for category, numbers, scores in chunks:
        if not len(numbers):
            continue
        gallery = benchmark.galleries[category]
        triplets = [benchmark.triplets[number] for number in numbers]
        _check(category, gallery, triplets, scores)
        if benchmark.products:
            scores, triplets = _by_best_views(benchmark, gallery, triplets, scores)
        seen[numbers] += 1
        masked, right = _masked(scores, gallery, triplets, benchmark.mask_reference)
        targets = np.searchsorted(gallery, [triplet.target for triplet in triplets])
        own = rank_columns(masked, targets)
        relevant = np.bincount(right[0], minlength=len(triplets))
        hits, best = _ranked(masked, right, relevant, own, kept)
        ranks[numbers] = own
        found[numbers, : best.shape[1]] = np.where(best < 0, -1, gallery[best])
        first = np.arange(hits.shape[1])[None] < relevant[:, None]
        fractions["average_precision_10"][numbers] = average_precision(hits, relevant, FIRST)
        fractions["ndcg_10"][numbers] = ndcg(hits, relevant, FIRST)
        fractions["r_precision"][numbers] = (hits & first).sum(axis=1) / relevant
        for number, places in zip(numbers, _right_ranks(masked, right, relevant, own), strict=True):
            right_ranks[number] = places
        subset_ranks[numbers] = _subset_ranks(masked, gallery, triplets, targets)
    if np.any(seen != 1):
        raise DataError(
            f"{int((seen != 1).sum())} of {count} queries were not scored exactly once: score each once"
        )
    return RetrievalResults(
        benchmark, ranks, found, **fractions, subset_ranks=subset_ranks, right_ranks=tuple(right_ranks)
    )


def _by_best_views(
    benchmark: Benchmark, gallery: Positions, triplets: Sequence[Triplet], scores: Scores
) -> tuple[Scores, list[Triplet]]:
    """Return scores in which only each product's best view is not -inf, and triplets with these views.

    In these triplets, an image stands for its product's best view for that query. ``gallery`` are the
    positions of the candidates.
    """
    names, numbers = np.unique(np.array(benchmark.products)[gallery], return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(len(names)))
    ordered = np.ascontiguousarray(scores, np.float32)[:, order]
    highest = np.maximum.reduceat(ordered, starts, axis=1)
    is_best = ordered == highest[:, numbers[order]]
    # If several views have the same score, the first is the best.
    counted = is_best.cumsum(axis=1, dtype=np.int32)
    before = np.concatenate([np.zeros((len(scores), 1), np.int32), counted], axis=1)[:, starts]
    is_best &= counted - before[:, numbers[order]] == 1
    best = order[np.nonzero(is_best)[1].reshape(len(scores), len(names))]
    kept = np.full(scores.shape, -np.inf, dtype=np.float32)
    np.put_along_axis(kept, best, highest, axis=1)
    number_of = np.full(len(benchmark.image_ids), -1, dtype=np.int64)
    number_of[gallery] = numbers
    product_of = {product: number for number, product in enumerate(names.tolist())}
    mapped = []
    for triplet, views in zip(triplets, gallery[best], strict=True):
        own = product_of.get(benchmark.products[triplet.reference], -1) if benchmark.mask_reference else -1
        right = {number_of[image] for image in triplet.relevant} - {own}
        ignored = {number_of[image] for image in triplet.ignored if number_of[image] >= 0} - right
        near = {number_of[image] for image in triplet.subset} - {own}
        mapped.append(
            replace(
                triplet,
                target=int(views[number_of[triplet.target]]),
                relevant=tuple(sorted(views[list(right)].tolist())),
                ignored=tuple(views[list(ignored | ({own} - {-1}))].tolist()),
                subset=tuple(sorted(views[list(near)].tolist())),
            )
        )
    return kept, mapped


def rank_columns(scores: Scores, columns: Positions) -> Positions:
    """Return the rank, from 0, of one column in each row of ``scores`` [Q, N]; ``columns`` [Q].

    Equal scores are ranked by column, the lower first.
    """
    ranks = np.empty(len(scores), dtype=np.int64)
    rows = max(1, CACHED // max(1, scores.shape[1]))
    # Compare each score twice while it is in the cache.
    for start in range(0, len(scores), rows):
        some = slice(start, start + rows)
        ranks[some] = _counted_above(scores[some], columns[some])
    return ranks


def _counted_above(scores: Scores, columns: Positions) -> Positions:
    own = np.take_along_axis(scores, columns[:, None], axis=1)
    # Count bits of packed bytes, which is twice as fast as summing booleans.
    ranks = np.bitwise_count(np.packbits(scores > own, axis=1)).sum(axis=1, dtype=np.int64)
    same = scores == own
    # Ties are rare; only then their places matter.
    if np.count_nonzero(same) > len(scores):
        ranks += np.count_nonzero(same & (np.arange(scores.shape[1]) < columns[:, None]), axis=1)
    return ranks


Cells = tuple[Positions, Positions]
"""Rows and columns of some cells of a matrix, as two arrays."""


def _ranked(
    scores: Scores, right: Cells, relevant: Positions, ranks: Positions, kept: int
) -> tuple[NDArray[np.bool_], Positions]:
    """Return for q queries which of the first K candidates are right [q, K], and the ``kept`` best columns.

    K is the largest of 10, ``kept`` and the queries' numbers of right answers, but at most the size of the
    gallery. A column is -1 if only excluded candidates would follow. A query with one right answer needs only
    that answer's rank; rankings are sorted for other queries, or if candidates are kept.
    """
    rows, columns = right
    depth = min(max(kept, 10, int(relevant.max())), scores.shape[1])
    hits = np.zeros((len(scores), depth), dtype=bool)
    near = np.flatnonzero(ranks < depth)
    hits[near, ranks[near]] = True
    best = np.full((len(scores), min(kept, depth)), -1)
    several = np.arange(len(scores)) if kept else np.flatnonzero(relevant > 1)
    if several.size:
        some = scores if kept else scores[several]
        values, order = (found.numpy() for found in best_columns(torch.from_numpy(some), depth))
        wanted = np.zeros(scores.shape, dtype=bool)
        wanted[rows, columns] = True
        hits[several] = wanted[several[:, None], order]
        best[several] = np.where(values > -np.inf, order, -1)[:, :kept]
    return hits, best


def _right_ranks(scores: Scores, right: Cells, relevant: Positions, ranks: Positions) -> Iterator[Positions]:
    """Yield for each query the ranks of all its right answers.

    ``right`` are the cells of all right answers, ``relevant`` [q] their numbers. ``ranks`` [q] are those of
    the targets, which are the only right answers of most queries.
    """
    ends = np.cumsum(relevant)
    for row, count in enumerate(relevant):
        if count == 1:
            yield ranks[row : row + 1]
        else:
            yield _ranks_in_row(scores[row], right[1][ends[row] - count : ends[row]])


def _ranks_in_row(scores: Scores, columns: Positions) -> Positions:
    """Return the ranks, from 0, of some columns of one row of scores [N].

    Equal scores are ranked by column.
    """
    ordered = np.sort(scores)  # Several times as fast as a stable sort of the columns.
    ends = np.searchsorted(ordered, scores[columns], side="right")
    if (ends - np.searchsorted(ordered, scores[columns])).max() == 1:
        return np.asarray(len(scores) - ends, dtype=np.int64)
    places = np.empty(len(scores), dtype=np.int64)
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places[columns]


def _subset_ranks(
    scores: Scores, gallery: Positions, triplets: Sequence[Triplet], targets: Positions
) -> Positions:
    """Return the rank of each target within its subset [q], by the same scores; -1 without a subset.

    ``targets`` [q] are columns of ``scores``. Raises :class:`DataError` if a subset is not in the gallery.
    """
    sizes = np.array([len(triplet.subset) for triplet in triplets])
    rows, columns = _cells(gallery, [triplet.subset for triplet in triplets])
    short = np.flatnonzero(np.bincount(rows, minlength=len(triplets)) < sizes)
    if short.size:
        triplet = triplets[short[0]]
        raise DataError(
            f"the subset {triplet.subset} of a query is not in the gallery {triplet.category!r}: add its "
            "images"
        )
    values, own = scores[rows, columns], scores[rows, targets[rows]]
    before = (values > own) | ((values == own) & (columns < targets[rows]))
    return np.where(sizes > 0, np.bincount(rows[before], minlength=len(triplets)), -1)


def _check(category: str, gallery: Positions, triplets: Sequence[Triplet], scores: Scores) -> None:
    if scores.shape != (len(triplets), gallery.size):
        raise DataError(
            f"scores of the category {category!r} have shape {list(scores.shape)} where "
            f"{[len(triplets), gallery.size]} is needed: score every query against the whole gallery"
        )
    # The minimum and the maximum are NaN if any score is, so one pass finds it.
    least, highest = torch.aminmax(torch.from_numpy(np.ascontiguousarray(scores)))
    if not (torch.isfinite(least) and torch.isfinite(highest)):
        raise DataError(f"a score of the category {category!r} is not a number: the model is damaged")
    for triplet in triplets:
        if triplet.category != category:
            raise DataError(
                f"a query of the category {triplet.category!r} was scored in {category!r}: score it in its "
                "own category"
            )


def _masked(
    scores: Scores, gallery: Positions, triplets: Sequence[Triplet], mask_reference: bool
) -> tuple[Scores, Cells]:
    """Return scores in which excluded candidates are -inf, and the cells of all right answers.

    Excluded are ``Triplet.ignored``, and with ``mask_reference`` the reference. The scores are copied if
    something is excluded. Raises :class:`DataError` if a right answer is excluded, or not in the gallery.
    """
    masked = np.ascontiguousarray(scores, np.float32)
    out = _cells(gallery, [(*t.ignored, t.reference) if mask_reference else t.ignored for t in triplets])
    if out[0].size:
        masked = masked.copy()
        masked[out] = -np.inf
    right = _cells(gallery, [triplet.relevant for triplet in triplets])
    ranked = np.bincount(right[0][masked[right] > -np.inf], minlength=len(triplets))
    wrong = np.flatnonzero(ranked < [len(triplet.relevant) for triplet in triplets])
    if wrong.size:
        triplet = triplets[wrong[0]]
        raise DataError(
            f"a right answer to the reference {triplet.reference} (category {triplet.category!r}) is not "
            "in its gallery, or was excluded from the ranking: add it, or take it out of the right answers"
        )
    return masked, right


def _flat(lists: Sequence[Sequence[int]]) -> tuple[Positions, Positions]:
    """Flatten ``lists``: return for every number in them the number of its list, and the number itself."""
    sizes = [len(row) for row in lists]
    numbers = np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=sum(sizes))
    return np.repeat(np.arange(len(lists)), sizes), numbers


def _cells(gallery: Positions, lists: Sequence[Sequence[int]]) -> Cells:
    """Return the cells (row, column in the gallery) of all positions in ``lists`` that are in the gallery."""
    rows, wanted = _flat(lists)
    columns = np.searchsorted(gallery, wanted).clip(max=gallery.size - 1)
    there = gallery[columns] == wanted
    return rows[there], columns[there]


def summarise(results: RetrievalResults) -> dict[str, float]:
    """Return metrics in percent: R@1, R@5, R@10 and R@50 of the target, and metrics over all right answers.

    The latter are mAP@10, mAP, nDCG@10 and R-precision. If every query has a subset, R_sub@1, R_sub@2 and
    R_sub@3 of the target within it are added (CIRR); if true attributes and requested values are known and
    ten candidates are kept, hard negatives@10 (:func:`hard_negatives`).

    Each metric is the unweighted mean over categories; ``<category>/R@10`` and so on are those of single
    categories, ``seen/…`` and ``unseen/…`` those of the two kinds of wording, if both occur.
    """
    values = {f"R@{k}": recall(results, k) for k in RECALLS}
    if results.subset_ranks.min() >= 0:
        values |= {f"R_sub@{k}": subset_recall(results, k) for k in SUBSET_RECALLS}
    values |= {
        "mAP@10": results.average_precision_10,
        "mAP": results.average_precision,
        "nDCG@10": results.ndcg_10,
        "R-precision": results.r_precision,
    }
    triplets = results.benchmark.triplets
    if results.kept >= FIRST and results.benchmark.attributes and all(one.asked for one in triplets):
        values[f"hard negatives@{FIRST}"] = hard_negatives(results, FIRST)
    categories = np.array([triplet.category for triplet in triplets])
    groups = {name: rows for name in results.benchmark.galleries if (rows := categories == name).any()}
    unseen = np.array([triplet.unseen_wording for triplet in triplets])
    parts = {"seen": ~unseen, "unseen": unseen} if unseen.any() and not unseen.all() else {}

    def means(rows: NDArray[np.bool_]) -> dict[str, float]:
        return {key: 100 * float(each[rows].mean()) for key, each in values.items()}

    def over_categories(chosen: NDArray[np.bool_]) -> dict[str, float]:
        each = [means(rows & chosen) for rows in groups.values() if (rows & chosen).any()]
        return {key: float(np.mean([mean[key] for mean in each])) for key in values}

    named = {name: means(rows) for name, rows in groups.items()} if len(groups) > 1 else {}
    named |= {name: over_categories(rows) for name, rows in parts.items()}
    whole = over_categories(np.ones(len(triplets), dtype=bool))
    return whole | {f"{name}/{key}": value for name, part in named.items() for key, value in part.items()}


def recall(results: RetrievalResults, k: int) -> NDArray[np.float64]:
    """Return for each query [Q] 1 if the annotated target is among the first ``k``, else 0."""
    return (results.ranks < k).astype(np.float64)


def any_recall(results: RetrievalResults, k: int) -> NDArray[np.float64]:
    """Return for each query [Q] 1 if any right answer is among the first ``k``, else 0."""
    return np.array([float(ranks.min() < k) for ranks in results.right_ranks])


def subset_recall(results: RetrievalResults, k: int) -> NDArray[np.float64]:
    """Return for each query [Q] 1 if the target is among the first ``k`` of its subset, else 0 (CIRR).

    Raises :class:`DataError` if a query has no subset.
    """
    if results.subset_ranks.min() < 0:
        raise DataError(
            f"{results.benchmark.name} has queries without a subset, within which R_sub ranks: choose "
            "another metric, or a data set with subsets, such as cirr"
        )
    return (results.subset_ranks < k).astype(np.float64)


def precision_at(results: RetrievalResults, k: int) -> NDArray[np.float64]:
    """Return AP@k over all right answers of each query [Q], from 0 to 1 (CIRCO).

    Raises :class:`DataError` if ``k`` is above ``results.kept``.
    """
    if not 1 <= k <= results.kept:
        raise DataError(
            f"AP@{k} cannot be computed, because only the best {results.kept} candidates are kept: keep more"
        )
    relevant = np.array([len(triplet.relevant) for triplet in results.benchmark.triplets], dtype=np.int64)
    return average_precision(results.hits(), relevant, k)


def hard_negatives(results: RetrievalResults, k: int) -> NDArray[np.float64]:
    """Return for each query [Q] the share of hard negatives among its first ``k`` candidates.

    A hard negative lacks a requested value, but equals the reference in everything that the text does not
    mention. True attributes and ``Triplet.asked`` must be known; ``k`` is at most ``results.kept``.
    """
    triplets = results.benchmark.triplets
    found = results.found[:, :k]
    references = np.array([triplet.reference for triplet in triplets], dtype=np.int64)
    coded = CodedAttributes.of(results.benchmark.attributes)
    wrong = wrong_as_asked(coded, found, references, [triplet.asked for triplet in triplets])
    there = found >= 0
    return np.asarray((wrong & there).sum(axis=1) / np.maximum(1, there.sum(axis=1)), dtype=np.float64)


def three_means(values: Sequence[float]) -> dict[str, float]:
    """Return the arithmetic, harmonic and geometric mean; CLIP4Cir and SPRC report those of CIRR's metrics.

    The last two are 0 if any value is 0.
    """
    numbers = np.asarray(values, dtype=np.float64)
    positive = bool((numbers > 0).all())
    return {
        "arithmetic mean": float(numbers.mean()),
        "harmonic mean": float(len(numbers) / (1 / numbers).sum()) if positive else 0.0,
        "geometric mean": float(np.exp(np.log(numbers).mean())) if positive else 0.0,
    }
