"""Procedural garments: a catalogue of drawn clothes whose attributes are known exactly.

For trials, tests and first training on machines without data sets. ``families`` arranges the images
so that neither the reference image nor the text alone finds the target; ``independent`` spreads them
evenly over all attribute vectors, for the pre-training of encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from dqecir.synthetic.attribute_vectors import Vector
from dqecir.synthetic.drawn_catalogue import (
    ARRANGING,
    DRAWING,
    Arrangement,
    check_request,
    check_target,
    generator_of,
    split_in_turn,
    write_drawn,
)
from dqecir.synthetic.garment_drawing import render_garment
from dqecir.synthetic.garment_vectors import (
    GARMENT_ATTRIBUTES,
    GarmentItem,
    garment_families,
    independent_garments,
)


def garment_items(
    items: int,
    seed: int,
    arrangement: Arrangement = "families",
    split: str | None = None,
) -> list[tuple[Vector, str]]:
    """Attribute vector and split of every item, in the order of their numbers; nothing is drawn.

    The items are spread evenly over the three garments and shuffled. Without ``split``, whole
    families go to train, val and test (80/10/10, and one at least where there are three); else all
    items get ``split``. The same arguments give the same items.
    Raises ``DataError`` for an argument that cannot be used.
    """
    check_request("garments", items, arrangement, split)
    rng = generator_of(seed, ARRANGING)
    found: list[GarmentItem] = []
    kinds = GARMENT_ATTRIBUTES["garment"]
    for place, garment in enumerate(kinds):
        share = items // len(kinds) + (place < items % len(kinds))
        first = found[-1].family + 1 if found else 0
        if arrangement == "families":
            found.extend(garment_families(share, garment, rng, first))
        else:
            found.extend(independent_garments(share, garment, rng, first))
    splits = _split_families(found, rng)
    rows = [(item.attributes, split or splits[item.family]) for item in found]
    return [rows[place] for place in rng.permutation(len(rows))]


def garment_image(attributes: Mapping[str, str], seed: int, number: int, size: int = 64) -> Image.Image:
    """Draw item ``number`` of a seed: RGB, ``size`` x ``size`` pixels; no other item has a say in it."""
    rng = generator_of(seed, DRAWING, number)
    return render_garment(attributes, rng, size)


def write_garments(
    folder: Path,
    items: int,
    seed: int,
    size: int = 64,
    split: str | None = None,
    arrangement: Arrangement = "families",
    quiet: bool = False,
) -> Path:
    """Write a catalogue of ``items`` garments: ``attributes.csv`` and ``images/000000.jpg`` onwards.

    ``size`` is the side of the images in pixels (64 to 512); the other arguments are those of
    ``garment_items``, and item ``n`` is ``garment_image(attributes, seed, n, size)`` as JPEG. The same
    arguments give the same bytes. Returns ``folder``.
    Raises ``DataError`` for an argument that cannot be used and for a folder that holds anything.
    """
    folder = Path(folder)
    check_target(folder, "garments", size)
    rows = [{"split": part, **vector} for vector, part in garment_items(items, seed, arrangement, split)]
    return write_drawn(
        folder, "garments", rows, lambda row, number: garment_image(row, seed, number, size), quiet
    )


def _split_families(items: Sequence[GarmentItem], rng: np.random.Generator) -> dict[int, str]:
    """Family -> split; the garments take turns, so that every split holds about as much of each."""
    by_garment: dict[str, set[int]] = {}
    for item in items:
        by_garment.setdefault(item.attributes["garment"], set()).add(item.family)
    drawn = [rng.permutation(sorted(families)).tolist() for families in by_garment.values()]
    turns = [family for turn in zip_longest(*drawn) for family in turn if family is not None]
    return split_in_turn(turns)
