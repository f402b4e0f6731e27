"""What a search adds to the scores of items besides the query: for their cells (values) and for words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dqecir.data.column_roles import MANY_VALUES, holds_text
from dqecir.data.payload_fields import RESERVED
from dqecir.index.item_text import ChangedText, StoredText, terms_of
from dqecir.index.payload_columns import Columns

SATURATION = 1.2
"""BM25's k1, as in SQLite: the larger, the more further occurrences of a word count."""
LENGTH = 0.75
"""BM25's b, as in SQLite: the larger, the less a word counts in a long text."""

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class CellPreference:
    """What is added to the score of an item, depending on its value in one column."""

    column: str
    values: Mapping[str, float]
    """Value -> the number that it adds."""
    others: float = 0.0
    """The number that any other value adds."""

    def scaled(self, unit: float) -> CellPreference:
        """Return the preference with its numbers multiplied by ``unit``."""
        values = {value: unit * gain for value, gain in self.values.items()}
        return CellPreference(self.column, values, unit * self.others)

    def __bool__(self) -> bool:
        """Return whether any number differs from 0."""
        return bool(self.others or any(self.values.values()))

    def added(self, columns: Columns) -> Scores:
        """Return what is added to the scores of the N items of ``columns`` [N]; 0 for one without a value."""
        column = columns[self.column]
        found = np.where(column.codes > 0, np.float32(self.others), np.float32(0))
        for value, gain in self.values.items():
            found[column.matching((value,))] = gain
        return found


@dataclass(frozen=True)
class Preference:
    """What one search adds to the scores of items: the sum of all its parts."""

    cells: tuple[CellPreference, ...] = ()
    words: tuple[str, ...] = ()
    """Words to look for in titles, descriptions and other texts."""
    word_weight: float = 0.0
    """The number that is added for a text of mean length that has each word once; words that no text has do
    not count."""

    def scaled(self, unit: float) -> Preference:
        """Return the preference with all of its numbers multiplied by ``unit``."""
        return Preference(
            tuple(cell.scaled(unit) for cell in self.cells), self.words, unit * self.word_weight
        )

    def of_cells(self, columns: Columns) -> Scores:
        """Return what the values in ``columns`` add to the scores of N items [N], without words."""
        return sum((cell.added(columns) for cell in self.cells), np.zeros(len(columns), dtype=np.float32))

    def __bool__(self) -> bool:
        """Return whether anything can be added."""
        return bool(self.cells or self.words)


class ItemTexts(NamedTuple):
    """The words of one segment, its columns, and a mask [N] of its items that are not deleted."""

    stored: StoredText | ChangedText
    columns: Columns
    alive: NDArray[np.bool_]


@dataclass(frozen=True)
class CatalogueText:
    """The words of all items of an index, ranked by BM25."""

    segments: Sequence[ItemTexts]
    _idf: dict[str, float] = field(default_factory=dict)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Sorted names of the columns with texts, such as titles, whose words are searched."""
        names = sorted({name for part in self.segments for name in part.stored.lengths} - RESERVED)
        return tuple(name for name in names if holds_text(name, self._values(name)))

    def _values(self, name: str) -> list[str]:
        """Return some different values of a column, to judge whether it holds texts."""
        found: dict[str, None] = {}
        for value in chain.from_iterable(part.columns[name].values for part in self.segments):
            found[str(value)] = None
            if len(found) > MANY_VALUES:
                break
        return list(found)

    def knows(self, word: str) -> bool:
        """Return whether the word occurs in a text of some item that is not deleted."""
        return any(self._rarity(term) > 0 for term in terms_of(word))

    def relevance(self, words: Sequence[str]) -> list[Scores]:
        """Return the BM25 relevance of each item, an array [N] for each segment.

        1 means as relevant as one occurrence of each word in a text of mean length. Words that no text has do
        not count.
        """
        terms = dict.fromkeys(term for word in words for term in terms_of(word) if self._rarity(term))
        whole = sum(map(self._rarity, terms)) or 1.0
        found = []
        for part, lengths in zip(self.segments, self._lengths, strict=True):
            own = np.zeros(len(part.alive), dtype=np.float32)
            for term in terms:
                rows, counts = part.stored.counts(term, self.columns)
                held = counts * (SATURATION + 1) / (counts + lengths[rows])
                own[rows] += self._rarity(term) / whole * held
            found.append(own)
        return found

    @cached_property
    def _lengths(self) -> list[Scores]:
        """For each segment, BM25's ``k1 * (1 - b + b * length / mean length)`` of each item's text [N]."""
        words = [
            sum(
                (part.stored.lengths[name] for name in self.columns if name in part.stored.lengths),
                np.zeros(len(part.alive), dtype=np.float32),
            )
            for part in self.segments
        ]
        living = np.concatenate([own[part.alive] for own, part in zip(words, self.segments, strict=True)])
        mean = max(float(living.mean()) if len(living) else 1.0, 1e-6)
        return [(SATURATION * (1 - LENGTH + LENGTH * own / mean)).astype(np.float32) for own in words]

    def _rarity(self, term: str) -> float:
        """Return the inverse document frequency of a term among items that are not deleted.

        It is 0 if no such item has the term.
        """
        if term not in self._idf:
            holding = (
                int(part.alive[part.stored.counts(term, self.columns)[0]].sum()) for part in self.segments
            )
            count, items = sum(holding), sum(int(part.alive.sum()) for part in self.segments)
            self._idf[term] = float(np.log1p((items - count + 0.5) / (count + 0.5))) if count else 0.0
        return self._idf[term]
