"""Tell unknown cells of a table from values, and read cells and payload values as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

UNKNOWN = "?"
"""The cell of an unknown value. The cell of an attribute that does not apply is empty."""

UNKNOWN_CODE = -1
"""The code of :data:`UNKNOWN` wherever values are integers."""

_NUMBER = re.compile(r"[€$£¥]?\s*(-?\d[\d.,  ]*)\s*(?:[€$£¥]|[A-Za-z]{2,3}\.?)?")


def has_value(cell: str) -> bool:
    """Return whether a cell holds a value: it is neither empty nor unknown."""
    return cell not in ("", UNKNOWN)


def values_of(table: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return the distinct values of each column, sorted."""
    return {column: sorted(filter(has_value, set(cells))) for column, cells in table.items()}


def number_in(cell: str) -> float | None:
    """The number that a cell holds, with a currency or a unit perhaps; ``None`` for anything else.

    >>> number_in("1,299.50 EUR"), number_in("€ 12,5"), number_in("XL")
    (1299.5, 12.5, None)
    """
    found = _NUMBER.fullmatch(cell.strip())
    if not found:
        return None
    digits = re.sub(r"\s", "", found[1])
    if digits.rfind(",") > digits.rfind(".") > -1:  # 1.299,50
        digits = digits.replace(".", "")
    elif re.search(r",\d{3}(?:\D|$)", digits):
        digits = digits.replace(",", "")
    try:
        return float(digits.replace(",", "."))
    except ValueError:
        return None


def as_number(value: object) -> float:
    """A finite number, or NaN; the text of one counts, because a table holds texts."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def measured(value: object) -> float:
    """What an order compares: a number as people write one, with a currency or a unit perhaps, or NaN."""
    number = as_number(value)
    if math.isnan(number) and isinstance(value, str):
        found = number_in(value)
        return math.nan if found is None else found
    return number
