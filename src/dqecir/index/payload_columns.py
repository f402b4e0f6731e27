"""Payloads by column: an array for each attribute, with which filters compare fast."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dqecir.data.cells import as_number, folded, measured

Mask = NDArray[np.bool_]
Value = str | int | float
"""Types of values that filters compare; a value of any other type counts as missing."""


def values_in(value: object) -> list[Value]:
    """Return the comparable values in a payload's field, which holds one value or a list of values."""
    own = value if isinstance(value, list) else [value]
    return [one for one in own if isinstance(one, str | int | float)]


def numbers_in(value: object) -> list[float]:
    """Return the numbers in a payload's field, as people write them."""
    return [number for one in values_in(value) if math.isfinite(number := measured(one))]


def least_number(value: object) -> float:
    """Return the number in a payload's field.

    Of several numbers it is the smallest (a product's "from" price); without a number it is NaN.
    """
    return min(numbers_in(value), default=math.nan)


@dataclass(frozen=True)
class PayloadColumn:
    """One attribute of N items.

    ``codes`` [N]: 0 for an item without it, else 1 + the place of its value in ``values``.

    If an item has several values, its entry in ``values`` is the list of them.
    """

    codes: NDArray[np.unsignedinteger[Any]]
    values: Sequence[Value | Sequence[Value]]

    def matching(self, wanted: Sequence[str]) -> Mask:
        """Return a mask [N] of the items that have one of the values ``wanted``.

        Values are equal if their texts are, ignoring case and Unicode form, or if both are equal plain
        numbers. A code such as ``007`` is equal only to itself.
        """
        table = np.zeros(1 + len(self.values), dtype=np.bool_)
        for text in wanted:
            for key in (folded(text), as_number(text)):
                table[self._codes_by_key.get(key, [])] = True
        return table[self.codes]

    def between(self, bounds: Iterable[tuple[np.ufunc, float]]) -> Mask:
        """Return a mask [N] of the items with a number that fulfils all comparisons in ``bounds``.

        A comparison is a numpy function such as ``np.less`` and the number to compare with.
        """
        numbers, codes, _ = self.numbers
        holds = np.logical_and.reduce([order(numbers, bound) for order, bound in bounds])
        table = np.zeros(1 + len(self.values), dtype=np.bool_)
        table[codes[holds]] = True
        return table[self.codes]

    def changed(self, rows: NDArray[np.int64], newer: PayloadColumn) -> PayloadColumn:
        """Return the column with the values of ``newer``, a column of M items, in the rows ``rows`` [M].

        Values that no item has any more are left out.
        """
        values = [*self.values, *newer.values]
        codes = self.codes.astype(np.int64)
        codes[rows] = np.where(newer.codes > 0, newer.codes.astype(np.int64) + len(self.values), 0)
        used = np.bincount(codes, minlength=1 + len(values)) > 0
        used[0] = False
        kept = [value for value, is_used in zip(values, used[1:].tolist(), strict=True) if is_used]
        return PayloadColumn(
            np.where(used, used.cumsum(), 0).astype(np.min_scalar_type(len(kept)))[codes], kept
        )

    @property
    def has_numbers(self) -> bool:
        """Whether any item has a number."""
        return len(self.numbers[0]) > 0

    @cached_property
    def numbers(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """The numbers among all values [M], the code of each [M], and the codes of all other values."""
        numbers, codes, wordy = array("d"), array("q"), array("q")
        for code, value in enumerate(self.values, start=1):
            for one in value if isinstance(value, list) else (value,):
                number = measured(one)
                if math.isfinite(number):
                    numbers.append(number)
                    codes.append(code)
                else:
                    wordy.append(code)
        return np.array(numbers), np.array(codes), np.array(wordy)

    @cached_property
    def _codes_by_key(self) -> dict[str | float, list[int]]:
        """Text in lower case, or number -> the codes of the values that are equal to it."""
        found: dict[str | float, list[int]] = {}
        for code, value in enumerate(self.values, start=1):
            for one in values_in(value):
                found.setdefault(folded(str(one)), []).append(code)
                if not math.isnan(number := as_number(one)):
                    found.setdefault(number, []).append(code)
        return found


class ColumnCoder:
    """Builds the column of one attribute from items that are added one after the other."""

    def __init__(self) -> None:
        # 1, 1.0 and True are equal as keys, but their texts differ.
        self._codes: dict[tuple[tuple[type, Value], ...], int] = {}
        self._values: list[Value | Sequence[Value]] = []
        self._rows, self._row_codes = array("q"), array("q")

    def add(self, row: int, value: object) -> None:
        """Add the value (or the list of values) of the item in ``row``."""
        own = values_in(value)
        if own:
            key = tuple((type(one), one) for one in own)
            if key not in self._codes:
                self._codes[key] = 1 + len(self._values)
                self._values.append(own[0] if len(own) == 1 else own)
            self._rows.append(row)
            self._row_codes.append(self._codes[key])

    def column(self, count: int) -> PayloadColumn:
        """Return the column of all items so far; ``count`` is their number."""
        codes = np.zeros(count, dtype=np.min_scalar_type(len(self._codes)))
        codes[np.frombuffer(self._rows, dtype=np.int64)] = np.frombuffer(self._row_codes, dtype=np.int64)
        return PayloadColumn(codes, self._values)


class Columns:
    """The columns of N items; a column is read when a filter first needs it."""

    def __init__(self, names: Collection[str], count: int, read: Callable[[str], PayloadColumn]) -> None:
        """Take the names of N = ``count`` items' columns; ``read`` returns the column of a name."""
        self.names = frozenset(names)
        self._count, self._read = count, read
        self._columns: dict[str, PayloadColumn] = {}

    @classmethod
    def of(cls, payloads: Sequence[Mapping[str, Any]]) -> Self:
        """Return the columns of payloads that are in memory."""

        def coded(name: str) -> PayloadColumn:
            coder = ColumnCoder()
            for row, payload in enumerate(payloads):
                coder.add(row, payload.get(name))
            return coder.column(len(payloads))

        return cls({name for payload in payloads for name in payload}, len(payloads), coded)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> PayloadColumn:
        """Return the column of an attribute, whose name is found in any case; empty if no item has it."""
        name = self.written(name)
        if name not in self._columns:
            found = self._read(name) if name in self.names else ColumnCoder().column(self._count)
            self._columns[name] = found
        return self._columns[name]

    def exactly(self, name: str) -> PayloadColumn:
        """Return the column with exactly this name; empty if no item has it."""
        return self[name] if name in self.names else ColumnCoder().column(self._count)

    def __contains__(self, name: str) -> bool:
        """Return whether any item has an attribute with this name, in any case."""
        return self.written(name) in self.names

    def written(self, name: str) -> str:
        """Return an attribute's name as the items spell it; an unknown name is returned unchanged."""
        return name if name in self.names else self._by_folded.get(folded(name), name)

    @cached_property
    def _by_folded(self) -> dict[str, str]:
        return {folded(name): name for name in sorted(self.names)}
