"""Time storing image tokens end to end against the tower alone on ready tensors.

    python -m benchmarks.speed.extraction --data PHOTOS --out WORK/extraction.json

End to end: files are read, decoded and prepared by several threads, encoded, quantised and flushed to
disk. The tower alone gets the same pictures as tensors that are ready. Both in batches of 64.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from benchmarks.speed.timing import machine, paired

from dqecir.backbones.store import TokenStore
from dqecir.data.catalogue import read_catalogue
from dqecir.data.images import load_batches
from dqecir.files import write_json
from dqecir.model import ComposedModel


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    model = ComposedModel.from_pretrained(given.model).eval()
    device = model.backbone.query_tokens.device
    paths = read_catalogue(given.data).image_paths[: given.images]
    ready = [batch.pixels for batch in load_batches(paths, model.preprocessing)]
    work = Path(tempfile.mkdtemp())

    def tower_alone() -> None:
        for pixels in ready:
            model.backbone.image_tokens(pixels)

    def stored(precision: str) -> TokenStore:
        folder = work / precision
        shutil.rmtree(folder, ignore_errors=True)
        return TokenStore.build(
            folder,
            model.backbone.image_tokens,
            model.tower_fingerprint,
            model.preprocessing,
            paths,
            quiet=True,
            precision="int8" if precision == "int8" else "fp16",
        )

    errors = {precision: stored(precision).relative_error for precision in ("fp16", "int8")}
    times = paired(
        {
            "tower alone": tower_alone,
            "stored, fp16": lambda: stored("fp16"),
            "stored, int8": lambda: stored("int8"),
        },
        device,
        given.rounds,
    )
    shutil.rmtree(work)
    write_json(
        given.out,
        {
            "images": len(paths),
            "machine": machine(),
            "seconds": times,
            "images_per_second": {name: len(paths) / row["median"] for name, row in times.items()},
            "relative_error": errors,
        },
    )


if __name__ == "__main__":
    main()
