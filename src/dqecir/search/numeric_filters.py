"""What a text says of numbers, as a filter: "cheaper" than the reference, "under 40 euros"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dqecir.data.cells import measured
from dqecir.index.contract import Index
from dqecir.index.filters import And, Compare, Filter, has_numbers
from dqecir.language.numeric_constraints import NumericConstraint, constraint_reader, speaks_of_numbers


@dataclass(frozen=True)
class Bounded:
    """A text's own filter, taken out of it."""

    text: str
    """What is left for a model."""
    where: Filter | None
    bounds: tuple[NumericConstraint, ...] = ()
    """What was said; one without a number is a comparison with a reference whose number is not known, and is
    not part of the filter."""


def bounded(
    text: str,
    index: Index,
    reference: Callable[[], Mapping[str, Any] | None],
    where: Filter | None = None,
) -> Bounded:
    """Take what a text says of an index's numbers out of it, and into the filter.

    ``reference`` gives what is known of the item that the text speaks of; it is asked only where the text
    compares with it. A text about no number of the index is left as it is.
    """
    if not speaks_of_numbers(text):
        return Bounded(text, where)
    columns = index.columns()
    names = {name for part in columns for name in part.names} - {"path"}
    rest, bounds = constraint_reader(tuple(sorted(names))).parted(text)
    numeric = {bound.column for bound in bounds if has_numbers(columns, bound.column)}
    if numeric != {bound.column for bound in bounds}:
        rest, bounds = constraint_reader(tuple(sorted(numeric))).parted(text)
    if not bounds:
        return Bounded(text, where)
    known = (reference() or {}) if any(bound.number is None for bound in bounds) else {}
    bounds = tuple(
        replace(bound, number=_of_reference(known.get(bound.column))) if bound.number is None else bound
        for bound in bounds
    )
    for bound in bounds:
        if bound.number is not None:
            compare = Compare(bound.column, bound.order, bound.number)
            where = compare if where is None else And(where, compare)
    return Bounded(rest, where, bounds)


def _of_reference(value: object) -> float | None:
    number = measured(value)
    return None if math.isnan(number) else number
