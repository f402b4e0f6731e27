"""Compare the time of FashionIQ's evaluation, from embeddings, with the published metrics by matrices of
names.

    python -m benchmarks.speed.evaluation --out WORK/evaluation.json

Sizes of FashionIQ's val split (original galleries), 32 target tokens of 256 numbers. What the published
codes do for each category, measured step by step:

1. scores of all queries against all candidates: QuRe by one product whose every token is held before the
   maximum is taken; SPRC by a product that is broadcast, which copies the gallery once a query;
2. 1 - scores, and a full sort of every row;
3. the names of all candidates in that order, a matrix of strings [Q, N];
4. the target's name repeated N times for every query, and a comparison string by string;
5. the first 10 and 50 columns of the comparison added up.

dqecir multiplies 256 queries at a time and counts the scores above the target's while they are in a cache.
SPRC's product is timed on a few queries, and the rest is extrapolated.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from benchmarks.speed.timing import machine, paired
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.triplets import Benchmark, Triplet
from dqecir.evaluation.evaluate import in_chunks
from dqecir.evaluation.metrics import KEPT, collect, summarise
from dqecir.io.files import write_json
from dqecir.methods.scoring import score

QUERIES = {"dress": 2017, "shirt": 2038, "toptee": 1961}
GALLERIES = {"dress": 3817, "shirt": 6346, "toptee": 5373}
TOKENS, WIDTH = 32, 256
Embeddings = dict[str, tuple[Tensor, Tensor]]
Product = Callable[[Tensor, Tensor], Tensor]


def sized(share: float, generator: np.random.Generator) -> Benchmark:
    """Return a benchmark of ``share`` of FashionIQ's sizes with randomly drawn answers."""
    galleries, triplets, start = {}, [], 0
    for category, whole in GALLERIES.items():
        size = round(share * whole)
        galleries[category] = np.arange(start, start + size, dtype=np.int64)
        for _ in range(round(share * QUERIES[category])):
            reference, target = (start + generator.choice(size, 2, replace=False)).tolist()
            triplets.append(Triplet(reference, target, ("a", "b"), category, (target,)))
        start += size
    names = tuple(f"B{number:09d}" for number in range(start))
    return Benchmark("sized", "val", names, tuple(map(Path, names)), galleries, tuple(triplets), False)


def one_product(queries: Tensor, targets: Tensor) -> Tensor:
    """Return scores as QuRe does: the score of every token of every pair, then the maximum."""
    return torch.einsum("qd,nkd->qnk", queries[:, 0], targets).amax(dim=2)


def broadcast(queries: Tensor, targets: Tensor) -> Tensor:
    """Return scores as SPRC does: a vector of each query and a matrix of each candidate, broadcast over
    both.
    """
    return torch.matmul(queries[:, None], targets.transpose(1, 2)).squeeze(2).amax(dim=2)


class Published:
    """The published metrics, and the time of each step, category by category."""

    def __init__(self, benchmark: Benchmark, numbers: dict[str, NDArray[np.int64]]) -> None:
        self.benchmark, self.numbers = benchmark, numbers
        self.names = np.array(benchmark.image_ids)
        self.taken: dict[str, dict[str, list[float]]] = {category: {} for category in numbers}

    def __call__(self, scores: dict[str, Tensor]) -> dict[str, float]:
        """Return R@10 and R@50, the mean over categories."""
        recalls: dict[str, list[float]] = {"R@10": [], "R@50": []}
        for category, found in scores.items():
            clock = Clock(self.taken[category])
            distances = 1 - found
            clock.took("1 - scores")
            order = torch.argsort(distances, dim=-1)
            clock.took("sort")
            names = self.names[self.benchmark.galleries[category]]
            ranked = names[order.numpy()]
            clock.took("names in order")
            targets = self.names[[self.benchmark.triplets[n].target for n in self.numbers[category]]]
            hits = torch.tensor(ranked == np.repeat(targets, len(names)).reshape(len(targets), -1))
            clock.took("names compared")
            assert bool((hits.sum(dim=-1) == 1).all())
            for k in (10, 50):
                recalls[f"R@{k}"].append(100 * float(hits[:, :k].sum()) / len(hits))
            clock.took("recalls")
        return {key: float(np.mean(values)) for key, values in recalls.items()}


