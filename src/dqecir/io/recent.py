"""Cache the most recently used values within a number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """A cache of the most recently used values, at most ``most`` bytes of them; safe in threads."""

    def __init__(self, most: int, size: Callable[[Kept], int]) -> None:
        self._kept: LRUCache[Hashable, Kept] = LRUCache(most, size)
        self._lock = Lock()

    def get(self, key: Hashable) -> Kept | None:
        """Return the value of ``key``, or ``None``."""
        with self._lock:
            return self._kept.get(key)

    def put(self, key: Hashable, value: Kept) -> None:
        """Keep ``value``, and drop the least recently used ones; a value above ``most`` bytes is not kept."""
        with self._lock, suppress(ValueError):
            self._kept[key] = value
