"""Compare the time of mining, from embeddings, with scoring everything at once, as published.

    python -m benchmarks.speed.mining --out WORK/mining.json

FashionIQ's size: 18,000 queries against 18,000 targets of 32 tokens and 256 numbers, in one corpus. dqecir
takes queries in chunks, keeps only the maximum over tokens, and chooses each query's mid-zone. The published
codes hold the scores of all tokens of all pairs at once (41 GB at this size), so they are timed on a tenth of
the queries and targets, and dqecir on the same tenth.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import torch
from benchmarks.speed.timing import machine, paired
from torch import Tensor

from dqecir.io.files import write_json
from dqecir.methods.negatives import NegativeSampling, mid_zone, target_relative_scores, zone_bounds
from dqecir.methods.scoring import score

TOKENS, WIDTH, CHUNK = 32, 256, 256


def mined(queries: Tensor, targets: Tensor, options: NegativeSampling) -> int:
    """Return the number of members of all mid-zones, computed a chunk of queries at a time."""
    members = 0
    for start in range(0, len(queries), CHUNK):
        scores = score(queries[start : start + CHUNK], targets, "max_t")
        rows = torch.arange(len(scores))
        eligible = torch.ones_like(scores, dtype=torch.bool)
        eligible[rows, start + rows] = False
        delta = target_relative_scores(scores, scores[rows, start + rows])
        members += int(mid_zone(delta, eligible, zone_bounds(delta, eligible, options, 0.07)).sum())
    return members


def at_once(queries: Tensor, targets: Tensor, options: NegativeSampling) -> int:
    """Return the same with the scores of all tokens of all pairs in memory, as published."""
    scores = torch.einsum("qd,nkd->qnk", queries[:, 0], targets).amax(dim=2)
    eligible = ~torch.eye(len(queries), dtype=torch.bool)
    delta = target_relative_scores(scores, scores.diagonal())
    return int(mid_zone(delta, eligible, zone_bounds(delta, eligible, options, 0.07)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=18_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)

    def embeddings(count: int, tokens: int) -> Tensor:
        drawn = torch.randn(count, tokens, WIDTH, generator=generator)
        return torch.nn.functional.normalize(drawn, dim=2).to(device)

    options = NegativeSampling()
    tenth = given.size // 10
    queries, targets = embeddings(given.size, 1), embeddings(given.size, TOKENS)
    some, few = queries[:tenth], targets[:tenth]
    assert mined(some, few, options) == at_once(some, few, options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole = paired({"whole size": lambda: mined(queries, targets, options)}, device, 1, warm_up=0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    parts = paired(
        {
            "a tenth, in chunks": lambda: mined(some, few, options),
            "a tenth, all at once": lambda: at_once(some, few, options),
        },
        device,
        given.rounds,
    )
    write_json(
        given.out,
        {
            "queries": given.size,
            "tenth": tenth,
            "machine": machine(),
            "seconds": {**whole, **parts},
            "peak_growth_mb": grown / 1024,
            "published_tensor_mb": given.size**2 * TOKENS * 4 / 1e6,
            "tenth_tensor_mb": tenth**2 * TOKENS * 4 / 1e6,
        },
    )


if __name__ == "__main__":
    main()
