"""Drawn garments: a catalogue of clothes whose attributes are known exactly.

It is for experiments, tests and training on machines without data sets. With ``families`` neither the
reference image nor the text alone is enough to find the target; ``independent`` spreads pictures evenly over
all attribute vectors, for pretraining encoders.
"""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from dqecir.synthetic.drawn_catalogue import Arrangement, DrawnCatalogue, Items, Row
from dqecir.synthetic.garment_drawing import render_garment
from dqecir.synthetic.garment_vectors import GARMENT_ATTRIBUTES, garment_families, independent_garments


def _arranged(items: int, arrangement: Arrangement, rng: np.random.Generator) -> tuple[Items, list[int]]:
    """Return ``items`` items, spread evenly over the three garments, and the families in an order.

    If families are given to splits in that order, each split gets families of all three garments.
    """
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
