"""Image tokens of a benchmark under a model's tower, computed once and kept in a folder."""

from __future__ import annotations

from pathlib import Path

from dqecir.data.annotations import Questions
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.encoders.store.precision import PrecisionName
from dqecir.model.composed_model import ComposedModel


def store_of(
    model: ComposedModel,
    benchmark: Benchmark | Questions,
    folder: Path,
    views: int = 1,
    quiet: bool = False,
    precision: PrecisionName = "fp16",
) -> TokenStore:
    """The image tokens of a benchmark under ``model``'s tower, kept in ``folder``."""
    return TokenStore.build(
        folder,
        model.backbone.image_tokens,
        model.tower_fingerprint,
        model.preprocessing,
        benchmark.image_paths,
        views,
        quiet,
        precision,
    )
