"""Procedural garments: catalogues of drawn clothes whose attributes are known.

Images come in families, so that neither the reference nor the text alone finds the target.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dqecir.data.garment_drawing import render_garment
from dqecir.data.garment_vectors import (
    GARMENT_ATTRIBUTES,
    FamilyShape,
    GarmentItem,
    garment_families,
    independent_garments,
)
from dqecir.data.triplets import DataError
from dqecir.files import whole_folder, write_text
from dqecir.progress import track
from dqecir.strict import nearest

ARRANGEMENTS = ("families", "independent")
SPLITS = ("train", "val", "test")
_SPLIT_SHARES = (0.8, 0.1, 0.1)
_QUALITY = 92


def garment_items(
    items: int, seed: int, arrangement: str = "families", shape: FamilyShape | None = None
) -> list[GarmentItem]:
    """The garments of a catalogue, ``items`` spread evenly over dresses, shirts and tops.

    Everything follows from ``seed``. Raises ``DataError`` for an unknown arrangement.
    """
    if arrangement not in ARRANGEMENTS:
        raise DataError(f"there is no arrangement {arrangement!r}{nearest(arrangement, ARRANGEMENTS)}")
    found: list[GarmentItem] = []
    garments = GARMENT_ATTRIBUTES["garment"]
    for place, garment in enumerate(garments):
        count = items // len(garments) + (place < items % len(garments))
        rng = np.random.default_rng([seed, place])
        first = found[-1].family + 1 if found else 0
        if arrangement == "families":
            found.extend(garment_families(count, garment, rng, shape, first))
        else:
            found.extend(independent_garments(count, garment, rng, first))
    return found


def picture_of(item: GarmentItem, number: int, seed: int, size: int) -> Image.Image:
    """Draw one item; pose, light and background follow from the seed and the item's number alone."""
    return render_garment(item.attributes, np.random.default_rng([seed, 3, number]), size)


def write_garments(
    folder: Path,
    items: int,
    seed: int,
    size: int = 64,
    split: str | None = None,
    arrangement: str = "families",
    shape: FamilyShape | None = None,
    quiet: bool = False,
) -> Path:
    """Write a catalogue of ``items`` garments of ``size`` pixels: ``attributes.csv`` and ``images/``.

    ``split`` puts all images into one split; without it whole families are drawn into train, val and
    test. Raises ``DataError`` for an unknown split, and where ``folder`` already holds something.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"there is no split {split!r}{nearest(split, SPLITS)}")
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty: remove it, or name another folder")
    garments = garment_items(items, seed, arrangement, shape)
    with whole_folder(folder) as draft:
        (draft / "images").mkdir()
        numbers = range(len(garments))
        for number in track(numbers, "drawing garments", quiet=quiet):
            picture = picture_of(garments[number], number, seed, size)
            picture.save(draft / _file_name(number), quality=_QUALITY)
        write_text(draft / "attributes.csv", _table(garments, _splits(garments, seed, split)))
    return folder


def _file_name(number: int) -> str:
    return f"images/{number:06d}.jpg"


def _splits(garments: list[GarmentItem], seed: int, split: str | None) -> Iterator[str]:
    families = max(item.family for item in garments) + 1
    drawn = np.random.default_rng([seed, 4]).choice(SPLITS, size=families, p=_SPLIT_SHARES)
    return (split or str(drawn[item.family]) for item in garments)


def _table(garments: list[GarmentItem], splits: Iterator[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "split", *GARMENT_ATTRIBUTES])
    for number, (item, split) in enumerate(zip(garments, splits, strict=True)):
        writer.writerow([_file_name(number), split, *item.attributes.values()])
    return text.getvalue()
