"""Where points lie: the few things that both Qdrant engines ask of an embedded shard or a server."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dqecir.errors import DataError, EngineError
from dqecir.index.contract import IndexHeader, ItemBatch, SearchSettings
from dqecir.index.engines import engine_of
from dqecir.index.qdrant_layout import (
    FORMAT,
    Ask,
    Condition,
    Found,
    Point,
    Record,
    attributes_of,
    number_key,
    points_of,
)
from dqecir.index.segments import sync_folder
from dqecir.io.files import write_json
from dqecir.settings import Strict, parse_settings

WRITTEN = 128
"""Points written at once: searches take turns with such parts."""

MARKED = 1024
"""Items marked as gone at once: as quick as writing a part."""

FLUSHED = 8
"""Such parts after which a long addition is flushed, so that no flush lasts long."""


class Place(Strict):
    """``manifest.json``: where an index lies, and how it is searched."""

    format: int
    engine: Literal["edge", "server"]
    header: IndexHeader
    store: str = Field(min_length=1)
    """The shard's folder or the collection."""
    url: str | None = None
    """Of the server."""
    candidates: int | None = Field(default=None, ge=1)
    """Items that a search fetches and scores; the rule's own way where none is said."""
    exact_up_to: int = Field(default=0, ge=0)
    """Items that a search scores all of, where a filter leaves no more."""


def as_kept(settings: SearchSettings | None) -> dict[str, int | None]:
    """Settings as a :class:`Place` keeps them; none of them leave a search to the rule's own way."""
    return settings.model_dump() if settings else {"candidates": None, "exact_up_to": 0}


class Store(ABC):
    """Points somewhere; every call may be repeated without harm."""

    @abstractmethod
    def write(self, points: Sequence[Point]) -> None:
        """Write points, in place of those of the same numbers."""

    @abstractmethod
    def write_record(self, text: str) -> None:
        """Write the record; whole or not at all."""

    @abstractmethod
    def read_record(self) -> str | None:
        """The record, if there is one."""

    @abstractmethod
    def mark_dead(self, where: Condition, generation: int) -> None:
        """Let points be gone from a generation on."""

    @abstractmethod
    def unmark(self, where: Condition) -> None:
        """Take such marks back."""

    @abstractmethod
    def remove(self, where: Condition) -> None:
        """Remove points."""

    @abstractmethod
    def index_numbers(self, key: str) -> None:
        """Make a payload field of numbers quick to ask; nothing happens where it is."""

    @abstractmethod
    def count(self, where: Condition) -> int:
        """How many points fulfil a condition."""

    @abstractmethod
    def scroll(self, where: Condition, after: int, limit: int, tokens: bool = True) -> list[Found]:
        """The first points by number, from ``after`` + 1 on; ``tokens`` says whether with theirs."""

    @abstractmethod
    def search(self, asks: Sequence[Ask]) -> list[list[Found]]:
        """The nearest points of each, best first."""

    @abstractmethod
    def flush(self) -> None:
        """When this returns, what was written outlives a power cut."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a person may want to know of it."""

    def close(self) -> None:  # noqa: B027  (a server has nothing to let go of)
        """Let go of it."""


def read_place(folder: Path, engine: str) -> Place:
    """The manifest of a Qdrant index; raises :class:`EngineError` where it is none of this engine."""
    named = engine_of(folder)
    if named != engine:
        raise EngineError(f"{folder} is an index of the engine {named}, not of {engine}")
    path = folder / "manifest.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("format") != FORMAT:
        raise EngineError(f"{folder} is an index of another version: build it again")
    return parse_settings(data, Place, str(path))


def is_ours(folder: Path, engine: str) -> bool:
    """Whether a folder holds an index of this engine, of any version."""
    return (folder / "manifest.json").exists() and engine_of(folder) == engine


def place_before(folder: Path, engine: str) -> Place | None:
    """The manifest of what is built anew; none where it is of another engine or version, or damaged."""
    try:
        return read_place(folder, engine) if is_ours(folder, engine) else None
    except DataError:
        return None


def write_place(folder: Path, place: Place) -> None:
    """Make a store the one that is used; when this returns it outlives a kill and a power cut."""
    write_json(folder / "manifest.json", place.model_dump(mode="json"))
    sync_folder(folder)


def check_once(batch: ItemBatch, seen: set[str]) -> None:
    """Raise :class:`EngineError` for an id that was seen before; what is new is seen then."""
    for item in batch.ids:
        if item in seen:
            raise EngineError(f"the item {item!r} comes twice: every item needs an id of its own")
        seen.add(item)


def write_batch(store: Store, record: Record, batch: ItemBatch, generation: int) -> Record:
    """Write a batch and return the record that counts it, which is not written yet."""
    stored = batch.as_stored(record.header)
    named = attributes_of(batch.payloads)
    for name, numeric in named.items():
        if numeric and not record.attributes.get(name):
            store.index_numbers(number_key(name))
    for start in range(0, len(batch.ids), WRITTEN):
        part = slice(start, start + WRITTEN)
        points = points_of(
            ItemBatch(batch.ids[part], batch.tokens[part], batch.payloads[part]),
            stored[part],
            record.next + start,
            generation,
            record.header,
            record.distributions,
        )
        store.write(points)
        if (start // WRITTEN + 1) % FLUSHED == 0:
            store.flush()
    attributes = record.attributes | {
        name: numeric or record.attributes.get(name, False) for name, numeric in named.items()
    }
    count = len(batch.ids)
    return record.model_copy(
        update={"next": record.next + count, "items": record.items + count, "attributes": attributes}
    )
