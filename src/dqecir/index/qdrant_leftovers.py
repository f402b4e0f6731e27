"""Find collections that no build has finished: a killed build leaves its collection on the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from threading import Event, Thread

from dqecir.errors import EngineError
from dqecir.index.qdrant_collection import Collection

PREFIX = "dqecir-"
"""Beginning of the names of all our collections."""

BEAT = 10.0
"""Seconds between two signs of life of a running build."""

WATCHED = 45.0
"""Seconds without a sign of life after which a build counts as dead."""


@contextmanager
def being_built(collection: Collection) -> Iterator[None]:
    """Write a sign of life into the collection's record every :data:`BEAT` seconds of the ``with`` block.

    It is a growing number; while it grows, :func:`leftovers` takes the build for a running one.
    """
    done, beats = Event(), count()
    collection.write_record({"building": next(beats)})

    def beat() -> None:
        while not done.wait(BEAT):
            # If the server is away, the next write of the build raises the error.
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
    """Return the names of all collections of the same index on the server, with this one."""
    base = collection.name.rpartition("-")[0]
    return [name for name in collection.names() if name.rpartition("-")[0] == base]


def leftovers(url: str) -> list[Collection]:
    """Return the collections of a server that no build has finished and that no build is writing.

    If there are unfinished ones, the function watches them for :data:`WATCHED` seconds. ``url`` is the
    server's address.
    """
    names = Collection(url, PREFIX).names()
    ours = [Collection(url, name) for name in names if name.startswith(PREFIX)]
    before = {collection: found for collection in ours if (found := _state(collection)) is not None}
    if before:
        time.sleep(WATCHED)
    return [collection for collection, state in before.items() if _state(collection) == state]


def _state(collection: Collection) -> tuple[object, int] | None:
    """Return a collection's last sign of life and its number of points; None if its build has finished."""
    record = collection.read_record() or {}
    return None if "record" in record else (record.get("building"), collection.count({"must": []}))
