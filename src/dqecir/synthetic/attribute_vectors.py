"""Check, compare and draw attribute vectors: the attributes of one drawn garment or scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dqecir.errors import DataError
from dqecir.settings import nearest

Vector = dict[str, str]
"""The attributes of a drawn garment or scene: column -> value, in the order of the columns."""


def check_values(
    what: str, attributes: Mapping[str, str], columns: Mapping[str, Sequence[str]], optional: str
) -> None:
    """Raise ``DataError`` if ``attributes`` lack a column, or have a value that is not in ``columns``.

    ``columns``: column -> its values. ``what`` is the kind of object, such as garment, for the error. Only
    the column ``optional`` may be empty.
    """
    for column, values in columns.items():
        if column not in attributes:
            raise DataError(f"a {what} needs the attribute {column!r}{nearest(column, attributes)}")
        value = attributes[column]
        if value not in values and not (value == "" and column == optional):
            raise DataError(f"a {what} has no {column} {value!r}{nearest(value, values)}")


def edits_between(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    """Return the number of attributes that have different values in two vectors of the same columns.

    A column that is empty in one of them does not count, such as the colour of an object that only one has.
    """
    return sum(one[column] != other[column] and bool(one[column] and other[column]) for column in one)


def any_of(values: Sequence[str], rng: np.random.Generator) -> str:
    """Return a random one of the values, all with the same chance."""
    return values[int(rng.integers(len(values)))]


def without(values: Sequence[str], value: str) -> list[str]:
    """Return all values except ``value``."""
    return [other for other in values if other != value]
