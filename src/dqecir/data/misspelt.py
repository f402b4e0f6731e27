"""Find values of a column that are probably misspelt: they are rare, and similar to a common value."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from dqecir.data.cells import folded

_RARE = 2
_COMMON = 20
"""The right spelling must be at least this many times as common as the wrong one."""
_ALIKE = 0.84
_SHORTEST = 4
_MOST = 2000
"""Columns with more different values than this hold texts, and are not examined."""


def misspelt_values(counts: Mapping[str, int]) -> dict[str, str]:
    """Return probably misspelt value -> right value; ``counts``: value -> how often it occurs.

    The result is empty if the column has more than 2,000 different values.

    >>> misspelt_values({"green": 214, "gren": 1, "red": 80})
    {'gren': 'green'}
    """
    if len(counts) > _MOST:
        return {}
    common = {folded(value): value for value, count in counts.items() if count >= _COMMON and _is_word(value)}
    found = {}
    for value, count in counts.items():
        if count <= _RARE and _is_word(value) and folded(value) not in common:
            close = difflib.get_close_matches(folded(value), common, n=1, cutoff=_ALIKE)
            if close and counts[common[close[0]]] >= _COMMON * count:
                found[value] = common[close[0]]
    return found


def _is_word(value: str) -> bool:
    return len(value) >= _SHORTEST and not any(map(str.isdigit, value))
