"""The engine ``server``: items as points of a collection on a Qdrant server or cluster.

The index's folder holds the manifest, which names the server and the collection, and the writers' lock.
A change writes points of the next generation, which no search sees, and then the record that names the
generation. The next writer removes the points that a killed writer left.

The address comes from ``DQECIR_QDRANT_URL`` when an index is first built, and from the manifest afterwards.
The key comes from ``DQECIR_QDRANT_KEY`` and is never stored.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any, Literal, Self, TypeVar

from pydantic import Field
from torch import Tensor

from dqecir.data.payload_fields import RESERVED
from dqecir.errors import DataError, EngineError, UnknownItemError
from dqecir.index.candidates import Search, as_tokens
from dqecir.index.contract import Hit, Index, IndexHeader, ItemBatch, SearchSettings, check_replaceable
from dqecir.index.engines import engine_of
from dqecir.index.filters import Filter
from dqecir.index.item_preferences import Preference
from dqecir.index.locking import write_lock
from dqecir.index.payload_columns import Columns, values_in
from dqecir.index.prefetch import CANDIDATES, PREFETCHES, check_followed, distributions_of
from dqecir.index.qdrant_collection import URL, Collection
from dqecir.index.qdrant_points import (
    FORMAT,
    Condition,
    IndexRecord,
    StoredPoint,
    attributes_of,
    condition,
    has_item,
    has_number,
    number_key,
    points_of,
    vector_sizes,
    visible,
)
from dqecir.io.files import sync_folder, whole_folder, write_json
from dqecir.settings import Strict, parse_settings

KEPT = 16
"""Number of generations that can be searched; a handle that is further behind opens the newest."""

WRITTEN = 128
"""Points written or read in one request, so that other requests can be served in between."""

MARKED = 1024
"""Items marked as deleted in one request, which takes as long as writing a part."""

PREFERRED = 256
"""Items that a search with preferences fetches and reorders."""

ReadT = TypeVar("ReadT")


class StoreLocation(Strict):
    """``manifest.json``: where an index is stored, and how it is searched."""

    format: int
    engine: Literal["server"]
    header: IndexHeader
    store: str = Field(min_length=1)
    """The collection."""
    url: str = Field(min_length=1)
    """The server."""
    candidates: int | None = Field(default=None, ge=1)
    """Number of items that a search fetches and scores. Default: as many as the rule needs."""
    exact_up_to: int = Field(default=0, ge=0)
    """If a filter leaves at most so many items, a search scores all of them."""

    @property
    def collection(self) -> Collection:
        return Collection(self.url, self.store)


@dataclass(frozen=True)
class _State:
    """The state that a search uses, unchanged by writers."""

    location: StoreLocation
    record: IndexRecord

    @property
    def collection(self) -> Collection:
        return self.location.collection


class ServerIndex(Index):
    """Items of one model in a collection, under a manifest that names it."""

    def __init__(self, folder: Path) -> None:
        """As :meth:`open`."""
        self.folder = folder
        # The settings of a handle of :meth:`with_settings`, instead of the manifest's.
        self._settings: dict[str, int | None] = {}
        location = _read_location(folder)
        self._state = _State(location, _record(location.collection, folder))
        self.header = self._state.record.header
        # Held while a generation is opened, so that no older one replaces it; searches never hold it.
        self._opening = Lock()

    @classmethod
    def open(cls, folder: Path) -> Self:
        return cls(folder)

    @classmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> Self:
        check_replaceable(folder)
        if _location_before(folder):
            # In place, so that a kill at any moment leaves the old index or the new one.
            with write_lock(folder):
                _build_in(folder, header, batches)
        else:
            with whole_folder(folder) as draft:
                _build_in(draft, header, batches)
        return cls.open(folder)

    def add(self, batch: ItemBatch, instead_of: Sequence[str] = ()) -> None:
        if not batch.ids:
            return
        batch.as_stored(self.header)
        _check_once(batch, set())
        with write_lock(self.folder):
            state = self._cleaned()
            generation = state.record.generation + 1
            gone = _mark(state, [*batch.ids, *instead_of], generation)
            record = _write_batch(state.collection, state.record, batch, generation)
            self._commit(state, record, generation, gone)

    def delete(self, ids: Sequence[str]) -> int:
        with write_lock(self.folder):
            state = self._cleaned()
            generation = state.record.generation + 1
            gone = _mark(state, ids, generation)
            if gone:
                self._commit(state, state.record, generation, gone)
        return gone

    def refresh(self) -> None:
        with self._opening:
            state = self._state
            location = _read_location(self.folder)
            if location.header != self.header:
                raise EngineError(f"{self.folder} was built again by another model: open it again")
            location = location.model_copy(update=self._settings)
            record = _record(location.collection, self.folder)
            if location.collection != state.collection or record.generation >= state.record.generation:
                self._state = _State(location, record)

    def with_settings(self, settings: SearchSettings | None) -> Self | None:
        # Without settings, a rule that is no inner product fetches a fixed number, perhaps all items.
        state, plan = self._state, PREFETCHES[self.header.score_rule]
        if settings is None and not plan.is_exact(None) and state.record.items > CANDIDATES:
            return None
        if settings is not None and plan.line_is_exact:
            return None
        handle = copy(self)
        handle._settings = _as_kept(settings)
        handle._state = replace(state, location=state.location.model_copy(update=handle._settings))
        return handle

    def configure(self, settings: SearchSettings | None) -> None:
        """Store the settings of searches.

        With settings, rules that the engine can rank exactly use lines too.
        """
        with write_lock(self.folder):
            self.refresh()
            _write_location(self.folder, self._state.location.model_copy(update=_as_kept(settings)))
            self.refresh()

    def search(
        self,
        queries: Tensor,
        k: int,
        exclude: Sequence[Sequence[str]] | None = None,
        where: Filter | None = None,
        prefer: Sequence[Preference] | None = None,
    ) -> list[list[Hit]]:
        self.check_search(queries, k, exclude)
        queries = queries.float()

        fetched = max(k, PREFERRED) if prefer is not None and any(prefer) else k

        def answers(state: _State) -> list[list[Hit]]:
            if not state.record.items:
                return [[] for _ in queries]
            more = _conditions(where, state.record)
            limits = [
                visible(state.record.generation, *more, *_without(ids))
                for ids in exclude or [[] for _ in queries]
            ]
            search = Search(state.collection, state.record, fetched, _candidates(state, more))
            return search.answer(queries, limits)

        found = self._of_one_generation(answers)
        if fetched == k or prefer is None:
            return found
        return [_preferred(*pair)[:k] for pair in zip(found, prefer, strict=True)]

    def _of_one_generation(self, read: Callable[[_State], ReadT]) -> ReadT:
        """Read the open generation, or a newer one if the open one is being removed."""
        while True:
            state = self._state
            found = read(state)
            if state.record.generation >= _record(state.collection, self.folder).oldest:
                return found
            self.refresh()

    def tokens(self, ids: Sequence[str]) -> Tensor:
        found = self._points(ids, tokens=True)
        lacking = [item for item in ids if item not in found]
        if lacking:
            raise UnknownItemError(lacking[0])
        return as_tokens([found[item].tokens for item in ids], self.header)

    def payloads(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        return {item: json.loads(point.payload) for item, point in self._points(ids, tokens=False).items()}

    def _points(self, ids: Sequence[str], tokens: bool) -> dict[str, StoredPoint]:
        """Return the points of items by id, without unknown ids."""
        wanted = list(dict.fromkeys(ids))

        def by_id(state: _State) -> dict[str, StoredPoint]:
            found: dict[str, StoredPoint] = {}
            for start in range(0, len(wanted), WRITTEN):
                seen = visible(state.record.generation, has_item(wanted[start : start + WRITTEN]))
                points = state.collection.scroll(seen, 0, WRITTEN, tokens)
                found |= {point.item: point for point in points}
            return found

        return self._of_one_generation(by_id)

    def sample(self, count: int, seed: int) -> list[str]:
        def drawn(state: _State) -> list[str]:
            numbers = range(1, state.record.next)
            size = wanted = min(count, state.record.items)
            found: dict[int, str] = {}
            chosen: list[int] = []
            # Numbers of deleted points are drawn too; draw more if too few points are left.
            while len(found) < wanted:
                chosen = Random(seed).sample(numbers, min(size, len(numbers)))
                seen = visible(state.record.generation, has_number(chosen))
                points = state.collection.scroll(seen, 0, len(chosen), tokens=False)
                found = {point.number: point.item for point in points}
                size *= 4
            return [found[number] for number in chosen if number in found][:wanted]

        return self._of_one_generation(drawn)

    def items(self) -> Iterator[ItemBatch]:
        for found in self._parts(tokens=True):
            yield ItemBatch(
                [point.item for point in found],
                as_tokens([point.tokens for point in found], self.header),
                [json.loads(point.payload) for point in found],
            )

    def entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for found in self._parts(tokens=False):
            yield from ((point.item, json.loads(point.payload)) for point in found)

    def ids(self, where: Filter | None = None) -> list[str]:
        more = _conditions(where, self._state.record)
        return [point.item for found in self._parts(False, *more) for point in found]

    def values(self) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {}
        for _, payload in self.entries():
            for name, value in payload.items():
                if name not in RESERVED and (values := values_in(value)):
                    found.setdefault(name, Counter()).update(map(str, values))
        return found

    def _parts(self, tokens: bool, *more: Condition) -> Iterator[list[StoredPoint]]:
        """Yield the points of the open generation that fulfil ``more``, by number, a part at a time."""
        state = self._state
        seen = visible(state.record.generation, *more)
        last = 0
        while found := state.collection.scroll(seen, last, WRITTEN, tokens):
            if state.record.generation < _record(state.collection, self.folder).oldest:
                raise EngineError(f"{self.folder} was changed many times while it was read: try again")
            last = found[-1].number
            yield found

    def columns(self) -> list[Columns]:
        return [self._state.record.columns()]

    @property
    def generation(self) -> int:
        return self._state.record.generation

    def info(self) -> dict[str, Any]:
        state = self._state
        count = state.location.candidates
        exact = PREFETCHES[self.header.score_rule].is_exact(count)
        return {
            "engine": state.location.engine,
            "items": len(self),
            "attributes": sorted(set(state.record.attributes) - RESERVED),
            "model": self.header.model,
            "tokens": f"{self.header.tokens} of width {self.header.size}",
            "score rule": self.header.score_rule,
            "generation": self.generation,
            "candidates": "exact" if exact else count or CANDIDATES,
            "exact up to": state.location.exact_up_to,
            "server": state.location.url,
            "collection": state.location.store,
        }

    def __len__(self) -> int:
        return self._state.record.items

    def _cleaned(self) -> _State:
        """Return the newest generation, and remove what killed writers left.

        The caller holds the writers' lock.
        """
        self.refresh()
        state = self._state
        after = {"range": {"gt": state.record.generation}}
        state.collection.remove({"must": [{"key": "born", **after}]})
        state.collection.unmark({"must": [{"key": "died", **after}]})
        return state

    def _commit(self, state: _State, record: IndexRecord, generation: int, gone: int) -> None:
        record = record.model_copy(
            update={
                "generation": generation,
                "oldest": max(record.oldest, generation - KEPT),
                "items": record.items - gone,
            }
        )
        state.collection.write_record(record.model_dump_json())
        with self._opening:
            self._state = replace(state, record=record)
        # Write the record first, so that readers of points that are being removed can notice it.
        if record.oldest > state.record.oldest:
            state.collection.remove({"must": [{"key": "died", "range": {"lte": record.oldest}}]})


def _build_in(folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> None:
    """Write all items into a new collection and then the manifest that names it."""
    check_followed(header.score_rule)
    old = _location_before(folder)
    first = next((batch for batch in batches if batch.ids), None)
    if first is None:
        raise EngineError("there is nothing to index: no image could be used")
    distributions = distributions_of(first.as_stored(header), header.score_rule)
    # The base of the name is unique to the index; the number counts its collections.
    base = old.store.rpartition("-")[0] if old else f"dqecir-{uuid.uuid4().hex[:12]}"
    url = old.url if old else os.environ.get(URL, "")
    numbers = [int(name.rpartition("-")[2]) for name in Collection(url, base).siblings(base)]
    collection = Collection(url, f"{base}-{max(numbers, default=0) + 1:08}")
    collection.create(vector_sizes(header, distributions))
    try:
        record = IndexRecord(
            header=header,
            distributions=distributions,
            generation=1,
            oldest=1,
            next=1,
            items=0,
            attributes={},
        )
        seen: set[str] = set()
        batch: ItemBatch | None = first
        del first
        while batch is not None:
            _check_once(batch, seen)
            record = _write_batch(collection, record, batch, 1)
            batch = None
            batch = next(batches, None)
        collection.write_record(record.model_dump_json())
    except BaseException:
        collection.drop()
        raise
    location = StoreLocation(format=FORMAT, engine="server", header=header, store=collection.name, url=url)
    if old and old.header == header:
        # The number of candidates that is enough depends on the model.
        location = location.model_copy(update={"candidates": old.candidates, "exact_up_to": old.exact_up_to})
    _write_location(folder, location)
    # Readers on other machines may use the replaced collection, so it stays until the next build.
    for name in set(collection.siblings(base)) - {collection.name, old.store if old else None}:
        Collection(url, name).drop()


def _read_location(folder: Path) -> StoreLocation:
    """Read the manifest of an index; raises :class:`EngineError` if it is not of this engine."""
    named = engine_of(folder)
    if named != "server":
        raise EngineError(f"{folder} is an index of the engine {named}, not of server")
    path = folder / "manifest.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("format") != FORMAT:
        raise EngineError(f"{folder} is an index of another version: build it again")
    return parse_settings(data, StoreLocation, str(path))


def _location_before(folder: Path) -> StoreLocation | None:
    """Read the manifest that a build replaces; None if it is not of this engine and version."""
    try:
        return _read_location(folder)
    except DataError:
        return None


def _write_location(folder: Path, location: StoreLocation) -> None:
    """Replace the manifest; after this returns, the new one survives a kill and a power cut."""
    write_json(folder / "manifest.json", location.model_dump(mode="json"))
    sync_folder(folder)


def _record(collection: Collection, folder: Path) -> IndexRecord:
    text = collection.read_record()
    if text is None:
        raise EngineError(f"the Qdrant server no longer has the points of {folder}: build the index again")
    return parse_settings(json.loads(text), IndexRecord, f"the record of {folder}")


def _check_once(batch: ItemBatch, seen: set[str]) -> None:
    """Add the batch's ids to ``seen``; raises :class:`EngineError` for a repeated id."""
    for item in batch.ids:
        if item in seen:
            raise EngineError(f"the item {item!r} comes twice: every item needs an id of its own")
        seen.add(item)


