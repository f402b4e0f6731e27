"""What pretraining reads: pictures of catalogues with their attributes as codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dqecir.data.catalogue import Catalogue
from dqecir.data.cells import UNKNOWN
from dqecir.data.images import Preprocessing, load_image
from dqecir.errors import DataError
from dqecir.io.progress import track
from dqecir.training.data import attribute_codes

MAX_VALUES = 64
"""A column with more values is a name or a number, not an attribute that an image shows."""


@dataclass(frozen=True)
class LabelledImages:
    """Pictures of one catalogue as the model sees them, with their attributes as codes.

    ``pixels`` [N, 3, S, S] uint8; ``codes`` [N, C] places in the values of every column, ``UNKNOWN_CODE``
    where an attribute is unknown or is no column of this catalogue.
    """

    pixels: Tensor
    codes: Tensor


def shared_columns(catalogues: Sequence[Catalogue]) -> dict[str, tuple[str, ...]]:
    """Column -> all its values in any catalogue, sorted; what images cannot show is left out.

    ``""`` is among them where an attribute does not apply to some images: that, too, can be seen.
    """
    columns: dict[str, set[str]] = {}
    for catalogue in catalogues:
        for column, values in catalogue.attributes.items():
            columns.setdefault(column, set()).update(set(values) - {UNKNOWN})
    kept = {
        column: tuple(sorted(values))
        for column, values in sorted(columns.items())
        if 2 <= len(values - {""}) <= MAX_VALUES
    }
    if not kept:
        raise DataError("no column of the catalogues has 2 to 64 values: there is no attribute to learn")
    return kept


def codes_of(catalogue: Catalogue, images: np.ndarray, columns: Mapping[str, Sequence[str]]) -> Tensor:
    """:func:`attribute_codes` of some images of a catalogue."""
    given = {column: [values[i] for i in images] for column, values in catalogue.attributes.items()}
    return attribute_codes(given, len(images), columns)


def read_images(
    catalogue: Catalogue,
    split: str,
    columns: dict[str, tuple[str, ...]],
    preprocessing: Preprocessing,
    quiet: bool = False,
) -> LabelledImages:
    """Decode one split of a catalogue into memory; raises ``ImageError`` for a bad picture."""
    images = catalogue.split(split)
    pixels = torch.empty(len(images), 3, preprocessing.size, preprocessing.size, dtype=torch.uint8)

    def read(position: int) -> np.ndarray:
        return np.array(preprocessing.picture(load_image(catalogue.image_paths[position])))

    with ThreadPoolExecutor(4) as pool:
        pictures = track(
            pool.map(read, images.tolist()), f"reading {catalogue.folder.name}", len(images), quiet
        )
        for row, picture in enumerate(pictures):
            pixels[row] = torch.from_numpy(picture).permute(2, 0, 1)
    return LabelledImages(pixels, codes_of(catalogue, images, columns))
