"""Decide from true attributes which images are right answers to a question.

An image is right if it has a requested value in every attribute that the captions request, and the
reference's value in every other attribute, as far as both values exist. An attribute that is unknown for the
reference is not compared; if it is unknown for a candidate, the candidate is undecided: neither right nor
wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dqecir.data.cells import UNKNOWN, UNKNOWN_CODE, values_of
from dqecir.data.triplets import Positions

EMPTY_CODE, FIRST_CODE = 0, 1
"""Codes of an attribute that does not apply (is empty), and of an attribute's first value."""

Bools = NDArray[np.bool_]
Codes = NDArray[np.int32]
RequestedValues = Mapping[str, frozenset[str]]

_CHUNK = 512


@dataclass(frozen=True)
class CodedAttributes:
    """Attributes as integers: ``codes`` [columns, images] instead of values.

    A code is ``EMPTY_CODE`` if the attribute does not apply, and ``UNKNOWN_CODE`` (-1) if it is unknown;
    otherwise the value is ``values[column][code - FIRST_CODE]``. In an array with one entry for each code,
    the last entry is that of ``UNKNOWN_CODE``.
    """

    columns: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    codes: Codes

    @classmethod
    def of(cls, attributes: Mapping[str, Sequence[str]]) -> CodedAttributes:
        """Encode a table (column -> one value for each image); values are numbered in alphabetical order."""
        names = tuple(map(tuple, values_of(attributes).values()))
        rows = []
        for column, known in zip(attributes.values(), names, strict=True):
            code = {name: i for i, name in enumerate(("", *known))} | {UNKNOWN: UNKNOWN_CODE}
            rows.append([code[value] for value in column])
        codes = np.array(rows, dtype=np.int32).reshape(len(names), -1)
        return cls(tuple(attributes), names, codes)

    def value(self, column: int, code: int) -> str:
        """Return the value of a code in the column with the number ``column``."""
        return ("", *self.values[column], UNKNOWN)[code]

    def admitted(self, column: int, references: Positions, asked: Sequence[RequestedValues]) -> Bools:
        """Return a mask [questions, codes]: which values of the column satisfy each question.

        The codes are ``EMPTY_CODE``, those of the values, and ``UNKNOWN_CODE`` last. ``references`` are the
        positions of the questions' references, ``asked`` their requested values by column. An unknown value
        satisfies a question only if its text does not request the column and the reference's value is unknown
        or empty.
        """
        names = self.values[column]
        keeps = np.eye(len(names) + 2, dtype=bool)
        keeps[:, EMPTY_CODE] = True
        keeps[[EMPTY_CODE, UNKNOWN_CODE]] = True
        table: Bools = keeps[self.codes[column, references]]
        for row, wanted in enumerate(asked):
            if self.columns[column] in wanted:
                admissible = wanted[self.columns[column]]
                table[row] = [False, *(name in admissible for name in names), False]
        return table


def right_answers(
    coded: CodedAttributes, gallery: Positions, references: Positions, asked: Sequence[RequestedValues]
) -> Iterator[tuple[Positions, Positions]]:
    """Yield two arrays for each question: the images of ``gallery`` that are right, and the undecided ones.

    Both are positions in ascending order, without the reference. ``coded`` are the true attributes;
    ``asked``: column -> requested values of each question.
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


def wrong_as_asked(
    coded: CodedAttributes, images: Positions, references: Positions, asked: Sequence[RequestedValues]
) -> Bools:
    """Return a mask [Q, K] of the images that lack a requested value, but are otherwise right answers.

    ``images`` [Q, K] are positions. Such images are hard negatives: the reference unchanged, or with another
    change. An unknown value never counts as a lacking one, and excludes an image if the reference's value
    must stay. ``coded`` are the true attributes; ``asked``: column -> requested values of each question.
    """
    lacks, differs = np.zeros(images.shape, dtype=bool), np.zeros(images.shape, dtype=bool)
    for column, name in enumerate(coded.columns):
        shown = coded.codes[column, images]
        met = np.take_along_axis(coded.admitted(column, references, asked), shown, axis=1)
        requested = np.array([name in wanted for wanted in asked])[:, None]
        lacks |= ~met & requested & (shown != UNKNOWN_CODE)
        differs |= ~met & ~requested
    return lacks & ~differs


Bits = NDArray[np.uint8]


def _packed(table: Bools, codes: Codes) -> tuple[Bits, Bits, NDArray[np.intp]]:
    """Return two bit tables over the gallery, and for each row of ``table`` the number of its row in them.

    Equal rows of ``table`` are stored once. The second bit table also has the candidates with unknown values.
    """
    distinct, rows = np.unique(table, axis=0, return_inverse=True)
    yes = np.packbits(distinct[:, codes], axis=1)
    perhaps = np.packbits(distinct[:, codes] | (codes == UNKNOWN_CODE), axis=1)
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
