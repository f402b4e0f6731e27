"""Procedural garments: a catalogue of drawn clothes whose attributes are known exactly.

For trials, tests and first training on machines without data sets. ``families`` arranges the images
so that neither the reference image nor the text alone finds the target; ``independent`` spreads them
evenly over all attribute vectors, for the pre-training of encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from dqecir.synthetic.drawn_catalogue import Arrangement, DrawnCatalogue, Row
from dqecir.synthetic.garment_drawing import render_garment
from dqecir.synthetic.garment_vectors import (
    GARMENT_ATTRIBUTES,
    GarmentItem,
    garment_families,
    independent_garments,
)


def _arranged(
    items: int, arrangement: Arrangement, rng: np.random.Generator
) -> tuple[list[tuple[Row, int]], list[int]]:
    """Spread the items evenly over the three garments."""
    found: list[GarmentItem] = []
    kinds = GARMENT_ATTRIBUTES["garment"]
    draw = garment_families if arrangement == "families" else independent_garments
    for place, garment in enumerate(kinds):
        share = items // len(kinds) + (place < items % len(kinds))
        found.extend(draw(share, garment, rng, found[-1].family + 1 if found else 0))
    return [(item.attributes, item.family) for item in found], _turns(found, rng)


def _turns(items: Sequence[GarmentItem], rng: np.random.Generator) -> list[int]:
    """Families of the garments in turn, so that every split holds about as much of each."""
    by_garment: dict[str, set[int]] = {}
    for item in items:
        by_garment.setdefault(item.attributes["garment"], set()).add(item.family)
    drawn = [rng.permutation(sorted(families)).tolist() for families in by_garment.values()]
    return [family for turn in zip_longest(*drawn) for family in turn if family is not None]


GARMENTS = DrawnCatalogue("garments", 64, _arranged, render_garment)
