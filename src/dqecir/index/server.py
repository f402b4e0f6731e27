"""The engine ``server``: items as points of a collection on a Qdrant server or cluster.

The folder holds the manifest, which names the server and the collection, and the lock of writers. A change
first writes points of the next generation, which no search sees yet, and then the record that names this
generation. If a writer is killed, the next writer removes what it has left. If two writers have copies of the
same manifest, the slower one is refused.

The address comes from ``DQECIR_QDRANT_URL`` when an index is first built, and later from the manifest. The
key comes from ``DQECIR_QDRANT_KEY`` and is never stored.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
from pydantic import Field

from dqecir.data.payload_fields import RESERVED
from dqecir.errors import DataError, EngineError, UnknownItemError
from dqecir.index.column_facts import SOME, ColumnFacts, NumberRange, facts_of_counts
from dqecir.index.contract import Hit, IndexHeader, ItemBatch, Page, Search, SearchSettings, manifest_of
from dqecir.index.filters import Filter
from dqecir.index.locking import place_to_build, write_lock
from dqecir.index.qdrant_collection import URL, Collection
from dqecir.index.qdrant_earlier import earlier_items
from dqecir.index.qdrant_leftovers import being_built, siblings
from dqecir.index.qdrant_points import (
    CHANGED,
    FOLLOWED,
    FORMAT,
    NUMBER,
    Condition,
    IndexRecord,
    StoredPoint,
    among,
    condition,
    number_key,
    point_payload,
    points_of,
    unfinished,
    value_key,
    visible,
    within,
)
from dqecir.index.remote_items import (
    PREFERRED,
    SPARE,
    RemoteIndex,
    StoredItem,
    StoreLocation,
    best_hits,
    page_of,
)
from dqecir.settings import parse_settings

KEPT = 16
"""Number of earlier generations that can still be searched; a reader with an older one opens the newest."""

WRITTEN = 128
"""Points that one request writes or reads; other requests can be served in between."""

MARKED = 1024
"""Items that one request marks as deleted; it takes about as long as writing :data:`WRITTEN` points."""

HELD = 1 << 13
"""Most items that one request reads for several queries; between two requests, those of others are served."""

ReadT = TypeVar("ReadT")


class ServerLocation(StoreLocation):
    """``manifest.json``: the server and the collection of an index."""

    format: int = FORMAT
    engine: Literal["server"] = "server"
    header: IndexHeader
    store: str = Field(min_length=1)
    """Name of the collection."""
    url: str = Field(min_length=1)
    """Address of the server; several addresses of a cluster are separated by commas."""


class _State(NamedTuple):
    """One generation: its collection and record.

    Writers do not change that of a reader. In a change in progress, the record names the change (``claim``)
    as the only one, and has the attributes and items that the change has written so far.
    """

    collection: Collection
    record: IndexRecord

    def seen(self, *more: Condition) -> Condition:
        """Return the condition for points that belong to this generation and fulfil all of ``more``."""
        return visible(self.record.generation, *more)

    @property
    def following(self) -> int:
        """Number of the generation that a change of this one makes."""
        return self.record.generation + 1


class ServerIndex(RemoteIndex):
    """An index whose items are points of a collection; the folder holds only the manifest and a lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        collection = _collection_of(folder)
        self._state = _State(collection, _record(collection, folder))
        self.header = self._state.record.header
        # Held while a generation is opened, so that no older one replaces it; searches do not need it.
        self._opening = Lock()

    @classmethod
    def stored(cls, folder: Path) -> tuple[IndexHeader, Iterator[ItemBatch]]:
        return earlier_items(folder) or super().stored(folder)

    @classmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> Self:
        with place_to_build(folder, in_place=_collection_before(folder) is not None) as place:
            build_in(place, header, batches)
        return cls.open(folder)

    def add(self, batch: ItemBatch, instead_of: Sequence[str] = ()) -> None:
        if not batch.ids:
            return
        batch.as_stored(self.header)
        with write_lock(self.folder):
            change = self._claimed()
            gone = _mark(change, [*batch.ids, *instead_of])
            self._commit(_written(change, batch), gone)

    def delete(self, ids: Sequence[str]) -> int:
        with write_lock(self.folder):
            change = self._claimed()
            gone = _mark(change, ids)
            if gone:
                self._commit(change, gone)
        return gone

    def change_payloads(self, payloads: Mapping[str, Mapping[str, Any]]) -> int:
        """Replace the payloads of items (id -> new payload), item by item; return how many there are.

        If the call is interrupted, some payloads have changed: repeat it. Raises :class:`EngineError` if
        another writer was faster.
        """
        count = 0
        with write_lock(self.folder):
            change = self._claimed()
            collection, before, wanted = change.collection, change.record, list(payloads)
            record = _with_indexes(collection, before, before.with_attributes(payloads.values()))
            for start in range(0, len(wanted), WRITTEN):
                if _record(collection, self.folder).claim != before.claim:
                    raise self._slower()
                there = self._state.seen(among("item", wanted[start : start + WRITTEN]))
                points = collection.scroll(there, 0, WRITTEN, tokens=False)
                collection.set_payloads(
                    {item.point: point_payload(item.id, payloads[item.id]) for item in points}
                )
                count += len(points)
            if count:
                self._commit(change._replace(record=record))
        return count

    def refresh(self) -> None:
        self._open_newest(_collection_of(self.folder))

    def _open_newest(self, collection: Collection) -> None:
        with self._opening:
            record = _record(collection, self.folder)
            if record.header != self.header:
                raise EngineError(f"{self.folder} was built again by another model: open it again")
            state, collection = self._state, replace(collection, patience=0.0)
            if collection != state.collection or record.generation >= state.record.generation:
                self._state = _State(collection, record)

    def with_settings(self, settings: SearchSettings | None) -> Self | None:
        return self if settings is None else None

    def configure(self, settings: SearchSettings | None) -> None:
        """Raise :class:`EngineError` for any settings, because Qdrant compares every item here."""
        if settings is not None:
            raise EngineError(
                "the engine server compares every item: the number of candidates cannot be set, leave it out"
            )

    def _search(self, asked: Search) -> list[list[Hit]]:
        return self._of_one_generation(lambda state: _best(state, asked))

    def _of_one_generation(self, read: Callable[[_State], ReadT]) -> ReadT:
        """Call ``read`` with the open generation, and return its result.

        If that generation is being removed, ``read`` is called again with the newest.
        """
        while True:
            state = self._state
            found = read(state)
            if state.record.generation >= _record(state.collection, self.folder).oldest:
                return found
            self.refresh()

    def _stored(self, ids: Sequence[str], tokens: bool) -> dict[str, StoredItem]:
        wanted = list(dict.fromkeys(ids))

        def by_id(state: _State) -> dict[str, StoredItem]:
            found: dict[str, StoredItem] = {}
            for start in range(0, len(wanted), WRITTEN):
                seen = state.seen(among("item", wanted[start : start + WRITTEN]))
                points = state.collection.scroll(seen, 0, WRITTEN, tokens)
                found |= {point.id: point for point in points}
            return found

        return self._of_one_generation(by_id)

    def page(
        self, limit: int, after: str | None = None, where: Filter | None = None, seed: int | None = None
    ) -> Page | None:
        """Return a page of items, as :meth:`Index.page`; None for a ``seed``, and for an index of products.

        Raises :class:`UnknownItemError` if the item ``after`` was deleted.
        """
        if seed is not None or self.has_products:
            return None
        last = 0
        if after is not None:
            known = self._stored([after], tokens=False)
            if after not in known:
                raise UnknownItemError(after)
            last = known[after].number

        def read(state: _State) -> list[StoredPoint]:
            seen = state.seen(*_conditions(where, state.record))
            return state.collection.scroll(seen, last, limit + 1, tokens=False)

        return page_of(self._of_one_generation(read), limit)

    def sample(self, count: int, seed: int) -> list[str]:
        def drawn(state: _State) -> list[str]:
            numbers = range(1, state.record.next)
            size = wanted = min(count, state.record.items)
            found: dict[int, str] = {}
            chosen: list[int] = []
            # Random numbers may be those of deleted points; draw more if too few points are left.
            while len(found) < wanted:
                chosen = Random(seed).sample(numbers, min(size, len(numbers)))
                seen = state.seen(among(NUMBER, chosen))
                points = state.collection.scroll(seen, 0, len(chosen), tokens=False)
                found = {point.number: point.id for point in points}
                size *= 4
            return [found[number] for number in chosen if number in found][:wanted]

        return self._of_one_generation(drawn)

    def ids(self, where: Filter | None = None) -> list[str]:
        more = _conditions(where, self._state.record)
        return [point.id for found in self._parts(False, *more) for point in found]

    def column_facts(self, few: int, bins: int) -> dict[str, ColumnFacts]:
        """Return attribute -> facts, as :meth:`Index.column_facts`; the server counts them.

        If an attribute has many values, an item with several numbers in one bin counts once in it.
        """

        def read(state: _State) -> dict[str, ColumnFacts]:
            names = sorted(set(state.record.attributes) - RESERVED)
            found = {name: _facts_of(state, name, few, bins) for name in names}
            return {name: facts for name, facts in found.items() if facts is not None}

        return self._of_one_generation(read)

    def _parts(self, tokens: bool, *more: Condition) -> Iterator[list[StoredPoint]]:
        """Yield the points of the open generation that fulfil ``more``, by number, in parts.

        ``tokens``: whether to read their vectors. Raises :class:`EngineError` if the generation is removed
        meanwhile.
        """
        state = self._state
        seen = state.seen(*more)
        collection = state.collection.patient if tokens else state.collection
        last = 0
        while found := collection.scroll(seen, last, WRITTEN, tokens):
            if state.record.generation < _record(state.collection, self.folder).oldest:
                raise EngineError(f"{self.folder} was changed too often while it was read: try again")
            last = found[-1].number
            yield found

    @property
    def record(self) -> IndexRecord:
        """Facts about the open generation."""
        return self._state.record

    def info(self) -> dict[str, Any]:
        collection = self._state.collection
        return {"engine": "server", **super().info(), "server": collection.url, "collection": collection.name}

    def _claimed(self) -> _State:
        """Begin a change of the newest generation; the caller holds the lock of writers.

        What killed writers have left is removed first. Raises :class:`EngineError` if another writer was
        faster.
        """
        self._open_newest(_collection_of(self.folder).patient)
        collection, record = self._state.collection.patient, self._state.record
        left = {by: collection.writers(unfinished(by, record), by) for by in CHANGED}
        claimed = record.model_copy(update={"claim": uuid.uuid4().hex})
        if not _replaced(collection, record, claimed):
            raise self._slower()
        # A writer that wrote these points before this claim can no longer finish its change.
        for by, names in left.items():
            for one in names:
                _take_back(collection, by, one)
        return _State(collection, claimed)

    def _commit(self, change: _State, gone: int = 0) -> None:
        """Make what a change has written the current generation; it has deleted ``gone`` items.

        Raises :class:`EngineError` if another writer was faster.
        """
        collection, before = change
        record = before.model_copy(
            update={
                "writer": before.claim,
                "generation": change.following,
                "oldest": max(before.oldest, change.following - KEPT),
                "items": before.items - gone,
            }
        )
        foreign = (unfinished(by, record) for by in CHANGED)
        if any(map(collection.count, foreign)) or not _replaced(collection, before, record):
            for by in CHANGED:
                _take_back(collection, by, before.claim)
            raise self._slower()
        with self._opening:
            self._state = self._state._replace(record=record)
        # Write the record first, so that readers of points that are being removed can notice it.
        if record.oldest > before.oldest:
            collection.remove(within("died", lte=record.oldest))

    def _slower(self) -> EngineError:
        return EngineError(
            f"another writer changed the index {self.folder} at the same time, so this change was not made: "
            "make it again, and write on one machine only"
        )


