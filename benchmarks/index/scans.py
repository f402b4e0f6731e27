"""Time the scan of the engine ``exact`` and others of the same vectors, in turns, in one process.

    python -m benchmarks.index.scans --pictures PHOTOS --work WORK --out WORK/scans.json

``ours`` is the search of an index, from a query to results with payloads; ``float32`` converts the stored
vectors to float32 and multiplies, as version 0.1.0 did; ``FAISS flat`` holds them in float32. Each gets
queries one after the other, and then 64 at once.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.index.material import Material, encode, queries
from benchmarks.speed.timing import machine
from torch import Tensor

from dqecir.index.exact import ExactIndex
from dqecir.io.files import write_json
from dqecir.io.starting import let_threads_sleep
from dqecir.methods.scoring import best_columns, score

BEST = 10
ROUNDS = 5
"""Times that all queries are asked at once."""

Search = Callable[[Tensor], object]


def ways(folder: Path, threads: int) -> dict[str, Search]:
    """Return name -> search of the ten best of queries [B, 1, D]."""
    import faiss

    index = ExactIndex.open(folder)
    [path] = folder.glob("s*/tokens.npy")
    stored = torch.from_numpy(np.load(path, mmap_mode="c"))
    flat = faiss.IndexFlatIP(stored.shape[2])
    for part in stored.split(20_000):
        flat.add(part[:, 0].float().numpy())

    def by_faiss(count: int) -> Search:
        def search(asked: Tensor) -> object:
            faiss.omp_set_num_threads(count)
            try:
                return flat.search(asked[:, 0].numpy(), BEST)
            finally:
                faiss.omp_set_num_threads(threads)

        return search

    return {
        "ours": lambda asked: index.search(asked, BEST),
        "float32": lambda asked: best_columns(score(asked, stored, "dot"), BEST),
        **{f"FAISS flat, {count} threads": by_faiss(count) for count in sorted({1, threads})},
    }


def timed(search: Search, asked: Tensor) -> float:
    """Return milliseconds of one search."""
    started = time.perf_counter()
    search(asked)
    return 1000 * (time.perf_counter() - started)


def measured(folder: Path, asked: Tensor, threads: int) -> dict[str, Any]:
    """Return times of single queries and of all at once, in milliseconds."""
    found: dict[str, Any] = {}
    searches = ways(folder, threads)
    for search in searches.values():
        search(asked[:1])
    single: dict[str, list[float]] = {name: [] for name in searches}
    together: dict[str, list[float]] = {name: [] for name in searches}
    for query in asked.split(1):
        for name, search in searches.items():
            single[name].append(timed(search, query))
    for _ in range(ROUNDS):
        for name, search in searches.items():
            together[name].append(timed(search, asked[:64]))
    for name in searches:
        found[name] = {
            "p50_ms": statistics.median(single[name]),
            "p10_ms": float(np.quantile(single[name], 0.1)),
            "least_ms": min(single[name]),
            "64_at_once_ms": statistics.median(together[name]),
            "64_at_once_least_ms": min(together[name]),
        }
        print(f"{name:22}", *(f"{key} {value:.1f}" for key, value in found[name].items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="folders to encode at first")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    let_threads_sleep()
    torch.set_num_threads(given.threads)
    source = given.work / "encoded"
    encode(given.pictures, source)
    asked = queries(given.queries, source)
    runs = {}
    for count in given.sizes:
        items = Material(count, source)
        folder = given.work / f"exact-{count}"
        if not folder.exists():
            ExactIndex.build(folder, items.header, items.batches())
        print(f"{count:,} items of {items.header.size} numbers", flush=True)
        runs[str(count)] = measured(folder, asked, given.threads)
        shutil.rmtree(folder)
    write_json(given.out, {"machine": machine(), "queries": len(asked), "runs": runs})


if __name__ == "__main__":
    main()
