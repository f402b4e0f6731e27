"""Measure the gain and the cost of reranking: mAP@10 and processor time, on a split of photos.

    python -m benchmarks.reranking --data PHOTOS --split val --write docs/steering.md

Questions and right answers come from the catalogue's table; the index holds only pictures. The first N
candidates of the search are scored again by the attribute heads of the model. A perfect reranker, which puts
the right answers among them first, is the upper limit. Time is processor time on one thread, including the
decoding of the candidates' pictures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks.pages import write_part

from dqecir.data.catalogue import read_catalogue
from dqecir.data.triplets import Triplet
from dqecir.io.markdown import table
from dqecir.questions.composing import catalogue_benchmark
from dqecir.search.engine import SearchEngine
from dqecir.search.retriever import ComposedRetriever
from dqecir.search.search_request import SearchRequest

DEPTHS = (10, 50)
KEPT = 10


def average_precision(found: Sequence[int], right: frozenset[int]) -> float:
    """Return AP@10 in percent."""
    hits = [place in right for place in found[:KEPT]]
    precisions = [sum(hits[: n + 1]) / (n + 1) for n, hit in enumerate(hits) if hit]
    return 100 * sum(precisions) / min(KEPT, len(right))


def measured(
    engine: SearchEngine, asked: Sequence[Triplet], ids: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return way of searching -> mAP@10, and milliseconds of processor time per query."""
    places = {item: place for place, item in enumerate(ids)}
    found: dict[str, list[tuple[float, float]]] = {}
    for number, question in enumerate(asked):
        right, undecided = frozenset(question.relevant), frozenset(question.ignored)
        text = engine.model.method.text(question.captions)
        for depth in (0, *DEPTHS):
            request = SearchRequest(
                item=ids[question.reference], text=text, k=max(DEPTHS), rerank=depth, explain=False
            )
            begun = time.process_time()
            results = [places[one.id] for one in engine.search(request).results]
            took = 1000 * (time.process_time() - begun)
            name = f"attribute heads, the first {depth}" if depth else "the search alone"
            results = [place for place in results if place not in undecided]
            found.setdefault(name, []).append((average_precision(results, right), took))
            for ceiling in DEPTHS if not depth else ():
                best = sorted(results[:ceiling], key=lambda place: place not in right)
                name = f"a perfect reranker, the first {ceiling}"
                found.setdefault(name, []).append((average_precision(best, right), float("nan")))
        print(number, file=sys.stderr, end="\r", flush=True)
    rows = {name: torch.tensor(values).mean(dim=0).tolist() for name, values in found.items()}
    return {name: (precision, took) for name, (precision, took) in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--model", type=Path, help="A model folder. Default: the shipped model.")
    parser.add_argument("--write", type=Path, required=True, help="The document whose table is replaced.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    benchmark = catalogue_benchmark(
        read_catalogue(given.data), given.split, count=given.questions, wording="evaluation"
    )
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "pictures"
        ids = [f"{place:05d}{path.suffix}" for place, path in enumerate(benchmark.image_paths)]
        folder.mkdir()
        for name, path in zip(ids, benchmark.image_paths, strict=True):
            (folder / name).symlink_to(path.resolve())
        retriever = ComposedRetriever.from_pretrained(given.model)
        retriever.build_index(folder, Path(work) / "index", quiet=True)
        assert retriever.index is not None
        rows = measured(SearchEngine(retriever.model, retriever.index), benchmark.triplets, ids)
    cells = [
        [name, f"{precision:.1f}", f"{took:.0f}" if took == took else ""]
        for name, (precision, took) in rows.items()
    ]
    said = (
        f"{len(benchmark.triplets)} questions over the {len(ids):,} photos of {given.split}; percent, and "
        "milliseconds of one processor core a query:"
    )
    write_part(given.write, "reranking", [said, "", *table(["ranked by", "mAP@10", "ms"], cells)])


if __name__ == "__main__":
    main()
