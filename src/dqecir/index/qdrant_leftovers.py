"""Collections that no build finished: a build that is killed leaves its collection on the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from threading import Event, Thread

from dqecir.errors import EngineError
from dqecir.index.qdrant_collection import Collection

PREFIX = "dqecir-"
"""How the names of all collections of ours begin."""

BEAT = 10.0
"""Seconds between two signs of life of a build."""

WATCHED = 45.0
"""Seconds without a sign of life after which a build counts as dead."""


@contextmanager
def being_built(collection: Collection) -> Iterator[None]:
    """Show at intervals that the build of a collection without a record is alive, until the block ends."""
    done, beats = Event(), count()
    collection.write_record({"building": next(beats)})

    def beat() -> None:
        while not done.wait(BEAT):
            # A server that is away fails the build itself, once that writes.
            with suppress(EngineError):
                collection.write_record({"building": next(beats)})

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def siblings(collection: Collection) -> list[str]:
    """Return the collections of the same index, this one among them."""
    base = collection.name.rpartition("-")[0]
    return [name for name in collection.names() if name.rpartition("-")[0] == base]


def leftovers(url: str) -> list[Collection]:
    """Return the collections of a server that no build finished and no build is writing.

    Where there are unfinished ones, it watches them for :data:`WATCHED` seconds.
    """
    names = Collection(url, PREFIX).names()
    ours = [Collection(url, name) for name in names if name.startswith(PREFIX)]
    before = {collection: found for collection in ours if (found := _state(collection)) is not None}
    if before:
        time.sleep(WATCHED)
    return [collection for collection, state in before.items() if _state(collection) == state]


def _state(collection: Collection) -> tuple[object, int] | None:
    """Return the last sign of life of a build and how many points there are; None where it has finished."""
    record = collection.read_record() or {}
    return None if "record" in record else (record.get("building"), collection.count({"must": []}))
