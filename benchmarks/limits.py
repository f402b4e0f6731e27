"""Measure the upper limit of attribute heads: predicted attributes with a perfect parse, and possible
improvements.

    python -m benchmarks.limits --data PHOTOS --model MODEL --name photos --out WORK/limits-photos.json

Questions of the dev split are ranked by the log-probability that a candidate shows the requested values,
which are taken from the questions themselves: as an inner product, exactly, with the true values of the
reference or of the candidates, and with heads that also see the mirror image of every picture.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dqecir.data.catalogue import read_catalogue
from dqecir.data.images import load_batches
from dqecir.data.triplets import Benchmark
from dqecir.evaluation.metrics import Scores, collect, summarise
from dqecir.io.files import write_json
from dqecir.methods.predicted_attributes import PREDICTION_SMOOTHING
from dqecir.model.composed_model import ComposedModel
from dqecir.questions.composing import catalogue_benchmark
from dqecir.training.data import attribute_codes

KEPT = ("R@10", "mAP@10", "R-precision")
Shares = dict[str, Tensor]


def heads_see(model: ComposedModel, benchmark: Benchmark, views: Callable[[Tensor], list[Tensor]]) -> Shares:
    """Return column -> probabilities [N, values], the mean over the views of every picture."""
    assert model.heads is not None
    found: dict[str, list[Tensor]] = {}
    for batch in load_batches(benchmark.image_paths, model.preprocessing):
        logits = [model.heads(model.backbone.image_tokens(view)) for view in views(batch.pixels)]
        for column in model.heads.config.columns:
            shares = torch.stack([one[column].float().softmax(dim=1) for one in logits]).mean(dim=0)
            found.setdefault(column, []).append(shares)
    return {column: torch.cat(parts) for column, parts in found.items() if column in benchmark.attributes}


def true_values(model: ComposedModel, benchmark: Benchmark, columns: list[str]) -> Shares:
    """Return column -> [N, values], with 1 for the value in the table."""
    assert model.heads is not None
    known = model.heads.config.columns
    codes = attribute_codes(benchmark.attributes, len(benchmark.image_ids), known)
    places = list(known)
    return {
        column: F.one_hot(codes[:, places.index(column)].clamp(min=0), len(known[column])).float()
        for column in columns
    }


def scores(
    model: ComposedModel, benchmark: Benchmark, reference: Shares, candidates: Shares, exact: bool
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    assert model.heads is not None
    known = model.heads.config.columns
    for category, gallery in benchmark.galleries.items():
        rows = [n for n, triplet in enumerate(benchmark.triplets) if triplet.category == category]
        shown = {column: shares[torch.from_numpy(gallery)] for column, shares in candidates.items()}
        found = []
        for triplet in (benchmark.triplets[row] for row in rows):
            total = torch.zeros(len(gallery))
            for column, shares in shown.items():
                if column in triplet.asked:
                    wanted = torch.tensor([float(value in triplet.asked[column]) for value in known[column]])
                else:
                    wanted = reference[column][triplet.reference]
                if exact:
                    total += (shares @ wanted + PREDICTION_SMOOTHING).log()
                else:
                    total += (shares + PREDICTION_SMOOTHING).log() @ (wanted / wanted.sum())
            found.append(total)
        yield category, np.array(rows, dtype=np.int64), torch.stack(found).numpy()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=1500)
    given = parser.parse_args()
    model = ComposedModel.from_pretrained(given.model).eval()
    benchmark = catalogue_benchmark(read_catalogue(given.data), "dev", seed=1, count=given.questions)
    plain = heads_see(model, benchmark, lambda pixels: [pixels])
    mirrored = heads_see(model, benchmark, lambda pixels: [pixels, pixels.flip(3)])
    true = true_values(model, benchmark, list(plain))
    rows = {
        "as an inner product": (plain, plain, False),
        "exactly": (plain, plain, True),
        "exactly, heads see the mirror image too": (mirrored, mirrored, True),
        "exactly, true values of the reference": (true, plain, True),
        "exactly, true values of the candidates": (plain, true, True),
    }
    found = {
        name: summarise(collect(benchmark, scores(model, benchmark, *sides))) for name, sides in rows.items()
    }
    write_json(
        given.out,
        {
            "name": given.name,
            "questions": len(benchmark.triplets),
            "images": len(benchmark.image_ids),
            "machine": platform.machine(),
            "rows": {name: {key: row[key] for key in KEPT} for name, row in found.items()},
        },
    )


if __name__ == "__main__":
    main()