def _write_batch(
    collection: Collection, record: IndexRecord, batch: ItemBatch, generation: int
) -> IndexRecord:
    """Write a batch, and return the record that includes it, which is not written yet."""
    stored = batch.as_stored(record.header)
    named = attributes_of(batch.payloads)
    for name, numeric in named.items():
        if numeric and not record.attributes.get(name):
            collection.index(number_key(name), "float")
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
        collection.write(points)
    attributes = record.attributes | {
        name: numeric or record.attributes.get(name, False) for name, numeric in named.items()
    }
    count = len(batch.ids)
    return record.model_copy(
        update={"next": record.next + count, "items": record.items + count, "attributes": attributes}
    )


def _mark(state: _State, ids: Sequence[str], generation: int) -> int:
    """Mark the items with these ids as deleted from a generation on, and count them."""
    wanted = list(dict.fromkeys(ids))
    count = 0
    for start in range(0, len(wanted), MARKED):
        there = visible(generation - 1, has_item(wanted[start : start + MARKED]))
        if number := state.collection.count(there):
            state.collection.mark_dead(there, generation)
            count += number
    return count


def _as_kept(settings: SearchSettings | None) -> dict[str, int | None]:
    """Return settings as fields of a :class:`StoreLocation`."""
    return settings.model_dump() if settings else {"candidates": None, "exact_up_to": 0}


def _conditions(where: Filter | None, record: IndexRecord) -> list[Condition]:
    """Translate a filter to conditions; raises ``FilterError`` as :meth:`Filter.check`."""
    if where is None:
        return []
    where.check([record.columns()])
    return [condition(where)]


def _preferred(hits: Sequence[Hit], preference: Preference) -> list[Hit]:
    """Add the preference to the scores of hits, and sort them."""
    added = preference.of_cells(Columns.of([hit.payload for hit in hits]))
    scored = [replace(hit, score=hit.score + more) for hit, more in zip(hits, added.tolist(), strict=True)]
    return sorted(scored, key=lambda hit: -hit.score)


def _without(ids: Sequence[str]) -> list[Condition]:
    return [{"must_not": [has_item(ids)]}] if ids else []


def _candidates(state: _State, more: Sequence[Condition]) -> int | None:
    """Return how many items a search within ``more`` fetches; None: as many as the rule needs."""
    location = state.location
    if not more or location.candidates is None or location.exact_up_to <= location.candidates:
        return location.candidates
    if state.collection.count(visible(state.record.generation, *more)) > location.exact_up_to:
        return location.candidates
    return None if PREFETCHES[state.record.header.score_rule].is_exact(None) else location.exact_up_to
