"""Take the numeric constraints out of a text and into the filter: "cheaper", "under 40 euros"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dqecir.data.payload_fields import RESERVED
from dqecir.index.contract import Index
from dqecir.index.filters import Compare, Filter, all_of, conjuncts, has_numbers
from dqecir.index.payload_columns import least_number
from dqecir.language.numeric_constraints import NumericConstraint, constraint_reader, speaks_of_numbers


@dataclass(frozen=True)
class RequestText:
    """A text and its filter, apart."""

    text: str
    """What is left for a model."""
    where: Filter | None
    constraints: tuple[NumericConstraint, ...] = ()
    """All that were found. One without a number compares with a number of the reference that is not known,
    and is not part of the filter."""


def read_text(text: str, index: Index, item: str | None, where: Filter | None = None) -> RequestText:
    """Take what a text says of an index's numbers out of it, and add it to the filter ``where``.

    ``item`` is the reference's id where it is an item; its payload is read only where the text compares with
    it. A text about no number of the index is left as it is.
    """
    if not speaks_of_numbers(text):
        return RequestText(text, where)
    columns = index.columns()
    names = {name for part in columns for name in part.names} - RESERVED
    rest, constraints = constraint_reader(tuple(sorted(names))).parted(text)
    numeric = {one.column for one in constraints if has_numbers(columns, one.column)}
    if numeric != {one.column for one in constraints}:
        rest, constraints = constraint_reader(tuple(sorted(numeric))).parted(text)
    if not constraints:
        return RequestText(text, where)
    compares = any(one.number is None for one in constraints)
    payload = (index.payload(item) if compares and item is not None else None) or {}
    constraints = tuple(_completed(one, payload) for one in constraints)
    comparisons = [
        Compare(one.column, one.order, one.number) for one in constraints if one.number is not None
    ]
    return RequestText(rest, all_of([*conjuncts(where), *comparisons]), constraints)


def _completed(constraint: NumericConstraint, payload: Mapping[str, Any]) -> NumericConstraint:
    if constraint.number is not None:
        return constraint
    number = least_number(payload.get(constraint.column))
    return constraint if math.isnan(number) else replace(constraint, number=number)
