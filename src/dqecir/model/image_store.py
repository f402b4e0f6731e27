"""Image tokens of a data set, computed once with a model's tower and stored in a folder."""

from __future__ import annotations

from pathlib import Path

from dqecir.data.annotations import Questions
from dqecir.data.hp_fashioniq import Preferences
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.encoders.store.precision import PrecisionName
from dqecir.model.composed_model import ComposedModel


def store_of(
    model: ComposedModel,
    images: Benchmark | Questions | Preferences,
    folder: Path,
    views: int = 1,
    quiet: bool = False,
    precision: PrecisionName = "fp16",
) -> TokenStore:
    """Return the image tokens of a data set, computed with the tower of ``model`` and stored in ``folder``.

    ``views``: number of stored versions of each image; all but the first are randomly changed. ``quiet``:
    show no progress. ``precision``: number type of the tokens, ``fp16`` or ``int8``. Raises
    :class:`DataError` if an image cannot be used, or if the folder was made with another tower or with other
    settings.
    """
    return TokenStore.build(
        folder,
        model.backbone.image_tokens,
        model.tower_fingerprint,
        model.preprocessing,
        images.image_paths,
        views,
        quiet,
        precision,
    )
