"""Words about columns of numbers that pictures do not show: prices and years."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from dqecir.data.column_roles import PRICES

Direction = Literal["less", "more"]

MONEY = PRICES
YEARS = frozenset({"year", "season", "date", "jahr", "année", "año", "anno"})
"""Words in a column's name that show that its numbers are years."""
SEEN = r"[\s-]+(?:looks?|looking|styles?|designs?|fashion)\b"
"""Words after which a comparison is about the appearance: "an older look" is no year."""
_FAMILIES: tuple[tuple[frozenset[str], dict[Direction, tuple[str, ...]]], ...] = (
    (
        MONEY,
        {"less": ("cheaper", "less expensive"), "more": ("more expensive", "pricier")},
    ),
    (YEARS, {"less": ("older",), "more": ("newer", "more recent")}),
)


def names_a_number(column: str) -> bool:
    """Return whether a column's name means a number that pictures do not show: ``price``, ``sale_year``."""
    return any(set(column_words(column)) & names for names, _ in _FAMILIES)


def by_name(columns: Iterable[str]) -> list[str]:
    """Sort columns by the number of words in their names, then by name.

    Words such as "cheaper" mean the first column of their kind.
    """
    return sorted(columns, key=lambda column: (len(column_words(column)), column.casefold()))


def comparisons(column: str, direction: Direction | None = None) -> tuple[str, ...]:
    """Return the words that compare this column alone, such as "cheaper" for a price; empty for most columns.

    Default of ``direction``: the words of both directions.
    """
    words = set(column_words(column))
    return tuple(
        phrase
        for names, said in _FAMILIES
        if words & names
        for way, phrases in said.items()
        if direction in (None, way)
        for phrase in phrases
    )


def column_words(column: str) -> list[str]:
    """Return the words of a column's name, in lower case."""
    return re.findall(r"[^\W_]+", column.casefold())
