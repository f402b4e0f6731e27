"""Procedural garments: a catalogue of drawn clothes whose attributes are known exactly.

For experiments, tests and training on machines without data sets. ``families`` arranges the images
so that neither the reference image nor the text alone finds the target; ``independent`` spreads them
evenly over all attribute vectors, for the pre-training of encoders.
"""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from dqecir.synthetic.drawn_catalogue import Arrangement, DrawnCatalogue, Items, Row
from dqecir.synthetic.garment_drawing import render_garment
from dqecir.synthetic.garment_vectors import GARMENT_ATTRIBUTES, garment_families, independent_garments


def _arranged(items: int, arrangement: Arrangement, rng: np.random.Generator) -> tuple[Items, list[int]]:
    """Spread the items evenly over the three garments, and order families so that splits get all of them."""
    kinds = GARMENT_ATTRIBUTES["garment"]
    draw = garment_families if arrangement == "families" else independent_garments
    found: list[tuple[Row, int]] = []
    drawn: list[list[int]] = []
    for place, garment in enumerate(kinds):
        first = found[-1][1] + 1 if found else 0
        own = draw(items // len(kinds) + (place < items % len(kinds)), garment, rng)
        found.extend((vector, first + family) for vector, family in own)
        drawn.append(list(range(first, found[-1][1] + 1)))
    turns = zip_longest(*(rng.permutation(families).tolist() for families in drawn if families))
    return found, [family for turn in turns for family in turn if family is not None]


GARMENTS = DrawnCatalogue("garments", 64, _arranged, render_garment)
