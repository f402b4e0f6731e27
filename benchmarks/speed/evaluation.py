"""Time FashionIQ's evaluation from ready embeddings against metrics by matrices of names, as published.

    python -m benchmarks.speed.evaluation --out WORK/evaluation.json

Sizes of FashionIQ's val split (original galleries), 32 target tokens of 256 numbers. Both get the same
embeddings and the same scores of one product; ours ranks by integers, the published way sorts every row,
writes the names of all candidates in that order into a matrix and compares it with the target's name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from benchmarks.speed.timing import machine, paired

from dqecir.data.triplets import Benchmark, Triplet
from dqecir.evaluation.metrics import collect, summarise
from dqecir.files import write_json
from dqecir.scoring import score

QUERIES = {"dress": 2017, "shirt": 2038, "toptee": 1961}
GALLERIES = {"dress": 3817, "shirt": 6346, "toptee": 5373}
TOKENS, WIDTH = 32, 256


def fashioniq_sized(generator: np.random.Generator) -> Benchmark:
    """A benchmark of FashionIQ's sizes whose answers are drawn at random."""
    galleries, triplets, start = {}, [], 0
    for category, size in GALLERIES.items():
        galleries[category] = np.arange(start, start + size, dtype=np.int64)
        for _ in range(QUERIES[category]):
            reference, target = (start + generator.choice(size, 2, replace=False)).tolist()
            triplets.append(Triplet(reference, target, ("a", "b"), category, (target,)))
        start += size
    names = tuple(f"B{number:09d}" for number in range(start))
    return Benchmark("sized", "val", names, tuple(map(Path, names)), galleries, tuple(triplets), False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    benchmark = fashioniq_sized(np.random.default_rng(0))
    numbers = {
        category: np.array([n for n, t in enumerate(benchmark.triplets) if t.category == category])
        for category in benchmark.galleries
    }
    generator = torch.Generator().manual_seed(0)
    ready = {}
    for category, gallery in benchmark.galleries.items():
        queries = torch.randn(len(numbers[category]), 1, WIDTH, generator=generator)
        ready[category] = score(
            queries, torch.randn(len(gallery), TOKENS, WIDTH, generator=generator), "max_t"
        )
    names = np.array(benchmark.image_ids)
    found: dict[str, dict[str, float]] = {}

    def ours() -> None:
        chunks = ((category, numbers[category], scores.numpy()) for category, scores in ready.items())
        found["ours"] = summarise(collect(benchmark, chunks))

    def by_names() -> None:
        recalls: dict[str, list[float]] = {"R@10": [], "R@50": []}
        for category, scores in ready.items():
            order = torch.argsort(-scores, dim=1).numpy()
            ranked = names[benchmark.galleries[category]][order]
            targets = names[[benchmark.triplets[n].target for n in numbers[category]]]
            labels = torch.tensor(ranked == np.repeat(targets, ranked.shape[1]).reshape(ranked.shape))
            for k in (10, 50):
                recalls[f"R@{k}"].append(100 * float(labels[:, :k].sum()) / len(labels))
        found["by names"] = {key: float(np.mean(values)) for key, values in recalls.items()}

    times = paired({"integer ranks": ours, "matrices of names": by_names}, torch.device("cpu"), given.rounds)
    differ = max(abs(found["ours"][key] - value) for key, value in found["by names"].items())
    write_json(
        given.out,
        {
            "queries": QUERIES,
            "galleries": GALLERIES,
            "rounds": given.rounds,
            "machine": machine(),
            "seconds": times,
            "ratio": times["matrices of names"]["median"] / times["integer ranks"]["median"],
            "largest_difference_in_points": differ,
        },
    )


if __name__ == "__main__":
    main()
