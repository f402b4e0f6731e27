"""Which images answer a question about a catalogue, decided from the true attributes.

The rule: every attribute that the captions ask for has an admissible value, and every other one
equals the reference's wherever both have one. An attribute that is unknown (``?``) for the
reference is not compared; one that is unknown for a candidate leaves the candidate undecided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dqecir.data.triplets import Positions

EMPTY, UNKNOWN, FIRST = 0, 1, 2
"""Codes of an attribute that does not apply, of an unknown one, and of the first value."""

Bools = NDArray[np.bool_]
Codes = NDArray[np.int32]
RequestedValues = Mapping[str, frozenset[str]]

_CHUNK = 512


@dataclass(frozen=True)
class CodedAttributes:
    """Attributes as integers: ``codes`` [columns, images], ``values[column][code - FIRST]`` its names."""

    columns: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    codes: Codes

    @classmethod
    def of(cls, attributes: Mapping[str, Sequence[str]]) -> CodedAttributes:
        """Code a table column -> values; values are numbered in alphabetical order."""
        names = tuple(tuple(sorted(set(column) - {"", "?"})) for column in attributes.values())
        rows = []
        for column, known in zip(attributes.values(), names, strict=True):
            code = {"": EMPTY, "?": UNKNOWN} | {name: FIRST + i for i, name in enumerate(known)}
            rows.append([code[value] for value in column])
        codes = np.array(rows, dtype=np.int32).reshape(len(names), -1)
        return cls(tuple(attributes), names, codes)

    def value(self, column: int, code: int) -> str:
        """The name of a code of a column."""
        return ("", "?", *self.values[column])[code]

    def admitted(self, column: int, references: Positions, asked: Sequence[RequestedValues]) -> Bools:
        """Which codes of a column satisfy each question: [questions, codes].

        ``references`` holds the reference of each question, ``asked`` its admissible values by
        column. ``UNKNOWN`` is admitted only where the column is not compared at all.
        """
        names = self.values[column]
        size = FIRST + len(names)
        keeps = np.eye(size, dtype=bool)
        keeps[:, EMPTY] = True
        keeps[[EMPTY, UNKNOWN]] = True
        table: Bools = keeps[self.codes[column, references]]
        for row, wanted in enumerate(asked):
            if self.columns[column] in wanted:
                admissible = wanted[self.columns[column]]
                table[row] = [False, False, *(name in admissible for name in names)]
        return table


def right_answers(
    coded: CodedAttributes, gallery: Positions, references: Positions, asked: Sequence[RequestedValues]
) -> Iterator[tuple[Positions, Positions]]:
    """Yield, for each question, the images of ``gallery`` that answer it and those left undecided.

    Both are positions, ascending; the reference is in neither.
    """
    tables = [
        _packed(coded.admitted(column, references, asked), coded.codes[column, gallery])
        for column in range(len(coded.columns))
    ]
    for start in range(0, len(references), _CHUNK):
        some = slice(start, start + _CHUNK)
        right = _satisfied([(yes, rows[some]) for yes, _, rows in tables])
        possible = _satisfied([(perhaps, rows[some]) for _, perhaps, rows in tables])
        for reference, yes, perhaps in zip(
            references[some], _unpacked(right, gallery), _unpacked(possible & ~right, gallery), strict=True
        ):
            yield yes[yes != reference], perhaps[perhaps != reference]


Bits = NDArray[np.uint8]


def _packed(table: Bools, codes: Codes) -> tuple[Bits, Bits, NDArray[np.intp]]:
    """Bit rows over the gallery, one for each distinct row of ``table``, and which row is whose.

    The second bit rows also hold the candidates whose value is unknown.
    """
    distinct, rows = np.unique(table, axis=0, return_inverse=True)
    yes = np.packbits(distinct[:, codes], axis=1)
    perhaps = np.packbits(distinct[:, codes] | (codes == UNKNOWN), axis=1)
    return yes, perhaps, rows.reshape(-1)


def _satisfied(conditions: Sequence[tuple[Bits, NDArray[np.intp]]]) -> Bits:
    result = conditions[0][0][conditions[0][1]]
    for bits, rows in conditions[1:]:
        result &= bits[rows]
    return result


def _unpacked(bits: Bits, gallery: Positions) -> list[Positions]:
    flags = np.unpackbits(bits, axis=1, count=gallery.size)
    rows, places = np.nonzero(flags)
    return np.split(gallery[places], np.searchsorted(rows, np.arange(1, len(bits))))
