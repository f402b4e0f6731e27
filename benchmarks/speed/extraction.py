"""Compare the time of storing image tokens, from files to disk, with the time of the tower alone on tensors.

    python -m benchmarks.speed.extraction --data PHOTOS --out WORK/extraction.json
    python -m benchmarks.speed.extraction --data PHOTOS --tower vit_l --images 48 --out WORK/extraction-l.json

End to end: files are read, decoded and prepared by several threads, encoded, quantised and flushed to disk.
The tower alone gets the same pictures as tensors. Both use batches of 64. Reading alone is the same without a
tower: the same threads, and one number for each picture is stored. Without an accelerator, these threads use
the same cores as the tower, so the rate of both, one after the other, is the upper limit.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from benchmarks.speed.step import SIZES
from benchmarks.speed.timing import machine, paired
from torch import Tensor

from dqecir.data.catalogue import read_catalogue
from dqecir.data.images import Preprocessing, load_batches
from dqecir.encoders.store import TokenStore
from dqecir.encoders.store.precision import PrecisionName
from dqecir.encoders.towers import build_tower
from dqecir.io.files import write_json
from dqecir.model.composed_model import ComposedModel

Tower = Callable[[Tensor], Tensor]


def nothing(pixels: Tensor) -> Tensor:
    """Return one number for each picture, as a tower that needs no time."""
    return pixels.new_ones(len(pixels), 1, 1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tower", choices=sorted(SIZES), help="a random one of that shape, not a model's")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tower: Tower
    if given.tower:
        network, preprocessing = build_tower(SIZES[given.tower].tower).to(device).eval(), Preprocessing()

        def tower(pixels: Tensor) -> Tensor:
            return network(pixels.to(device))
    else:
        model = ComposedModel.from_pretrained(given.model).eval().to(device)
        tower, preprocessing = model.backbone.image_tokens, model.preprocessing
    paths = read_catalogue(given.data).image_paths[: given.images]
    ready = [batch.pixels for batch in load_batches(paths, preprocessing)]
    work = Path(tempfile.mkdtemp())
    errors = {}

    def tower_alone() -> None:
        for pixels in ready:
            tower(pixels)

    def stored(encoder: Tower, precision: PrecisionName) -> float:
        folder = work / precision
        shutil.rmtree(folder, ignore_errors=True)
        store = TokenStore.build(folder, encoder, "", preprocessing, paths, quiet=True, precision=precision)
        return store.relative_error

    def measured(precision: PrecisionName) -> Callable[[], None]:
        return lambda: errors.update({precision: stored(tower, precision)})

    try:
        times = paired(
            {
                "tower alone": tower_alone,
                "reading alone": lambda: stored(nothing, "fp16"),
                "stored, fp16": measured("fp16"),
                "stored, int8": measured("int8"),
            },
            device,
            given.rounds,
        )
    finally:
        shutil.rmtree(work)
    speed = {name: len(paths) / row["median"] for name, row in times.items()}
    write_json(
        given.out,
        {
            "tower": given.tower,
            "images": len(paths),
            "rounds": given.rounds,
            "machine": machine(),
            "seconds": times,
            "images_per_second": speed,
            "share": speed["stored, fp16"] / speed["tower alone"],
            "one_after_the_other": 1 / (1 / speed["tower alone"] + 1 / speed["reading alone"]),
            "relative_error": errors,
        },
    )


if __name__ == "__main__":
    main()
