"""Make training triplets with wrong labels, to measure their effect on a method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dqecir.data.triplets import Benchmark


def with_shuffled_targets(benchmark: Benchmark, share: float, seed: int) -> Benchmark:
    """Give a ``share`` (0 to 1) of the triplets in each category the target of another such triplet.

    That target becomes the only known right answer, as in a data set with wrong labels. A triplet that would
    get its own reference as target keeps its target. ``share`` 0 changes nothing.
    """
    triplets = list(benchmark.triplets)
    random = np.random.default_rng(seed)
    for category in benchmark.galleries:
        rows = np.flatnonzero([triplet.category == category for triplet in triplets])
        chosen = random.permutation(rows)[: round(share * len(rows))].tolist()
        lent = [triplets[row].target for row in (*chosen[1:], *chosen[:1])]
        for row, target in zip(chosen, lent, strict=True):
            if target != triplets[row].reference:
                triplets[row] = replace(triplets[row], target=target, relevant=(target,), subset=())
    return replace(benchmark, triplets=tuple(triplets))
