"""What both Qdrant engines share: generations over points, and search by candidates that we score.

Where points lie is a store's business: a process beside this one (``edge.py``), or a server (``server.py``).
A change writes points of the next generation, which nobody sees, and then the record that names it; what a
killed writer left is removed by the next one.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self, TypeVar

from torch import Tensor

from dqecir.errors import EngineError
from dqecir.index.candidates import Search, as_tokens
from dqecir.index.contract import Hit, Index, IndexHeader, ItemBatch, SearchSettings, check_replaceable
from dqecir.index.filters import Filter
from dqecir.index.locking import write_lock
from dqecir.index.payload_columns import Columns
from dqecir.index.prefetch import CANDIDATES, PREFETCHES, distributions_of
from dqecir.index.qdrant_layout import (
    FORMAT,
    Condition,
    Found,
    Record,
    condition,
    has_item,
    vector_sizes,
    visible,
)
from dqecir.index.qdrant_store import (
    MARKED,
    WRITTEN,
    Place,
    Store,
    as_kept,
    check_once,
    is_ours,
    place_before,
    read_place,
    write_batch,
    write_place,
)
from dqecir.io.files import whole_folder
from dqecir.settings import parse_settings

KEPT = 16
"""Generations that can be searched after a change; a handle that is further behind goes on by itself."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _State:
    """What one search sees, whatever is written meanwhile."""

    place: Place
    store: Store
    record: Record