def _replaced(collection: Collection, before: IndexRecord, after: IndexRecord) -> bool:
    """Write the record ``after`` if the stored one is still ``before``; return whether it was written."""
    still = [among("change", [before.writer]), among("claim", [before.claim])]
    collection.write_record(_payload_of(after), {"must": still})
    found = collection.read_record() or {}
    return found.get("change") == after.writer and (
        found.get("claim") == after.claim or after.writer != before.writer
    )


def _take_back(collection: Collection, by: str, change: str) -> None:
    """Undo the change with the name ``change``.

    If ``by`` is ``writer``, remove the points that it wrote; if ``killer``, its marks of deleted points.
    """
    if by == "writer":
        collection.remove(among(by, [change]))
    else:
        collection.unmark(among(by, [change]), ["died", by])


def build_in(folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> None:
    """Write all items into a new collection, then a manifest in ``folder`` that names it.

    Raises :class:`EngineError` as :meth:`Index.build`; the new collection is then removed.
    """
    if header.score_rule not in FOLLOWED:
        raise EngineError(
            f"the engine server supports the score rules {', '.join(FOLLOWED)}, but not "
            f"{header.score_rule}: use the engine exact"
        )
    old = _collection_before(folder)
    # The base of the name is unique to the index.
    base = old.name.rpartition("-")[0] if old else f"dqecir-{uuid.uuid4().hex[:12]}"
    url = old.url if old else os.environ.get(URL, "")
    collection = Collection(url, f"{base}-{uuid.uuid4().hex[:8]}").patient
    collection.create((header.tokens, header.size))
    try:
        name = uuid.uuid4().hex
        change = _State(
            collection, IndexRecord(header=header, writer=name, claim=name, generation=0, oldest=1)
        )
        with being_built(collection):
            for batch in ItemBatch.of_build(batches):
                change = _written(change, batch)
                del batch
        collection.write_record(_payload_of(change.record.model_copy(update={"generation": 1})))
    except BaseException:
        # Where the server is away, `dqecir index leftovers` finds the collection.
        with suppress(EngineError):
            replace(collection, patience=0.0).drop()
        raise
    ServerLocation(header=header, store=collection.name, url=url).write(folder)
    # Readers on other machines may use the replaced collection, so it stays until the next build.
    for name in set(siblings(collection)) - {collection.name, old.name if old else None}:
        replace(collection, name=name).drop()


def _collection_of(folder: Path) -> Collection:
    """Return the collection of the index in ``folder``; raises as :meth:`StoreLocation.read`."""
    location = ServerLocation.read(folder)
    return Collection(location.url, location.store)


def _collection_before(folder: Path) -> Collection | None:
    """Return the collection, of any version, that a new build in ``folder`` replaces.

    None if there is none.
    """
    with suppress(DataError, KeyError):
        manifest = manifest_of(folder)
        if manifest["engine"] == "server":
            return Collection(manifest["url"], manifest["store"])
    return None


def _record(collection: Collection, folder: Path) -> IndexRecord:
    found = collection.read_record() or {}
    if "record" not in found:
        raise EngineError(f"the Qdrant server no longer has the points of {folder}: build the index again")
    return parse_settings(json.loads(found["record"]), IndexRecord, f"the record of {folder}")


def _payload_of(record: IndexRecord) -> dict[str, str]:
    return {"record": record.model_dump_json(), "change": record.writer, "claim": record.claim}


def _written(change: _State, batch: ItemBatch) -> _State:
    """Write the items of a batch; return the change with these items in its record."""
    collection, before = change
    stored = batch.as_stored(before.header)
    record = _with_indexes(collection, before, before.with_items(batch.payloads))
    points = points_of(batch, stored, before.next, change.following, before.claim)
    while part := list(islice(points, WRITTEN)):
        collection.write(part)
    return change._replace(record=record)


def _with_indexes(collection: Collection, before: IndexRecord, after: IndexRecord) -> IndexRecord:
    """Index the fields of attributes that ``after`` has and ``before`` lacks; return ``after``."""
    for name, numeric in after.attributes.items():
        if name not in before.attributes and name not in RESERVED:
            collection.index(value_key(name), "keyword")
        if numeric and not before.attributes.get(name):
            collection.index(number_key(name), "float")
    return after


def _mark(change: _State, ids: Sequence[str]) -> int:
    """Mark the items with these ids as deleted by a change; return how many there were."""
    wanted, collection, count = list(dict.fromkeys(ids)), change.collection, 0
    for start in range(0, len(wanted), MARKED):
        there = visible(change.following, among("item", wanted[start : start + MARKED]))
        if number := collection.count(there):
            collection.mark(there, {"died": change.following, "killer": change.record.claim})
            count += number
    return count


def _facts_of(state: _State, name: str, few: int, bins: int) -> ColumnFacts | None:
    """Return the facts about an attribute, as :meth:`Index.column_facts`; None if no item has it."""
    collection, values, numbers = state.collection, value_key(name), number_key(name)
    most = max(few, SOME)
    found = collection.counted(state.seen(), values, most + 1)
    counts = {value.removeprefix("="): count for value, count in found.items()}
    if not counts:
        return None
    if len(counts) <= most:
        return facts_of_counts(counts, few, bins)
    some = list(counts)[:SOME]
    numeric, known = (state.seen({"must_not": [{"is_empty": {"key": key}}]}) for key in (numbers, values))
    if collection.count(numeric) < collection.count(known):
        return ColumnFacts(some, None, None)
    least, largest = collection.outermost(numeric, numbers)
    edges = np.linspace(least, largest, bins + 1).tolist()
    inner = [
        collection.count(state.seen(within(numbers, gte=low, lt=high))) for low, high in pairwise(edges[:-1])
    ]
    last = collection.count(state.seen(within(numbers, gte=edges[-2])))
    return ColumnFacts(some, None, NumberRange(least, largest, [*inner, last]))


def _conditions(where: Filter | None, record: IndexRecord) -> list[Condition]:
    """Translate a filter to conditions; empty for None. Raises ``FilterError`` as :meth:`Filter.check`."""
    if where is None:
        return []
    where.check([record.columns()])
    return [condition(where)]


def _without(ids: Sequence[str]) -> list[Condition]:
    return [{"must_not": [among("item", ids)]}] if ids else []


def _best(state: _State, asked: Search) -> list[list[Hit]]:
    """Return the best items of each query in a generation."""
    if not state.record.items:
        return [[] for _ in asked.queries]
    header, more = state.record.header, _conditions(asked.where, state.record)
    many, limit = header.tokens > 1, SPARE + (max(asked.k, PREFERRED) if any(asked.prefer) else asked.k)
    questions = list(zip(asked.queries, asked.exclude, asked.prefer, strict=True))
    together = max(1, HELD // (limit * asked.queries.shape[1]))
    answers: list[list[Hit]] = []
    for start in range(0, len(questions), together):
        some = questions[start : start + together]
        requests = [
            ([vector] if many else vector, state.seen(*more, *_without(ids)))
            for query, ids, _ in some
            for vector in query.tolist()
        ]
        found = iter(state.collection.search(requests, limit))
        for query, _, preference in some:
            points = {point.number: point for _ in query for point in next(found)}
            answers.append(best_hits(query, points.values(), asked.k, header, preference))
    return answers
