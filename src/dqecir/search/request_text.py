"""Read the text of a search in the columns of an index: its filters, corrections and unread words."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from threading import Lock, Thread
from typing import Any

from dqecir.data.payload_fields import RESERVED
from dqecir.errors import DataError
from dqecir.index.contract import Index
from dqecir.index.filters import Compare, Equal, Filter, Not, all_of, conjuncts, has_numbers
from dqecir.index.payload_columns import least_number
from dqecir.language.dialogue import in_one
from dqecir.language.english import tokens
from dqecir.language.numeric_constraints import NumericConstraint, constraint_reader, speaks_of_numbers
from dqecir.language.reader import Ask, Reader, Reading
from dqecir.language.roles import Role, roles, segments
from dqecir.language.tagging import Tagger
from dqecir.search.text_reading import facts_to_read, reader_of_facts

COMPARED = ("price", "year")
"""Columns that the response names as missing if a text compares by them."""


@dataclass(frozen=True)
class RequestText:
    """A text, separated from its filter."""

    text: str
    """The text for the model, with typing errors corrected."""
    where: Filter | None
    constraints: tuple[NumericConstraint, ...] = ()
    """All constraints of the text. One without a number compares with an unknown number of the reference,
    and is not part of the filter."""
    lacking: tuple[NumericConstraint, ...] = ()
    """Constraints on columns that the index lacks."""
    read: Reading = field(default_factory=Reading)
    """The reading of the remaining text in the columns of the index."""
    table: tuple[Ask, ...] = ()
    """Requests of columns that the model does not know; they filter the table's cells."""
    garments: tuple[str, ...] = ()
    """The columns of garments in the index."""
    searched: tuple[str, ...] = ()
    """Unread words that occur in texts of the index and that the text does not refuse."""
    searched_in: tuple[str, ...] = ()
    """The columns of these texts."""
    together: str = ""
    """The requests of all turns in one text; empty for a single turn."""
    taken_back: tuple[tuple[str, ...], ...] = ()
    """For each of several turns, its words that no longer count because of later turns."""
    no_text: str = ""
    """Why the index has no texts, if there are words to search."""


QUICK = 0.1
"""Seconds for which a request may wait while the values of a changed index are read."""

READING = 0.1
"""Largest share of the time for reading values, if that takes longer."""


@dataclass(frozen=True)
class _IndexReader:
    """A reader of the values of one generation."""

    generation: int
    reader: Reader
    seconds: float
    """How long reading the values took."""
    since: float
    """When that ended."""


