"""Facts about the attributes of an index: their values with counts, and the range and spread of numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dqecir.data.cells import measured
from dqecir.index.payload_columns import Mask, PayloadColumn, Value, values_in

SOME = 1000
"""Number of different values of an attribute that are read to guess its role."""


class NumberRange(NamedTuple):
    """Smallest and largest number of an attribute, and the number of items in equal bins between them."""

    least: float
    most: float
    counts: list[int]


@dataclass(frozen=True)
class ColumnFacts:
    """Facts about one attribute of an index."""

    some: Sequence[str]
    """Some of its different values as texts, at most :data:`SOME`."""
    values: Mapping[str, int] | None
    """Value -> number of items that have it; None if there are too many different values."""
    numbers: NumberRange | None
    """The range of its numbers; None if some item has a value that is not a number."""


def facts_of_counts(counts: Mapping[str, int], few: int, bins: int) -> ColumnFacts:
    """Return the facts about an attribute from ``counts``: value -> number of items that have it.

    ``few``: if there are more different values, the result has ``values=None``. ``bins``: number of equal
    intervals in which numbers are counted.
    """
    numbers = np.array([measured(value) for value in counts])
    spread = (
        number_range(numbers, np.array(list(counts.values())), bins) if np.isfinite(numbers).all() else None
    )
    return ColumnFacts(list(counts)[:SOME], counts if len(counts) <= few else None, spread)


def facts_of_columns(parts: Sequence[tuple[PayloadColumn, Mask]], few: int, bins: int) -> ColumnFacts | None:
    """Return the facts about an attribute from all segments of an index; None if no item has a value.

    Each of ``parts`` is the attribute's column in one segment, and a mask [N] of the items that are not
    deleted. ``few`` and ``bins`` as in :func:`facts_of_counts`. Only if the first :data:`SOME` different
    values are all numbers, the other values are read too.
    """
    counted = [
        (column, np.bincount(column.codes[alive], minlength=1 + len(column.values)))
        for column, alive in parts
    ]
    counts: Counter[str] = Counter()
    for value, count in _living(counted):
        counts[str(value)] += count
        if len(counts) > max(few, SOME):
            break
    if not counts:
        return None
    values = counts if len(counts) <= few else None
    return ColumnFacts(list(counts)[:SOME], values, _spread(counted, bins))


def _spread(counted: Sequence[tuple[PayloadColumn, NDArray[np.int64]]], bins: int) -> NumberRange | None:
    """Return the range of an attribute's numbers; None if some item has a value that is not a number.

    ``counted``: for each segment, the attribute's column, and how many items have each of its codes.
    """
    if not all(math.isfinite(measured(value)) for value, _ in islice(_living(counted), SOME)):
        return None
    parts = [(*column.numbers, own) for column, own in counted]
    if any(own[wordy].any() for *_, wordy, own in parts):
        return None
    numbers = np.concatenate([numbers for numbers, *_ in parts])
    counts = np.concatenate([own[codes] for _, codes, _, own in parts])
    return number_range(numbers, counts, bins)


def number_range(numbers: NDArray[np.float64], counts: NDArray[np.int64], bins: int) -> NumberRange:
    """Return the range of ``numbers`` [M], and how many items are in each of ``bins`` equal intervals.

    ``counts`` [M]: how many items have each of the numbers; at least one of them must be above 0.
    """
    numbers, counts = numbers[counts > 0], counts[counts > 0]
    least, most = float(numbers.min()), float(numbers.max())
    places = np.zeros(len(numbers), dtype=np.int64)
    if most > least:
        places = np.minimum(bins * (numbers - least) / (most - least), bins - 1).astype(np.int64)
    found = np.bincount(places, weights=counts, minlength=bins)
    return NumberRange(least, most, found.astype(np.int64).tolist())


def _living(counted: Sequence[tuple[PayloadColumn, NDArray[np.int64]]]) -> Iterator[tuple[Value, int]]:
    """Yield each value that some item has, and the number of these items.

    A value that several segments list is yielded several times. ``counted`` as in :func:`_spread`.
    """
    for column, counts in counted:
        for code in np.flatnonzero(counts[1:]).tolist():
            for value in values_in(column.values[code]):
                yield value, int(counts[code + 1])
