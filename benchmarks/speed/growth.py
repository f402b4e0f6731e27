"""Measure costs for a corpus of ten and a hundred times the size: store, mining, evaluation.

    python -m benchmarks.speed.growth --out WORK/growth.json

FashionIQ's shapes (32 tokens of 256 numbers) over 4,000, 40,000 and 400,000 images. A few queries are timed
against the whole corpus, and their time is multiplied: mining has one query for each image, an evaluation
6,000 for every corpus. Vectors beyond the first 4,000 repeat those, because time does not depend on the
values. Bytes of the store follow from its layout.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import numpy as np
import torch
from benchmarks.speed.evaluation import TOKENS, WIDTH
from benchmarks.speed.mining import mined
from benchmarks.speed.step import SIZES
from benchmarks.speed.timing import machine, paired

from dqecir.data.triplets import Benchmark, Triplet
from dqecir.encoders.store.precision import PRECISIONS
from dqecir.evaluation.evaluate import in_chunks
from dqecir.evaluation.metrics import collect
from dqecir.io.files import write_json
from dqecir.methods.negatives import NegativeSampling

IMAGES = (4_000, 40_000, 400_000)
DRAWN = 4_000
ASKED = 6_000
"""Questions of an evaluation, as FashionIQ's."""


def image_bytes() -> dict[str, int]:
    """Return the bytes that the store needs for one image, by tower and number type."""
    return {
        f"{name}, {precision}": kind.row(1, size.tower.token_count, size.tower.token_width).itemsize
        for name, size in SIZES.items()
        if "," not in name
        for precision, kind in PRECISIONS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    parser.add_argument("--queries", type=int, default=64, help="that are timed at each size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.nn.functional.normalize(torch.randn(DRAWN, TOKENS, WIDTH, generator=generator), dim=2)
    queries = torch.nn.functional.normalize(torch.randn(given.queries, 1, WIDTH, generator=generator), dim=2)
    device, options = torch.device("cpu"), NegativeSampling()
    every = np.arange(given.queries)
    rows = []
    for images in given.images:
        # float16, as a corpus of this size would be kept: 6.6 GB of 400,000 images.
        corpus = drawn.half().repeat(-(-images // DRAWN), 1, 1)[:images]
        names = tuple(map(str, range(images)))
        triplets = tuple(Triplet(0, n + 1, ("a",), "all", (n + 1,)) for n in range(given.queries))
        benchmark = Benchmark(
            "grown", "val", names, tuple(map(Path, names)), {"all": np.arange(images)}, triplets, False
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def evaluated(benchmark: Benchmark = benchmark, corpus: torch.Tensor = corpus) -> None:
            chunks = in_chunks(queries, corpus, "max_t")
            collect(benchmark, (("all", every[some], scores) for some, scores in chunks), kept=0)

        def mining(corpus: torch.Tensor = corpus) -> None:
            mined(queries, corpus, options)

        times = paired({"evaluation": evaluated, "mining": mining}, device, given.rounds)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        rows.append(
            {
                "images": images,
                "store_bytes": {name: images * size for name, size in image_bytes().items()},
                "seconds": times,
                "peak_growth_mb": grown / 1024,
                "evaluation_seconds": times["evaluation"]["median"] / given.queries * ASKED,
                "mining_seconds": times["mining"]["median"] / given.queries * images,
            }
        )
        del corpus
    write_json(given.out, {"queries": given.queries, "asked": ASKED, "sizes": rows, "machine": machine()})


if __name__ == "__main__":
    main()
