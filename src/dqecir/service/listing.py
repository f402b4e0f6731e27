"""The items of an index as a list, page by page, filtered, in an order drawn by seed; their attributes."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any, TypeVar

from dqecir.data.cells import measured
from dqecir.index.contract import Index
from dqecir.index.filters import Filter
from dqecir.index.product_search import first_views
from dqecir.service.problems import Problem
from dqecir.service.schemas import AttributeFacts

FEW = 60
"""Values of an attribute that are listed; users type the value of an attribute that has more."""

READING = 0.1
"""The share of the time that may go into reading an index anew while it is being changed."""

KEPT = 8
"""Readings that are kept: the attributes, and the ids that a filter allows."""

ReadT = TypeVar("ReadT")


class Listing:
    """Keeps ids and the values of attributes, and reads the payloads of a page when it is asked for.

    Reading takes time: call it in a thread that may wait. It reads the index anew once that has changed, but
    for no more than :data:`READING` of the time: a list of many items that are being changed is as old as
    ten of its readings take.
    """

    def __init__(self, index: Index, generation: Callable[[], int]) -> None:
        self._index, self._generation = index, generation
        self._lock = Lock()
        self._readings: dict[Hashable, tuple[Any, float]] = {}
        """What was read, and the seconds that it took."""
        self._read_generation: int | None = None
        self._since = 0.0

    def page(
        self, limit: int, after: str | None, where: Filter | None, seed: int | None
    ) -> tuple[list[tuple[str, Mapping[str, Any]]], str | None]:
        """``limit`` items after the one of id ``after``, and the id of the last where there are more.

        One a product, in the order of adding, or one drawn by ``seed``. Raises a :class:`Problem` where
        ``after`` is gone, and ``FilterError``.
        """
        ids = self._ids(where)
        if seed is not None:
            # By a hash of the id, so that the order holds while items come and go.
            ids = sorted(ids, key=lambda item_id: zlib.crc32(f"{seed}:{item_id}".encode(errors="replace")))
        start = 0
        if after is not None:
            if after not in ids:
                raise Problem(422, "the item after which the list should go on is not in it: begin again")
            start = ids.index(after) + 1
        chosen = ids[start : start + limit]
        last = chosen[-1] if start + limit < len(ids) else None
        payloads = self._index.payloads(chosen)
        return [(item_id, payloads[item_id]) for item_id in chosen if item_id in payloads], last

    def count_products(self) -> int | None:
        """How many products there are; None where every item is one by itself."""
        if not self._index.has_products:
            return None
        count = self._index.count()
        return len(self._ids(None)) if count is None else count

    def _ids(self, where: Filter | None) -> list[str]:
        return self._kept(("ids", where), lambda: first_views(self._index, where))

    def attributes(self) -> dict[str, AttributeFacts]:
        """What is known of every attribute, by its name."""
        return self._kept("attributes", self._facts)

    def _facts(self) -> dict[str, AttributeFacts]:
        return {
            name: AttributeFacts(
                values=sorted(values, key=_by_number) if len(values) <= FEW else None,
                numeric=all(math.isfinite(measured(value)) for value in values),
            )
            for name, values in sorted(self._index.values().items())
        }

    def _kept(self, name: Hashable, read: Callable[[], ReadT]) -> ReadT:
        """What ``read`` returned when it was last called; it is called again once the index has changed."""
        with self._lock:
            begun = time.monotonic()
            spent = sum(seconds for _, seconds in self._readings.values())
            if begun >= self._since + spent / READING:
                generation = self._generation()
                if generation != self._read_generation:
                    self._readings.clear()
                    self._read_generation, self._since = generation, begun
            if name not in self._readings:
                if len(self._readings) >= KEPT:
                    self._readings.pop(next(iter(self._readings)))
                self._readings[name] = read(), time.monotonic() - begun
            found: ReadT = self._readings[name][0]
            return found


def _by_number(value: str) -> tuple[float, str]:
    number = measured(value)
    return (math.inf if math.isnan(number) else number, value)