class QdrantIndex(Index):
    """Items of one model as points of a store, under a manifest that says where it is."""

    name: Literal["edge", "server"]

    def __init__(self, folder: Path) -> None:
        """As :meth:`open`."""
        self.folder = folder
        # What a with_settings is searched by in place of what the manifest says.
        self._tried: dict[str, int | None] = {}
        place = read_place(folder, self.name)
        store = self._store(folder, place)
        self._state = _State(place, store, _record(store, folder))
        self.header = self._state.record.header
        # Held while a generation is looked up, so that none is followed by an older one; never by a search.
        self._opening = Lock()

    @classmethod
    @abstractmethod
    def _store(cls, folder: Path, place: Place) -> Store:
        """The store that holds an index."""

    @classmethod
    @abstractmethod
    def _new(cls, folder: Path, old: Place | None, sizes: Mapping[str, int]) -> tuple[str, str | None, Store]:
        """An empty store beside the one in use: its name, its server, and itself."""

    @classmethod
    @abstractmethod
    def _sweep(cls, folder: Path, now: Place, old: Place | None) -> None:
        """Remove stores that no manifest names, as far as nobody uses them."""

    @classmethod
    @abstractmethod
    def _discard(cls, folder: Path, name: str, store: Store) -> None:
        """Remove a store that came to nothing."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        return cls(folder)

    @classmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> Self:
        check_replaceable(folder)
        if is_ours(folder, cls.name):
            # In place, so that a kill at any moment leaves the old index or the new one.
            with write_lock(folder):
                cls._build_in(folder, header, batches)
        else:
            with whole_folder(folder) as draft:
                cls._build_in(draft, header, batches)
        return cls.open(folder)

    @classmethod
    def _build_in(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> None:
        old = place_before(folder, cls.name)
        first = next((batch for batch in batches if batch.ids), None)
        if first is None:
            raise EngineError("there is nothing to index: no image could be used")
        distributions = distributions_of(first.as_stored(header), header.score_rule)
        name, url, store = cls._new(folder, old, vector_sizes(header, distributions))
        try:
            record = Record(
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
                check_once(batch, seen)
                record = write_batch(store, record, batch, 1)
                batch = None
                batch = next(batches, None)
            store.write_record(record.model_dump_json())
            store.flush()
            store.close()
        except BaseException:
            cls._discard(folder, name, store)
            raise
        place = Place(format=FORMAT, engine=cls.name, header=header, store=name, url=url)
        if old is not None and old.header == header:
            # How few candidates are enough depends on the model.
            place = place.model_copy(update={"candidates": old.candidates, "exact_up_to": old.exact_up_to})
        write_place(folder, place)
        cls._sweep(folder, place, old)

    def add(self, batch: ItemBatch) -> None:
        if not batch.ids:
            return
        batch.as_stored(self.header)
        check_once(batch, set())
        with write_lock(self.folder):
            state = self._cleaned()
            generation = state.record.generation + 1
            gone = self._mark(state, batch.ids, generation)
            record = write_batch(state.store, state.record, batch, generation)
            self._commit(state, record, generation, gone)

    def delete(self, ids: Sequence[str]) -> int:
        with write_lock(self.folder):
            state = self._cleaned()
            generation = state.record.generation + 1
            gone = self._mark(state, ids, generation)
            if gone:
                self._commit(state, state.record, generation, gone)
        return gone

    def refresh(self) -> None:
        with self._opening:
            state = self._state
            place = read_place(self.folder, self.name)
            if place.header != self.header:
                raise EngineError(f"{self.folder} was built again by another model: open it again")
            place = place.model_copy(update=self._tried)
            same = (place.store, place.url) == (state.place.store, state.place.url)
            store = state.store if same else self._store(self.folder, place)
            record = _record(store, self.folder)
            if not same or record.generation >= state.record.generation:
                self._state = _State(place, store, record)

    def close(self) -> None:
        self._state.store.close()

    def with_settings(self, settings: SearchSettings | None) -> Self | None:
        # With none, a rule that the engine cannot follow fetches a fixed number, which may be all there are.
        state, plan = self._state, PREFETCHES[self.header.score_rule]
        if settings is None and not plan.is_exact(None) and state.record.items > CANDIDATES:
            return None
        if settings is not None and plan.line_is_exact:
            return None
        handle = copy(self)
        handle._tried = as_kept(settings)
        handle._state = replace(state, place=state.place.model_copy(update=handle._tried))
        return handle

    def configure(self, settings: SearchSettings | None) -> None:
        """As the contract says; with settings, rules that the engine could follow exactly go by lines too."""
        with write_lock(self.folder):
            self.refresh()
            write_place(self.folder, self._state.place.model_copy(update=as_kept(settings)))
            self.refresh()

    def search(
        self,
        queries: Tensor,
        k: int,
        exclude: Sequence[Sequence[str]] | None = None,
        where: Filter | None = None,
    ) -> list[list[Hit]]:
        self.check_search(queries, k, exclude)
        queries = queries.float()

        def answers(state: _State) -> list[list[Hit]]:
            if not state.record.items:
                return [[] for _ in queries]
            if where is not None:
                where.check([state.record.columns()])
            more = [condition(where)] if where is not None else []
            limits = [
                visible(state.record.generation, *more, *_without(ids))
                for ids in (exclude if exclude is not None else [[] for _ in queries])
            ]
            return Search(state.store, state.record, k, _candidates(state, more)).answer(queries, limits)

        return self._of_one_generation(answers)

    def _of_one_generation(self, read: Callable[[_State], Answer]) -> Answer:
        """What ``read`` makes of the open generation, or of a newer one where that is being cleared away."""
        while True:
            state = self._state
            found = read(state)
            if state.record.generation >= _record(state.store, self.folder).oldest:
                return found
            self.refresh()

    def tokens(self, ids: Sequence[str]) -> Tensor:
        wanted = list(dict.fromkeys(ids))

        def by_id(state: _State) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for start in range(0, len(wanted), WRITTEN):
                seen = visible(state.record.generation, has_item(wanted[start : start + WRITTEN]))
                found |= {point.item: point.tokens for point in state.store.scroll(seen, 0, WRITTEN)}
            return found

        found = self._of_one_generation(by_id)
        lacking = [item for item in ids if item not in found]
        if lacking:
            raise EngineError(f"the index has no item {lacking[0]!r}")
        return as_tokens([found[item] for item in ids], self.header)

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

    def payload(self, item_id: str) -> Mapping[str, Any] | None:
        def first(state: _State) -> list[Found]:
            seen = visible(state.record.generation, has_item([item_id]))
            return state.store.scroll(seen, 0, 1, tokens=False)

        found = self._of_one_generation(first)
        return json.loads(found[0].payload) if found else None

    def _parts(self, tokens: bool) -> Iterator[list[Found]]:
        state = self._state
        last = 0
        while found := state.store.scroll(visible(state.record.generation), last, WRITTEN, tokens):
            if state.record.generation < _record(state.store, self.folder).oldest:
                raise EngineError(f"{self.folder} was written to meanwhile, many times: read it again")
            last = found[-1].number
            yield found

    def columns(self) -> list[Columns]:
        return [self._state.record.columns()]

    @property
    def generation(self) -> int:
        return self._state.record.generation

    def info(self) -> dict[str, Any]:
        state = self._state
        return {
            "engine": self.name,
            "items": len(self),
            "attributes": sorted(set(state.record.attributes) - {"path"}),
            "model": self.header.model,
            "tokens": f"{self.header.tokens} of width {self.header.size}",
            "score rule": self.header.score_rule,
            "generation": state.record.generation,
            "candidates": _way(state),
            "exact up to": state.place.exact_up_to,
            **state.store.facts(),
        }

    @classmethod
    def verify(cls, folder: Path) -> None:
        index = cls.open(folder)
        count = 0
        for batch in index.items():
            batch.as_stored(index.header)
            count += len(batch.ids)
        if count != len(index):
            raise EngineError(f"{folder} holds {count} items where its record says {len(index)}")

    def __len__(self) -> int:
        return self._state.record.items

    def __contains__(self, item_id: str) -> bool:
        return self.payload(item_id) is not None

    def _cleaned(self) -> _State:
        """The newest generation, without what killed writers left; for who holds the lock of writers."""
        self.refresh()
        state = self._state
        after = {"range": {"gt": state.record.generation}}
        state.store.remove({"must": [{"key": "born", **after}]})
        state.store.unmark({"must": [{"key": "died", **after}]})
        return state

    def _mark(self, state: _State, ids: Sequence[str], generation: int) -> int:
        wanted = list(dict.fromkeys(ids))
        count = 0
        for start in range(0, len(wanted), MARKED):
            there = visible(generation - 1, has_item(wanted[start : start + MARKED]))
            if number := state.store.count(there):
                state.store.mark_dead(there, generation)
                count += number
        return count

    def _commit(self, state: _State, record: Record, generation: int, gone: int) -> None:
        record = record.model_copy(
            update={
                "generation": generation,
                "oldest": max(record.oldest, generation - KEPT),
                "items": record.items - gone,
            }
        )
        state.store.write_record(record.model_dump_json())
        state.store.flush()
        with self._opening:
            self._state = replace(state, record=record)
        # The record is first: who reads points that go finds in it that they may.
        if record.oldest > state.record.oldest:
            state.store.remove({"must": [{"key": "died", "range": {"lte": record.oldest}}]})


def _record(store: Store, folder: Path) -> Record:
    text = store.read_record()
    if text is None:
        raise EngineError(f"the points of {folder} are gone: build the index again")
    return parse_settings(json.loads(text), Record, f"the record of {folder}")


def _without(ids: Sequence[str]) -> list[Condition]:
    return [{"must_not": [has_item(ids)]}] if ids else []


def _candidates(state: _State, more: Sequence[Condition]) -> int | None:
    """How many items a search that is limited by ``more`` fetches; None leaves it to the rule."""
    place = state.place
    if not more or place.candidates is None or place.exact_up_to <= place.candidates:
        return place.candidates
    if state.store.count(visible(state.record.generation, *more)) > place.exact_up_to:
        return place.candidates
    return None if PREFETCHES[state.record.header.score_rule].is_exact(None) else place.exact_up_to


def _way(state: _State) -> int | str:
    count = state.place.candidates
    return "exact" if PREFETCHES[state.record.header.score_rule].is_exact(count) else count or CANDIDATES
