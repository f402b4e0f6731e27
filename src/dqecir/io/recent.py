"""Cache the most recently used values within a number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """A cache of the most recently used values, with at most ``most`` bytes; usable from several threads."""

    def __init__(self, most: int, size: Callable[[Kept], int]) -> None:
        self._kept: LRUCache[Hashable, Kept] = LRUCache(most, size)
        self._lock = Lock()

    def get(self, key: Hashable) -> Kept | None:
        """Return the value of ``key``; None if it is not cached."""
        with self._lock:
            return self._kept.get(key)

    def put(self, key: Hashable, value: Kept) -> None:
        """Cache ``value``, and remove the least recently used ones.

        A value of more than ``most`` bytes is not cached.
        """
        with self._lock, suppress(ValueError):
            self._kept[key] = value