class Clock:
    """Add the time since the last call to ``taken`` under a name."""

    def __init__(self, taken: dict[str, list[float]]) -> None:
        self.taken, self.last = taken, time.perf_counter()

    def took(self, name: str) -> None:
        now = time.perf_counter()
        self.taken.setdefault(name, []).append(now - self.last)
        self.last = now


def seconds_a_query(ready: Embeddings, sample: int) -> dict[str, float]:
    """Return the seconds of the broadcast product for one query of each category, from ``sample`` of them."""
    found = {}
    for category, (queries, targets) in ready.items():
        started = time.perf_counter()
        broadcast(queries[:sample], targets)
        found[category] = (time.perf_counter() - started) / min(sample, len(queries))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of FashionIQ's sizes")
    parser.add_argument("--sample", type=int, default=8, help="queries of the broadcast product")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    benchmark = sized(given.share, np.random.default_rng(0))
    asked = np.array([triplet.category for triplet in benchmark.triplets])
    numbers = {category: np.flatnonzero(asked == category) for category in benchmark.galleries}
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int, tokens: int) -> Tensor:
        vectors = torch.randn(count, tokens, WIDTH, generator=generator)
        return torch.nn.functional.normalize(vectors, dim=2)

    ready = {
        category: (drawn(len(numbers[category]), 1), drawn(len(gallery), TOKENS))
        for category, gallery in benchmark.galleries.items()
    }
    scores = {category: score(*pair, "max_t") for category, pair in ready.items()}
    published = Published(benchmark, numbers)
    found: dict[str, dict[str, float]] = {}

    def chunks(ready_scores: bool) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float32]]]:
        for category, pair in ready.items():
            if ready_scores:
                yield category, numbers[category], scores[category].numpy()
            else:
                yield from ((category, numbers[category][s], part) for s, part in in_chunks(*pair, "max_t"))

    def ours(name: str, ready_scores: bool, kept: int) -> Callable[[], None]:
        return lambda: found.update({name: summarise(collect(benchmark, chunks(ready_scores), kept))})

    def theirs(name: str, make: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
        return lambda: found.update({name: published(make())})

    def products(product: Product) -> dict[str, Tensor]:
        return {category: product(*pair) for category, pair in ready.items()}

    device = torch.device("cpu")
    metrics = paired(
        {
            "ours, recalls": ours("recalls", True, 0),
            "ours, with the fifty best": ours("kept", True, KEPT),
            "as published": theirs("published", lambda: scores),
            "all scores read once (their sum)": lambda: [float(some.sum()) for some in scores.values()],
        },
        device,
        given.rounds,
    )
    steps = {
        category: {name: statistics.median(values[1:]) for name, values in taken.items()}
        for category, taken in published.taken.items()
    }
    whole = paired(
        {
            "ours, recalls": ours("whole", False, 0),
            "one product, published metrics": theirs("one product", lambda: products(one_product)),
        },
        device,
        given.rounds,
    )
    a_query = seconds_a_query(ready, given.sample)
    copied = sum(a_query[category] * len(numbers[category]) for category in ready)
    by_copies = copied + metrics["as published"]["median"]
    right = found["published"]
    write_json(
        given.out,
        {
            "queries": {category: len(rows) for category, rows in numbers.items()},
            "galleries": {category: len(gallery) for category, gallery in benchmark.galleries.items()},
            "rounds": given.rounds,
            "machine": machine(),
            "metrics": metrics,
            "steps": steps,
            "whole": whole,
            "sample": given.sample,
            "broadcast_seconds": copied,
            "broadcast_whole_seconds": by_copies,
            "ratios": {
                "metrics, recalls": ratio(metrics, "as published", "ours, recalls"),
                "metrics, fifty best": ratio(metrics, "as published", "ours, with the fifty best"),
                "embeddings, one product": ratio(whole, "one product, published metrics", "ours, recalls"),
                "embeddings, broadcast": by_copies / whole["ours, recalls"]["median"],
            },
            "largest_difference_in_points": max(
                abs(row[key] - right[key]) for row in found.values() for key in right
            ),
        },
    )


def ratio(times: dict[str, dict[str, float]], slow: str, fast: str) -> float:
    """Return how many times as fast the second is, by medians."""
    return times[slow]["median"] / times[fast]["median"]


if __name__ == "__main__":
    main()
