"""The items of an index as a list, page by page, filtered, in an order drawn by seed; their attributes."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from dqecir.data.cells import measured
from dqecir.index.contract import Index
from dqecir.index.filters import Filter
from dqecir.index.payload_columns import Columns
from dqecir.service.problems import Problem

FEW = 60
"""Values of an attribute that are listed; one with more is asked for by typing."""

READING = 0.1
"""The share of the time that may go into reading an index anew while it is being changed."""


@dataclass(frozen=True)
class Facts:
    """What is known of an attribute: its values where they are few, and whether all are numbers."""

    values: list[str] | None
    numeric: bool


class Listing:
    """Reads the whole index, so it belongs into a thread that may wait.

    It is read anew once it has changed, but for no more than :data:`READING` of the time: lists of many
    items that are being changed are as old as ten of their readings take.
    """

    def __init__(self, index: Index, generation: Callable[[], int]) -> None:
        self._index, self._generation = index, generation
        self._lock = Lock()
        self._read: tuple[int, _Entries] | None = None
        self._until = 0.0

    def page(
        self, limit: int, after: str | None, where: Filter | None, seed: int | None
    ) -> tuple[list[tuple[str, Mapping[str, Any]]], str | None]:
        """``limit`` items after the one of id ``after``, and the id of the last where there are more.

        In the order of adding, or one drawn by ``seed``. Raises a :class:`Problem` where ``after`` is gone,
        and ``FilterError``.
        """
        entries = self._entries()
        order = entries.order(where, seed)
        start = 0
        if after is not None:
            place = entries.places.get(after)
            start = next((n for n, found in enumerate(order, start=1) if found == place), 0)
            if not start:
                raise Problem(422, "the item after which the list should go on is not in it: begin again")
        chosen = order[start : start + limit]
        last = entries.ids[chosen[-1]] if start + limit < len(order) else None
        return [(entries.ids[place], entries.payloads[place]) for place in chosen], last

    def attributes(self) -> dict[str, Facts]:
        """What is known of every attribute, by its name."""
        return self._entries().facts

    def _entries(self) -> _Entries:
        with self._lock:
            begun = time.monotonic()
            if self._read is not None and begun < self._until:
                return self._read[1]
            generation = self._generation()
            if self._read is None or self._read[0] != generation:
                self._read = generation, _Entries(list(self._index.entries()))
                ended = time.monotonic()
                self._until = ended + (ended - begun) / READING
            return self._read[1]


class _Entries:
    def __init__(self, found: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self.ids = [item_id for item_id, _ in found]
        self.payloads = [payload for _, payload in found]
        self.places = {item_id: place for place, item_id in enumerate(self.ids)}
        self.columns = Columns.of(self.payloads)
        self.facts = {name: self._facts(name) for name in sorted(self.columns.names - {"path"})}

    def order(self, where: Filter | None, seed: int | None) -> list[int]:
        """Places of the items that fulfil ``where``, in order."""
        places = list(range(len(self.ids)))
        if where is not None:
            where.check([self.columns])
            places = np.flatnonzero(where.mask(self.columns)).tolist()
        if seed is not None:
            # By a hash of the id, so that the order holds while items come and go.
            places.sort(key=lambda place: zlib.crc32(f"{seed}:{self.ids[place]}".encode(errors="replace")))
        return places

    def _facts(self, name: str) -> Facts:
        values = {str(payload[name]) for payload in self.payloads if name in payload}
        return Facts(
            sorted(values, key=_by_number) if len(values) <= FEW else None,
            all(math.isfinite(measured(value)) for value in values),
        )


def _by_number(value: str) -> tuple[float, str]:
    number = measured(value)
    return (math.inf if math.isnan(number) else number, value)
