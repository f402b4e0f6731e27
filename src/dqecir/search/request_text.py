"""Read the text of a search with the columns of an index: its filters, corrections and unread words."""

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
"""Columns that texts often compare by; a response says so if the index lacks them."""


@dataclass(frozen=True)
class RequestText:
    """What was read in a text: the text for the model, the filter, and what the response reports.

    ``where`` joins the request's own filter with the filters that were read in the text.
    """

    text: str
    """The text for the model, without numeric constraints and with typing errors corrected."""
    where: Filter | None
    constraints: tuple[NumericConstraint, ...] = ()
    """All numeric constraints of the text, such as "under 40 euros". One whose ``number`` is None compares
    with a number that the reference does not have; the filter does not contain it."""
    lacking: tuple[NumericConstraint, ...] = ()
    """Numeric constraints on columns that the index does not have."""
    read: Reading = field(default_factory=Reading)
    """What the reader found in ``text``, in the columns of the index."""
    table: tuple[Ask, ...] = ()
    """Requests in columns that the model cannot see in pictures; these are part of the filter."""
    garments: tuple[str, ...] = ()
    """The columns of the index that hold the kind of garment."""
    searched: tuple[str, ...] = ()
    """Words that no column explains, that the text wants, and that occur in texts of the index."""
    searched_in: tuple[str, ...] = ()
    """Columns of the index in which these words are searched; empty if there are none."""
    together: str = ""
    """One text with the requests of all turns; empty for a single turn."""
    taken_back: tuple[tuple[str, ...], ...] = ()
    """For each turn, its words that later turns replaced or took back; empty for a single turn."""
    no_text: str = ""
    """Why words cannot be searched in this index; empty if they can, or if there are none."""


QUICK = 0.1
"""If reading an index's values took at most this many seconds, a request waits while they are read again."""

READING = 0.1
"""If reading an index's values takes longer than :data:`QUICK`, they are read again in a thread, for at most
this share of the time."""


@dataclass(frozen=True)
class _IndexReader:
    """A reader that knows the values of one generation of an index."""

    generation: int
    reader: Reader
    seconds: float
    """Seconds that reading the values took."""
    since: float
    """Time at which reading ended, on the clock of ``time.monotonic``."""


class RequestReader:
    """Read the texts of searches in one index, from any thread.

    After the index has changed, the values of its columns are read again: at once if that is quick, else in a
    thread, while texts are read with the old values.
    """

    def __init__(self, index: Index, shown: Iterable[str], tagger: Tagger | None = None) -> None:
        """Take an index, the columns that the model predicts from pictures, and its tagger (or None)."""
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
        """Read a text: split off its numeric constraints, and find requested values in the rest.

        ``item`` is the id of the reference if that is an item; its payload is read only if the text compares
        with the reference ("cheaper"). ``where`` is the request's own filter, which the result's filter
        extends. The texts of ``earlier`` turns are joined with ``text`` to one
        (:func:`dqecir.language.dialogue.in_one`).
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
            # The model knows only English, and would misread other words.
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
        """Add those of ``words`` that texts of the index contain, or the reason why it has no texts."""
        texts = self._index.text
        if texts is None or not words:
            return replace(read, no_text=self._index.why_no_text() if words else "")
        known = tuple(word for word in words if texts.knows(word))
        return replace(read, searched=known, searched_in=texts.columns if known else ())

    def searched_columns(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the columns that a text can request: those that the model sees in pictures, and others."""
        read = self._of_index().columns
        return read & self._shown, read - self._shown

    def _numbers(self, text: str) -> tuple[str, tuple[NumericConstraint, ...], tuple[NumericConstraint, ...]]:
        """Split a text into the rest, constraints on existing numeric columns, and those on others."""
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
        """Return a reader of the index's values, or of older values while reading the new ones is slow."""
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
            # If the index cannot be read, the next search raises the error.
            with suppress(DataError):
                self._known = self._read_values(generation)
        finally:
            self._lock.release()


@cache
def _usual(tagger: Tagger) -> Reader:
    return Reader(tagger=tagger)


def _wanted(text: str, words: Collection[str]) -> list[str]:
    """Return those of ``words`` that a text wants: of "in leather without a logo" leather, but not logo."""
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
    """Yield a filter for each column with requested values (any of them), and one for each refused value."""
    wanted: dict[str, list[str]] = {}
    for ask in asks:
        assert ask.value is not None
        if ask.operation in ("is", "more"):
            wanted.setdefault(ask.column, []).append(ask.value)
        else:
            yield Not(Equal(ask.column, (ask.value,)))
    for column, values in wanted.items():
        yield Equal(column, tuple(values))
