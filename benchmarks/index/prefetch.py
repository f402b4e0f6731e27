"""Measure what so many candidates of Qdrant's engines hold of the exact first ten.

    python -m benchmarks.index.prefetch --index INDEX --work WORK --out WORK/prefetch.json

INDEX is an index of any engine whose items' pictures are still there. Its items are moved into an exact
index and an Edge index under WORK; questions are composed of pictures and texts as ``dqecir index audit``
composes them, and asked of both. The default number in ``dqecir.index.prefetch`` was chosen from this.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path

import torch
from benchmarks.speed.timing import machine
from torch import Tensor

from dqecir.files import write_json
from dqecir.index.audit import picture_queries
from dqecir.index.engine import Hit, Index
from dqecir.index.engines import move_index
from dqecir.index.filters import Equal, Filter
from dqecir.index.qdrant import QdrantIndex
from dqecir.model import ComposedModel

BEST = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--candidates", type=int, nargs="+", default=[50, 100, 200, 500, 1000, 2000])
    arguments = parser.parse_args()
    model = ComposedModel.from_pretrained(arguments.model)
    exact = move_index(arguments.index, arguments.work / "exact", "exact")
    edge = move_index(arguments.index, arguments.work / "edge", "edge")
    assert isinstance(edge, QdrantIndex)
    entries = list(exact.entries())
    draw = random.Random(0)
    chosen = draw.sample(entries, min(arguments.queries, len(entries)))
    queries = picture_queries(model, [payload for _, payload in chosen], draw)
    if queries is None:
        raise SystemExit("the pictures of the index's items are gone, and questions are made of them")
    left_out = [[item] for item, _ in chosen]
    rows = []
    for name, where in limits([payload for _, payload in entries]).items():
        right, times = answers(exact, queries, left_out, where)
        rows.append({"limit": name, "candidates": None, "recall": 1.0, "same": 1.0, **times})
        for count in arguments.candidates:
            edge.set_candidates(count)
            found, times = answers(edge, queries, left_out, where)
            pairs = list(zip(right, found, strict=True))
            same = sum([hit.id for hit in one] == [hit.id for hit in other] for one, other in pairs)
            both = sum(len({hit.id for hit in one} & {hit.id for hit in other}) for one, other in pairs)
            recall = both / sum(map(len, right))
            rows.append(
                {"limit": name, "candidates": count, "recall": recall, "same": same / len(right), **times}
            )
            print(f"{name}: {count} candidates, recall@{BEST} {recall:.4f}, {times['median']:.1f} ms")
    write_json(
        arguments.out,
        {
            "items": len(exact),
            "queries": len(queries),
            "rule": exact.header.score_rule,
            "tokens": [exact.header.tokens, exact.header.size],
            "rows": rows,
            "machine": machine(),
        },
    )


def limits(payloads: list[dict[str, object]]) -> dict[str, Filter | None]:
    """No filter, and one each that leaves about a tenth and a hundredth of the items."""
    counts = Counter(
        (name, value)
        for payload in payloads
        for name, value in payload.items()
        if name != "path" and isinstance(value, str)
    )
    found: dict[str, Filter | None] = {"everything": None}
    for share in (0.1, 0.01):
        (name, value), count = min(counts.items(), key=lambda pair: abs(pair[1] - share * len(payloads)))
        found[f"{name} = {value} ({100 * count / len(payloads):.1f} %)"] = Equal(name, (value,))
    return found


def answers(
    index: Index, queries: Tensor, left_out: list[list[str]], where: Filter | None
) -> tuple[list[list[Hit]], dict[str, float]]:
    """Answers of one search a query, and milliseconds they took."""
    index.search(queries[:1], BEST, left_out[:1], where)
    found, taken = [], []
    for row in range(len(queries)):
        start = time.perf_counter()
        found += index.search(queries[row : row + 1], BEST, left_out[row : row + 1], where)
        taken.append(1000 * (time.perf_counter() - start))
    times = torch.tensor(taken)
    return found, {"median": float(times.median()), "p99": float(times.quantile(0.99))}


if __name__ == "__main__":
    main()
