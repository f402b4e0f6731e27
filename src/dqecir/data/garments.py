"""Procedural garments: a catalogue of drawn clothes whose attributes are known exactly.

For trials, tests and first training on machines without data sets. ``families`` arranges the images
so that neither the reference image nor the text alone finds the target; ``independent`` spreads them
evenly over all attribute vectors, for the pre-training of encoders.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from dqecir.data.catalogue import SPLITS, TABLE
from dqecir.data.garment_drawing import LARGEST, SMALLEST, render_garment
from dqecir.data.garment_vectors import (
    GARMENT_ATTRIBUTES,
    FamilyShape,
    GarmentItem,
    Vector,
    edits_between,
    garment_families,
    independent_garments,
    random_vector,
)
from dqecir.data.triplets import DataError
from dqecir.files import whole_folder, write_text
from dqecir.progress import track
from dqecir.strict import nearest

__all__ = [
    "GARMENT_ATTRIBUTES",
    "Arrangement",
    "FamilyShape",
    "GarmentItem",
    "Vector",
    "edits_between",
    "garment_families",
    "garment_image",
    "garment_items",
    "independent_garments",
    "random_vector",
    "render_garment",
    "write_garments",
]

Arrangement = Literal["families", "independent"]

_QUALITY = 92
_ARRANGING, _DRAWING = 0, 1
"""Branches of a seed: which garments there are, and how each is drawn."""
_CHUNK = 64


def garment_items(
    items: int,
    seed: int,
    arrangement: Arrangement = "families",
    shape: FamilyShape | None = None,
    split: str | None = None,
) -> list[tuple[Vector, str]]:
    """Attribute vector and split of every item, in the order of their numbers; nothing is drawn.

    The items are spread evenly over the three garments and shuffled. Without ``split``, whole
    families go to train, val and test (80/10/10, and one at least where there are three); else all
    items get ``split``. ``shape`` is that of the families. The same arguments give the same items.
    Raises ``DataError`` for an argument that cannot be used.
    """
    _check(items, arrangement, split)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ARRANGING,)))
    found: list[GarmentItem] = []
    kinds = GARMENT_ATTRIBUTES["garment"]
    for place, garment in enumerate(kinds):
        share = items // len(kinds) + (place < items % len(kinds))
        first = found[-1].family + 1 if found else 0
        if arrangement == "families":
            found.extend(garment_families(share, garment, rng, shape, first))
        else:
            found.extend(independent_garments(share, garment, rng, first))
    splits = _split_families(found, rng)
    rows = [(item.attributes, split or splits[item.family]) for item in found]
    return [rows[place] for place in rng.permutation(len(rows))]


def garment_image(attributes: Mapping[str, str], seed: int, number: int, size: int = 64) -> Image.Image:
    """Draw item ``number`` of a seed: RGB, ``size`` x ``size`` pixels; no other item has a say in it."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DRAWING, number)))
    return render_garment(attributes, rng, size)


def write_garments(
    folder: Path,
    items: int,
    seed: int,
    size: int = 64,
    split: str | None = None,
    arrangement: Arrangement = "families",
    shape: FamilyShape | None = None,
    workers: int = 1,
    quiet: bool = False,
) -> Path:
    """Write a catalogue of ``items`` garments: ``attributes.csv`` and ``images/000000.jpg`` onwards.

    ``size`` is the side of the images in pixels (64 to 512); the other arguments are those of
    ``garment_items``, and item ``n`` is ``garment_image(attributes, seed, n, size)`` as JPEG. The same
    arguments give the same bytes, whatever the number of ``workers`` (processes). Returns ``folder``.
    Raises ``DataError`` for an argument that cannot be used and for a folder that holds anything.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} is there already: name a new or an empty folder, or delete this one first")
    if not SMALLEST <= size <= LARGEST:
        raise DataError(f"garments are drawn at {SMALLEST} to {LARGEST} pixels a side, not {size}")
    if workers < 1:
        raise DataError(f"{workers} workers cannot draw anything: give 1 or more")
    rows = garment_items(items, seed, arrangement, shape, split)
    with whole_folder(folder) as draft:
        (draft / "images").mkdir()
        write_text(draft / TABLE, _table(rows))
        vectors = [vector for vector, _ in rows]
        drawn = _write_images(partial(_write_image, draft, seed, size), vectors, workers)
        for _ in track(drawn, "drawing garments", total=len(rows), quiet=quiet):
            pass
    return folder


def _check(items: int, arrangement: str, split: str | None) -> None:
    if items < 1:
        raise DataError(f"a catalogue of {items} garments is empty: give 1 or more")
    if arrangement not in get_args(Arrangement):
        raise DataError(
            f"there is no arrangement {arrangement!r}{nearest(arrangement, get_args(Arrangement))}"
        )
    if split is not None and split not in SPLITS:
        raise DataError(f"there is no split {split!r}{nearest(split, SPLITS)}")


def _split_families(items: Sequence[GarmentItem], rng: np.random.Generator) -> dict[int, str]:
    """Family -> split; the garments take turns, so that every split holds about as much of each."""
    by_garment: dict[str, set[int]] = {}
    for item in items:
        by_garment.setdefault(item.attributes["garment"], set()).add(item.family)
    drawn = [rng.permutation(sorted(families)).tolist() for families in by_garment.values()]
    turns = [family for turn in zip_longest(*drawn) for family in turn if family is not None]
    held_out = max(1, round(0.1 * len(turns))) if len(turns) >= len(SPLITS) else 0
    splits = ["val"] * held_out + ["test"] * held_out + ["train"] * (len(turns) - 2 * held_out)
    return dict(zip(turns, splits, strict=True))


def _image_name(number: int) -> str:
    return f"images/{number:06d}.jpg"


def _table(rows: Sequence[tuple[Vector, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "split", *GARMENT_ATTRIBUTES))
    for number, (vector, split) in enumerate(rows):
        writer.writerow((_image_name(number), split, *(vector[column] for column in GARMENT_ATTRIBUTES)))
    return text.getvalue()


def _write_images(write: partial[None], vectors: Sequence[Vector], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(write, range(len(vectors)), vectors)
        return
    # A forked copy of a process that runs threads (as torch does) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(write, range(len(vectors)), vectors, chunksize=_CHUNK)


def _write_image(folder: Path, seed: int, size: int, number: int, vector: Vector) -> None:
    image = garment_image(vector, seed, number, size)
    image.save(folder / _image_name(number), "JPEG", quality=_QUALITY)
