"""What it gives and costs that a search insists on what the text asks for (dqecir.steering.insisted).

    python benchmarks/asked_first.py --data PHOTOS --name photos --out WORK/asked-photos.json

The shipped model on the val split, by how many times the asked columns count: the usual metrics, and the
share of the ten best that show all that was asked, by the table.
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

from dqecir.data.catalogue import read_catalogue
from dqecir.data.composing import catalogue_benchmark
from dqecir.data.triplets import Benchmark
from dqecir.evaluation.evaluate import CHUNK, embed_images
from dqecir.evaluation.metrics import RetrievalResults, Scores, collect, summarise
from dqecir.files import write_json
from dqecir.model import ComposedModel
from dqecir.runs import store_of
from dqecir.scoring import score
from dqecir.steering import INSISTENCE, insisted

FACTORS = (1.0, 1.5, 2.0, 3.0, 5.0)
KEPT = ("R@1", "R@10", "R@50", "mAP@10", "R-precision")


@torch.no_grad()
def scores(
    model: ComposedModel, benchmark: Benchmark, work: Path, factor: float
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    method, store = model.method, store_of(model, benchmark, work)
    targets = embed_images(method, store)
    for category, gallery in benchmark.galleries.items():
        rows = np.array([n for n, t in enumerate(benchmark.triplets) if t.category == category])
        for some in np.array_split(rows, -(-len(rows) // CHUNK)):
            triplets = [benchmark.triplets[row] for row in some]
            text = model.text_encoder([method.text(triplet.captions) for triplet in triplets])
            references = store.gather(torch.tensor([triplet.reference for triplet in triplets]))
            query = insisted(method.embed_query(references, text), factor)
            candidates = targets[torch.from_numpy(gallery)]
            yield category, some, score(query.embeddings, candidates, method.score_rule).numpy()


def fulfilled(results: RetrievalResults) -> float:
    """Share of the ten best that show all that was asked, in percent."""
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
    rows = {}
    with tempfile.TemporaryDirectory() as work:
        for factor in FACTORS:
            results = collect(benchmark, scores(model, benchmark, Path(work) / "tokens", factor))
            summary = summarise(results)
            rows[f"{factor:g}"] = {key: summary[key] for key in KEPT} | {"asked": fulfilled(results)}
    write_json(
        given.out,
        {
            "name": given.name,
            "seed": given.seed,
            "questions": len(benchmark.triplets),
            "images": len(benchmark.image_ids),
            "used": INSISTENCE,
            "machine": platform.machine(),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
