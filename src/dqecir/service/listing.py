"""List the items of an index page by page, filtered or shuffled, and describe their attributes."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import Lock
from typing import Any, TypeVar

from dqecir.data.cells import measured
from dqecir.data.column_roles import NOT_IN_INDEX, Role, column_name, roles_of
from dqecir.data.column_roles_file import read_roles
from dqecir.errors import UnknownItemError
from dqecir.index.column_facts import ColumnFacts
from dqecir.index.contract import Index
from dqecir.index.filters import Filter
from dqecir.search.product_search import first_views
from dqecir.service.problems import Problem
from dqecir.service.schemas import AttributeFacts, NumberFacts

FEW = 60
"""Most values of an attribute that are listed. If there are more, the page lets users type a value."""

PARTS = 20
"""Number of bins in the histogram of a numeric attribute."""

READING = 0.1
"""Largest share of the time that may be spent on reading an index again while it is being changed."""

KEPT = 8
"""Most cached results; a result is the attributes, or the ids that one filter allows."""

ReadT = TypeVar("ReadT")


class Listing:
    """Lists the items and attributes of an index; caches ids and facts, and reads the payloads of one page.

    Reading may take long, so call it in a thread that may wait. After a change the index is read again, but
    for at most :data:`READING` of the time; the list of a large index that keeps changing may be out of date.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = Lock()
        self._readings: dict[Hashable, tuple[Any, float]] = {}
        """Key of a cached result -> the result, and the seconds that reading it took."""
        self._read_generation: int | None = None
        self._since = 0.0

    def page(
        self, limit: int, after: str | None, where: Filter | None, seed: int | None
    ) -> tuple[list[tuple[str, Mapping[str, Any]]], str | None]:
        """Return up to ``limit`` items (id, payload) after the id ``after``, and the next page's ``after``.

        The second value is None at the end of the list. ``after`` is None for the first page. Only items that
        ``where`` allows are listed, one for each product, in the order in which they were added, or shuffled
        with ``seed``. Raises a :class:`Problem` if ``after`` was deleted, and ``FilterError`` if ``where``
        does not fit the index.
        """
        self._index.refresh()
        try:
            page = self._index.page(limit, after, where, seed)
        except UnknownItemError:
            raise _gone() from None
        if page is not None:
            return page
        ids = self._ids(where)
        if seed is not None:
            # A hash of the id decides, so that the others keep their order if items are added or deleted.
            ids = sorted(ids, key=lambda item_id: zlib.crc32(f"{seed}:{item_id}".encode(errors="replace")))
        start = 0
        if after is not None:
            if after not in ids:
                raise _gone()
            start = ids.index(after) + 1
        chosen = ids[start : start + limit]
        last = chosen[-1] if start + limit < len(ids) else None
        payloads = self._index.payloads(chosen)
        return [(item_id, payloads[item_id]) for item_id in chosen if item_id in payloads], last

    def count_products(self) -> int | None:
        """Return the number of products; None for an index whose items have no products."""
        if not self._index.has_products:
            return None
        count = self._index.count()
        return len(self._ids(None)) if count is None else count

    def _ids(self, where: Filter | None) -> list[str]:
        return self._kept(("ids", where), lambda: first_views(self._index, where))

    def attributes(self) -> dict[str, AttributeFacts]:
        """Return the facts about every attribute, such as its values: name -> facts, sorted by name."""
        return self._kept("attributes", self._facts)

    def _facts(self) -> dict[str, AttributeFacts]:
        facts = dict(sorted(self._index.column_facts(FEW, PARTS).items()))
        roles = self._roles({name: one.some for name, one in facts.items()})
        return {name: _as_schema(one, roles[name]) for name, one in facts.items()}

    def _roles(self, values: Mapping[str, Sequence[str]]) -> dict[str, Role]:
        """Return column -> role: the one that the index stores, else one guessed from name and values."""
        told = dict(zip(values, roles_of([*map(column_name, values)], list(values.values())), strict=True))
        plain: dict[str, Role] = {
            name: "attribute" if role in NOT_IN_INDEX else role for name, role in told.items()
        }
        return {**plain, **read_roles(self._index.folder)}

    def _kept(self, name: Hashable, read: Callable[[], ReadT]) -> ReadT:
        """Return the result of ``read`` that is cached under ``name``; if there is none, call ``read``.

        After a change of the index the cache is cleared, but not more often than :data:`READING` allows.
        """
        with self._lock:
            begun = time.monotonic()
            spent = sum(seconds for _, seconds in self._readings.values())
            if begun >= self._since + spent / READING:
                self._index.refresh()
                generation = self._index.generation
                if generation != self._read_generation:
                    self._readings.clear()
                    self._read_generation, self._since = generation, begun
            if name not in self._readings:
                if len(self._readings) >= KEPT:
                    self._readings.pop(next(iter(self._readings)))
                self._readings[name] = read(), time.monotonic() - begun
            found: ReadT = self._readings[name][0]
            return found


def _gone() -> Problem:
    return Problem(
        422, "the item after which the list should continue is not in it: start again from the beginning"
    )


def _as_schema(facts: ColumnFacts, role: Role) -> AttributeFacts:
    numbers = facts.numbers
    return AttributeFacts(
        values=None if facts.values is None else sorted(facts.values, key=_by_number),
        numeric=numbers is not None,
        role=role,
        numbers=None if numbers is None else NumberFacts(**numbers._asdict()),
    )


def _by_number(value: str) -> tuple[float, str]:
    number = measured(value)
    return (math.inf if math.isnan(number) else number, value)
