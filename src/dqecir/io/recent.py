"""Keep what was used last, within a number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """The values that were used last, as long as they fit into ``most`` bytes; any thread may ask."""

    def __init__(self, most: int, size: Callable[[Kept], int]) -> None:
        self._kept: LRUCache[Hashable, Kept] = LRUCache(most, size)
        self._lock = Lock()

    def get(self, key: Hashable) -> Kept | None:
        """Return what is kept under ``key``, or ``None``."""
        with self._lock:
            return self._kept.get(key)

    def put(self, key: Hashable, value: Kept) -> None:
        """Keep ``value``, and drop what was not asked for longest; a value above ``most`` is not kept."""
        with self._lock, suppress(ValueError):
            self._kept[key] = value
