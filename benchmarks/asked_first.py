"""Measure what a search gains and loses by boosting requested attributes (``boost_requested``).

    python -m benchmarks.asked_first --data PHOTOS --name photos --out WORK/asked-photos.json

For several weights of requested columns, the shipped model is measured on the val split: the usual metrics,
and the share of the ten best results that show all requested values, by the table.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.catalogue import read_catalogue
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import Store
from dqecir.evaluation.evaluate import embed_images
from dqecir.evaluation.metrics import RetrievalResults, Scores, collect, summarise
from dqecir.io.files import write_json
from dqecir.methods.method import Query
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.scoring import score
from dqecir.model.compose import CHUNK
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.questions.composing import catalogue_benchmark
from dqecir.search.steering import REQUEST_BOOST, boost_requested

FACTORS = (1.0, 1.5, 2.0, 3.0, 5.0)
RequestedValue = tuple[str, NDArray[np.int64], Query]
"""A category, numbers of its questions, and their queries."""
KEPT = ("R@1", "R@10", "R@50", "mAP@10", "R-precision")


@torch.no_grad()
def composed(model: ComposedModel, store: Store, benchmark: Benchmark) -> Iterator[RequestedValue]:
    """Yield the queries of all questions, a chunk of one category at a time."""
    for category in benchmark.galleries:
        rows = [row for row, triplet in enumerate(benchmark.triplets) if triplet.category == category]
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            triplets = [benchmark.triplets[row] for row in some]
            text = model.text_encoder([model.method.text(triplet.captions) for triplet in triplets])
            references = store.gather(torch.tensor([triplet.reference for triplet in triplets]))
            yield category, np.array(some), model.method.embed_query(references, text)


@torch.no_grad()
def scores(
    asked: list[RequestedValue], targets: Tensor, benchmark: Benchmark, factor: float, rule: ScoreRule
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    """Yield scores of queries in which requested columns count ``factor`` times."""
    for category, rows, query in asked:
        candidates = targets[torch.from_numpy(benchmark.galleries[category])]
        yield category, rows, score(boost_requested(query, factor).embeddings, candidates, rule).numpy()


def fulfilled(results: RetrievalResults) -> float:
    """Return the share of the ten best results that show all requested values, in percent."""
    benchmark = results.benchmark
    shares = []
    for triplet, found in zip(benchmark.triplets, results.found[:, :10].tolist(), strict=True):
        asked = triplet.asked.items()
        shares.append(
            np.mean(
                [
                    all(benchmark.attributes[column][image] in values for column, values in asked)
                    for image in found
                    if image >= 0
                ]
            )
        )
    return 100 * float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--questions", type=int, default=1500)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    model = ComposedModel.from_pretrained().eval()
    benchmark = catalogue_benchmark(
        read_catalogue(given.data), "val", seed=given.seed, count=given.questions, wording="evaluation"
    )
    with tempfile.TemporaryDirectory() as work:
        store = store_of(model, benchmark, Path(work) / "tokens")
        targets = embed_images(model.method, store)
        asked = list(composed(model, store, benchmark))
    rows = {}
    for factor in FACTORS:
        results = collect(benchmark, scores(asked, targets, benchmark, factor, model.method.score_rule))
        summary = summarise(results)
        rows[f"{factor:g}"] = {key: summary[key] for key in KEPT} | {"asked": fulfilled(results)}
    write_json(
        given.out,
        {
            "name": given.name,
            "seed": given.seed,
            "questions": len(benchmark.triplets),
            "images": len(benchmark.image_ids),
            "used": REQUEST_BOOST,
            "machine": platform.machine(),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
