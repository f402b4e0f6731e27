"""List the items of an exact index page by page, one a product, without reading ids or payloads of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dqecir.data.payload_fields import PRODUCT
from dqecir.index.filters import Filter
from dqecir.index.segments import Segment

Places = NDArray[np.int64]
"""Rows of items, counted through all segments in the order of adding."""


def listed_places(segments: Sequence[Segment], products: Places, where: Filter | None) -> Places:
    """Return the places of the living items that a filter allows, the first of each product.

    ``products`` are those of :func:`product_numbers`.
    """
    allowed = [segment.allowed(where) for segment in segments]
    places = np.flatnonzero(np.concatenate(allowed)) if allowed else np.empty(0, dtype=np.int64)
    numbers = products[places]
    # Of the same product the first is written last.
    first = np.zeros(int(products.max(initial=-1)) + 1, dtype=np.int64)
    shown = np.flatnonzero(numbers >= 0)[::-1]
    first[numbers[shown]] = shown
    kept = numbers < 0
    kept[first[numbers[shown]]] = True
    return places[kept]


def product_numbers(segments: Sequence[Segment]) -> Places:
    """Return a number for the product of every item, -1 for an item without a product."""
    known: dict[object, int] = {}
    found = [np.empty(0, dtype=np.int64)]
    for segment in segments:
        column = segment.items.columns[PRODUCT]
        numbers = [-1, *(known.setdefault(product, len(known)) for product in column.values)]
        found.append(np.array(numbers, dtype=np.int64)[column.codes])
    return np.concatenate(found)


def drawn_order(segments: Sequence[Segment], places: Places, seed: int) -> NDArray[np.uint64]:
    """Return a number for each place that orders the items: drawn by the seed and the id alone.

    So the order holds while other items come and go.
    """
    hashes = np.concatenate([segment.items.hashes_by_row for segment in segments])[places]
    # The finaliser of splitmix64, which mixes all bits.
    mixed = hashes ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