class RequestReader:
    """Read the texts of searches in one index, from any thread.

    After a change the values of its columns are read again: at once if that is quick, else in a thread, and
    texts are meanwhile read in the values of before.
    """

    def __init__(self, index: Index, shown: Iterable[str], tagger: Tagger | None = None) -> None:
        """Take the columns that the model predicts from pictures, and the model's tagger, if it has one."""
        self._index, self._shown, self._tagger = index, frozenset(shown), tagger
        self._lock = Lock()
        self._known: _IndexReader | None = None

    def read(
        self,
        text: str,
        item: str | None = None,
        where: Filter | None = None,
        earlier: Sequence[str] = (),
    ) -> RequestText:
        """Return a text without its numeric constraints, these, and the reading of the rest.

        The texts of ``earlier`` turns are read with it, as one (:func:`dqecir.language.dialogue.in_one`).

        ``item`` is the reference's id if it is an item; its payload is read only if the text compares with
        it. Requests of the table's columns are added to the filter ``where``.
        """
        if earlier:
            # Without a table, turns are parted by the usual columns.
            reader = self._of_index()
            turns = in_one((*earlier, text), reader if reader.columns else _usual(reader.tagger))
            said = self.read(turns.text, item, where)
            return replace(said, together=turns.text, taken_back=turns.taken_back)
        if not text.strip():
            return RequestText(
                text, where, garments=tuple(self._of_index().linker.columns.get("garment", ()))
            )
        rest, constraints, lacking = self._numbers(text)
        reader = self._of_index()
        read = reader.read(rest)
        for slip in read.corrections:
            rest = re.sub(rf"\b{re.escape(slip.word)}\b", slip.read_as.replace("\\", r"\\"), rest, flags=re.I)
        if read.language != "English":
            # A model would find requests in words of another language.
            rest = ", ".join(ask.words for ask in read.asks if ask.column in self._shown)
        table = tuple(ask for ask in read.asks if ask.column not in self._shown and ask.value is not None)
        compares = any(one.number is None for one in constraints)
        payload = (self._index.payload(item) if compares and item is not None else None) or {}
        constraints = tuple(_completed(one, payload) for one in constraints)
        parts = [*conjuncts(where), *_comparisons(constraints), *_cells(table)]
        garments = tuple(reader.linker.columns.get("garment", ()))
        found = RequestText(rest, all_of(parts), constraints, lacking, read, table, garments)
        return self._with_words(found, _wanted(text, read.unread))

    def _with_words(self, read: RequestText, words: Sequence[str]) -> RequestText:
        """Add the words of a text that are searched in the index's texts."""
        texts = self._index.text
        if texts is None or not words:
            return replace(read, no_text=self._index.why_no_text() if words else "")
        known = tuple(word for word in words if texts.knows(word))
        return replace(read, searched=known, searched_in=texts.columns if known else ())

    def searched_columns(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the columns that a text can ask for: those seen in pictures and those of the table."""
        read = self._of_index().columns
        return read & self._shown, read - self._shown

    def _numbers(self, text: str) -> tuple[str, tuple[NumericConstraint, ...], tuple[NumericConstraint, ...]]:
        """Return a text without its constraints, those on known columns, and those on missing columns."""
        if not speaks_of_numbers(text):
            return text, (), ()
        columns = self._index.columns()
        names = {name for part in columns for name in part.names} - RESERVED
        rest, constraints = constraint_reader(tuple(sorted(names))).parted(text)
        numeric = {one.column for one in constraints if has_numbers(columns, one.column)}
        if numeric != {one.column for one in constraints}:
            rest, constraints = constraint_reader(tuple(sorted(numeric))).parted(text)
        rest, others = constraint_reader(COMPARED).parted(rest)
        return rest, constraints, others

    def _of_index(self) -> Reader:
        """Return the reader of the index's values, which are current unless reading them takes long."""
        known, generation = self._known, self._index.generation
        if known is None or (known.generation != generation and known.seconds <= QUICK):
            with self._lock:
                if self._known is None or self._known.generation != generation:
                    self._known = self._read_values(generation)
                return self._known.reader
        is_due = known.generation != generation and time.monotonic() > known.since + known.seconds / READING
        if is_due and self._lock.acquire(blocking=False):
            Thread(target=self._read_later, args=(generation,), name="values", daemon=True).start()
        return known.reader

    def _read_values(self, generation: int) -> _IndexReader:
        begun = time.monotonic()
        facts = facts_to_read(self._index)
        now = time.monotonic()
        return _IndexReader(generation, reader_of_facts(facts, self._tagger), now - begun, now)

    def _read_later(self, generation: int) -> None:
        try:
            # Other requests say what is wrong with an index that fails.
            with suppress(DataError):
                self._known = self._read_values(generation)
        finally:
            self._lock.release()


@cache
def _usual(tagger: Tagger) -> Reader:
    return Reader(tagger=tagger)


def _wanted(text: str, words: Collection[str]) -> list[str]:
    """Return the words that a text does not refuse: leather, of "in leather without a logo"."""
    said = tokens(text)
    named = [token in words for token in said]
    found = roles(said, segments(said, named), named)
    refused = {token for token, role in zip(said, found, strict=True) if role is not Role.WANTED}
    return [word for word in words if word not in refused]


def _completed(constraint: NumericConstraint, payload: Mapping[str, Any]) -> NumericConstraint:
    if constraint.number is not None:
        return constraint
    number = least_number(payload.get(constraint.column))
    return constraint if math.isnan(number) else replace(constraint, number=number)


def _comparisons(constraints: Iterable[NumericConstraint]) -> Iterator[Filter]:
    for one in constraints:
        if one.number is not None:
            yield Compare(one.column, one.order, one.number)


def _cells(asks: Iterable[Ask]) -> Iterator[Filter]:
    """Yield filters for the table's cells: any of a column's requested values, and no refused one."""
    wanted: dict[str, list[str]] = {}
    for ask in asks:
        assert ask.value is not None
        if ask.operation in ("is", "more"):
            wanted.setdefault(ask.column, []).append(ask.value)
        else:
            yield Not(Equal(ask.column, (ask.value,)))
    for column, values in wanted.items():
        yield Equal(column, tuple(values))
