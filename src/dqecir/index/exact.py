"""The engine ``exact``: tokens in float16 in memory-mapped files; by default every item is scored.

It needs no other packages, and finds the right results by definition; other engines are compared with it.
Items are stored in segments, which never change. A change writes a new segment, or marks items of old ones as
deleted, and takes effect when it replaces the manifest.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

import numpy as np

from dqecir.data.payload_fields import RESERVED
from dqecir.errors import EngineError
from dqecir.index.column_facts import ColumnFacts, facts_of_columns
from dqecir.index.contract import Hit, Index, IndexHeader, ItemBatch, Page, Search, SearchSettings
from dqecir.index.filters import Filter
from dqecir.index.generation import Generation, open_generation
from dqecir.index.item_preferences import CatalogueText
from dqecir.index.item_text import FILE as TEXT
from dqecir.index.item_text import NO_FTS5, has_fts5, text_digest
from dqecir.index.locking import place_to_build, write_lock
from dqecir.index.payload_changes import join_changes, with_payloads
from dqecir.index.payload_columns import Columns
from dqecir.index.projection import NO_FAISS, PROJECTED, has_faiss, project
from dqecir.index.segments import (
    Manifest,
    Segment,
    SegmentEntry,
    as_tensor,
    living_items,
    read_manifest,
    stored_parts,
    sweep,
    token_digest,
    with_dead,
    with_projected,
    write_manifest,
    write_segment,
)

if TYPE_CHECKING:
    from torch import Tensor

MERGED = 4
"""When this many segments (parts of the index on disk) have similar sizes, they are merged into one."""

LARGE = 1 << 28
"""Bytes of tokens from which on freeing a removed file is slow."""

LINGERS = 5.0
"""Seconds for which a removed large segment stays open: longer than any search takes."""


class ExactIndex(Index):
    """An index whose items are in segments (parts of the index on disk), which ``manifest.json`` lists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._current = open_generation(folder)
        self.header = self._current.manifest.header
        # Held while a generation is opened, so that no older one replaces it; searches do not need it.
        self._opening = Lock()

    def __len__(self) -> int:
        return sum(segment.living for segment in self._current.segments)

    def tokens(self, ids: Sequence[str]) -> Tensor:
        now = self._current
        rows = map(now.row, now.places(ids, are_known=True).tolist())
        found = np.array([segment.stored[row] for segment, row in rows], dtype=np.float16)
        return as_tensor(found.reshape(len(ids), self.header.tokens, self.header.size))

    def _search(self, asked: Search) -> list[list[Hit]]:
        from dqecir.index.scan import best_of_segments  # It imports torch, which is not needed to read facts.

        now = self._current
        if not now.segments:
            return [[] for _ in asked.queries]
        now.check(asked.where)
        added = now.added(asked.prefer) if any(asked.prefer) else None
        found = best_of_segments(now.segments, asked, self.header.score_rule, now.manifest.quick, added)

        def hit(value: float, place: int) -> Hit:
            item_id, payload = now.entry(place)
            return Hit(item_id, value, payload)

        return [[hit(value, place) for value, place in hits] for hits in found]

    @classmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> ExactIndex:
        is_there = False
        with suppress(EngineError):
            is_there = bool(read_manifest(folder))
        with place_to_build(folder, in_place=is_there) as place:
            old = read_manifest(place) if is_there else None
            number = 1 + (old.generation if old else 0)
            # Keep settings only for the same model: how many candidates are enough depends on the model.
            quick = old.quick if old and old.header == header else None
            parts = stored_parts(header, ItemBatch.of_build(batches))
            entry = write_segment(place, number, header, parts, quick)
            manifest = Manifest(generation=number, header=header, segments=(entry,), quick=quick)
            write_manifest(place, manifest)
            sweep(place, manifest)
        return cls.open(folder)

    def add(self, batch: ItemBatch, instead_of: Sequence[str] = ()) -> None:
        if not batch.ids:
            return
        with self._writing() as now:
            parts = stored_parts(self.header, [batch])
            entry = write_segment(self.folder, now.following, self.header, parts, now.manifest.quick)
            self._commit(now, [*self._without(now, [*batch.ids, *instead_of]), entry])

    def delete(self, ids: Sequence[str]) -> int:
        with self._writing() as now:
            entries = self._without(now, ids)
            count = sum(entry.dead for entry in entries) - sum(segment.entry.dead for segment in now.segments)
            if count:
                self._commit(now, entries)
        return count

    def change_payloads(self, payloads: Mapping[str, Mapping[str, Any]]) -> int:
        with self._writing() as now:
            entries, left = [], list(payloads)
            for segment in now.segments:
                rows = segment.rows(left).tolist()
                new = {row: (item, payloads[item]) for item, row in zip(left, rows, strict=True) if row >= 0}
                left = [item for item, row in zip(left, rows, strict=True) if row < 0]
                entries.append(with_payloads(self.folder, now.following, segment, new))
            if entries != [segment.entry for segment in now.segments]:
                self._commit(now, entries)
        return len(payloads) - len(left)

    def configure(self, settings: SearchSettings | None) -> None:
        """Store ``settings`` for all later searches; None: every item is scored.

        If they need projected vectors (``projection.py``), make those that are missing. Raises
        :class:`EngineError` for settings if the score rule is not ``dot``, or if FAISS is missing.
        """
        if settings is not None and self.header.score_rule != "dot":
            raise EngineError(
                f"the engine exact scores every item by the rule {self.header.score_rule}: the number of "
                "candidates cannot be set, leave it out"
            )
        if settings is not None and not has_faiss():
            raise EngineError(NO_FAISS)
        with self._writing() as now:
            entries = [segment.entry for segment in now.segments]
            if settings is None:
                entries = [entry.model_copy(update={"projected_sha256": None}) for entry in entries]
            else:
                entries = [
                    entry if segment.projected else with_projected(self.folder, entry, settings)
                    for entry, segment in zip(entries, now.segments, strict=True)
                ]
            manifest = now.manifest.model_copy(update={"quick": settings})
            self._commit(Generation(manifest, now.segments), entries)

    def with_settings(self, settings: SearchSettings | None) -> ExactIndex | None:
        """Return this index with other settings for searches, to measure them; None: every item is scored.

        Projected vectors (``projection.py``) that are missing are made in memory, and not written.
        The result is None for settings if the score rule is not ``dot``, or if FAISS is missing.
        """
        if settings is not None and (self.header.score_rule != "dot" or not has_faiss()):
            return None
        now = self._current
        segments = tuple(
            segment
            if settings is None or segment.projected or segment.entry.items <= settings.exact_up_to
            else replace(segment, projected=project(segment.stored))
            for segment in now.segments
        )
        handle = copy(self)
        handle._current = Generation(now.manifest.model_copy(update={"quick": settings}), segments)
        return handle

    @property
    def settings(self) -> SearchSettings | None:
        return self._current.manifest.quick

    @property
    def text(self) -> CatalogueText | None:
        return self._current.text

    def why_no_text(self) -> str:
        if not has_fts5():
            return NO_FTS5
        return "the index was built without the words of its titles: build it again to search them"

    def refresh(self) -> None:
        with self._opening:
            if read_manifest(self.folder) != self._current.manifest:
                self._open_newest()

    @property
    def generation(self) -> int:
        return self._current.manifest.generation

    def info(self) -> dict[str, Any]:
        now = self._current
        return {
            "engine": "exact",
            **super().info(),
            "segments": len(now.segments),
            "text": self.why_no_text() if now.text is None else list(now.text.columns),
            "quick": self._quick(),
            "dead items": sum(segment.entry.dead for segment in now.segments),
            "bytes of tokens": sum(segment.entry.token_bytes for segment in now.segments),
        }

    def _quick(self) -> dict[str, int] | str | None:
        """Return facts for users about approximate search: its settings, or why it is off.

        The result is None if approximate search is not set.
        """
        settings = self._current.manifest.quick
        if settings is None:
            return None
        return settings.model_dump() if has_faiss() else f"every item is scored: {NO_FAISS}"

    def columns(self) -> list[Columns]:
        return self._current.columns

    def items(self) -> Iterator[ItemBatch]:
        for entries, tokens in living_items(self._current.segments):
            ids, payloads = zip(*entries, strict=True)
            yield ItemBatch(ids, as_tensor(tokens), payloads)

    def entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        now = self._current
        return map(now.entry, now.allowed().tolist())

    def ids(self, where: Filter | None = None) -> list[str]:
        now = self._current
        now.check(where)
        return [
            segment.items.item_id(row)
            for segment in now.segments
            for row in np.flatnonzero(segment.allowed(where)).tolist()
        ]

    def count(self, where: Filter | None = None) -> int:
        return len(self._current.listed(where))

    def page(
        self, limit: int, after: str | None = None, where: Filter | None = None, seed: int | None = None
    ) -> Page:
        now = self._current
        places = now.listed(where)
        order = now.order(places, seed)
        sequence, begin = np.argsort(order, kind="stable"), 0
        if after is not None:
            last = now.order(now.places([after], are_known=True), seed)
            begin = int(np.searchsorted(order[sequence], last, side="right")[0])
        entries = [now.entry(place) for place in places[sequence[begin : begin + limit]].tolist()]
        return Page(entries, entries[-1][0] if begin + limit < len(places) else None)

    def sample(self, count: int, seed: int) -> list[str]:
        now = self._current
        places = now.allowed()
        drawn = random.Random(seed).sample(range(len(places)), min(count, len(places)))
        chosen = map(now.row, places[drawn].tolist())
        return [segment.items.item_id(row) for segment, row in chosen]

    def payloads(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        now = self._current
        return dict(now.entry(place) for place in now.places(ids).tolist() if place >= 0)

    def column_facts(self, few: int, bins: int) -> dict[str, ColumnFacts]:
        now = self._current
        names = {name for part in now.columns for name in part.names} - RESERVED
        found = {
            name: facts_of_columns([(one.items.columns[name], one.alive) for one in now.segments], few, bins)
            for name in names
        }
        return {name: facts for name, facts in found.items() if facts is not None}

    @classmethod
    def verify(cls, folder: Path) -> None:
        """Read every token, which :meth:`open` does not; raise :class:`EngineError` if a file has changed."""
        for segment in cls.open(folder)._current.segments:
            if token_digest(segment.stored) != segment.entry.token_sha256:
                raise EngineError(
                    f"{folder}/{segment.entry.name}/tokens.npy is damaged: build the index again"
                )
            if segment.projected is None and segment.entry.projected_sha256 and has_faiss():
                raise EngineError(
                    f"{folder}/{segment.entry.name}/{PROJECTED} is damaged: audit the index again "
                    "(dqecir index audit --apply)"
                )
            place = folder / segment.entry.name
            words = [(place, segment.entry.text_sha256)]
            words += [(place / change.name, change.text_sha256) for change in segment.entry.changes]
            for part, digest in words:
                if digest is not None and text_digest(part) != digest:
                    raise EngineError(f"{part / TEXT} is damaged: build the index again")

    @contextmanager
    def _writing(self) -> Iterator[Generation]:
        """Lock the index, and yield its newest generation; afterwards merge segments if that is worth it.

        Raises :class:`EngineError` as :func:`write_lock`, and instead of an ``OSError`` in the ``with``
        block.
        """
        with write_lock(self.folder):
            self.refresh()
            try:
                yield self._current
            except OSError as error:
                raise EngineError(
                    f"{self.folder} cannot be written to ({error.strerror}): the change may be lost. Free "
                    "some space, or check the permissions of the folder, and repeat the change"
                ) from None
            # The change has taken effect already; the next one will report a full disk.
            with suppress(OSError):
                self._merge()
                sweep(self.folder, self._current.manifest)

    def _commit(self, now: Generation, entries: Sequence[SegmentEntry]) -> None:
        living = tuple(entry for entry in entries if entry.dead < entry.items)
        manifest = now.manifest.model_copy(update={"generation": now.following, "segments": living})
        with self._opening:
            write_manifest(self.folder, manifest)
            self._open_newest()

    def _open_newest(self) -> None:
        newest = open_generation(self.folder, self._current.segments)
        if newest.manifest.header != self.header:
            raise EngineError(f"{self.folder} was built again by another model: open it again")
        replaced, self._current = self._current, newest
        kept = {segment.entry.name for segment in newest.segments}
        _linger([segment for segment in replaced.segments if segment.entry.name not in kept])

    def _without(self, now: Generation, ids: Sequence[str]) -> list[SegmentEntry]:
        return [with_dead(self.folder, now.following, segment, ids) for segment in now.segments]

    def _merge_changes(self) -> None:
        now = self._current
        entries = [
            join_changes(self.folder, now.following, segment, run) if run else segment.entry
            for segment in now.segments
            for run in [_alike([change.items for change in segment.entry.changes])]
        ]
        if entries != [segment.entry for segment in now.segments]:
            self._commit(now, entries)

    def _merge(self) -> None:
        self._merge_changes()
        while run := _worth_merging(self._current.segments):
            now = self._current
            merged = living_items(now.segments[run.start : run.stop])
            entry = write_segment(self.folder, now.following, self.header, merged, now.manifest.quick)
            entries = [segment.entry for segment in now.segments]
            self._commit(now, [*entries[: run.start], entry, *entries[run.stop :]])


def _linger(replaced: Sequence[Segment]) -> None:
    """Keep the large ones of ``replaced`` segments open for :data:`LINGERS` seconds.

    Then a separate thread closes them. Freeing a large deleted mapping is slow, and the last search that uses
    a segment would otherwise do it.
    """
    held = [segment for segment in replaced if segment.entry.token_bytes >= LARGE]
    if held:
        timer = Timer(LINGERS, held.clear)
        timer.daemon = True
        timer.start()


def _worth_merging(segments: Sequence[Segment]) -> range | None:
    """Return the places in ``segments`` of neighbours that should be merged; None if none should.

    They are a segment of mostly deleted items, or the newest segments if many have similar sizes.
    """
    for place, segment in enumerate(segments):
        if segment.entry.dead > segment.living:
            return range(place, place + 1)
    return _alike([segment.living for segment in segments])


def _alike(sizes: Sequence[int]) -> range | None:
    """Return the places of the last of ``sizes``, if at least :data:`MERGED` are similar; else None.

    ``sizes`` are numbers of items, in the order of adding.

    The run grows backwards as long as the next size is not larger than the whole run. Thus an item is copied
    only when its segment becomes several times larger, and the number of segments grows with the logarithm of
    the number of items.
    """
    start, total = len(sizes), 0
    while start and (not total or sizes[start - 1] <= total):
        start -= 1
        total += sizes[start]
    return range(start, len(sizes)) if len(sizes) - start >= MERGED else None
