"""One finished generation (state) of an exact index: all its segments as one list of items.

A place is the row of an item, counted through all segments in the order of adding.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dqecir.data.payload_fields import PRODUCT
from dqecir.errors import UnknownItemError
from dqecir.index.filters import Filter
from dqecir.index.item_list import Entry
from dqecir.index.item_preferences import CatalogueText, ItemTexts, Preference, Scores
from dqecir.index.payload_columns import Columns
from dqecir.index.segments import Manifest, MissingFileError, Segment, open_segment, read_manifest

Places = NDArray[np.int64]
"""Places of N items: their rows, counted through all segments."""


@dataclass(frozen=True)
class Generation:
    """An open generation (state) of an index. Writers do not change it; they write the next one."""

    manifest: Manifest
    segments: tuple[Segment, ...]

    @property
    def following(self) -> int:
        """The number of the next generation."""
        return self.manifest.generation + 1

    @property
    def columns(self) -> list[Columns]:
        """The columns of attributes, one part for each segment."""
        return [segment.items.columns for segment in self.segments]

    @cached_property
    def text(self) -> CatalogueText | None:
        """The words of all items; None if those of some segment are not stored."""
        found = [
            ItemTexts(segment.text, segment.items.columns, segment.alive)
            for segment in self.segments
            if segment.text is not None
        ]
        return CatalogueText(found) if len(found) == len(self.segments) else None

    def added(self, prefer: Sequence[Preference]) -> list[Scores]:
        """Return what B preferences add to scores: for each segment of N items an array [B, N]."""
        found = [np.zeros((len(prefer), one.entry.items), dtype=np.float32) for one in self.segments]
        for row, preference in enumerate(prefer):
            for own, columns in zip(found, self.columns, strict=True):
                own[row] += preference.of_cells(columns)
            if preference.words and self.text is not None:
                for own, relevance in zip(found, self.text.relevance(preference.words), strict=True):
                    own[row] += preference.word_weight * relevance
        return found

    @cached_property
    def _starts(self) -> list[int]:
        """The number of items before each segment, and the number of all items."""
        found: list[int] = np.cumsum([0, *(segment.entry.items for segment in self.segments)]).tolist()
        return found

    def row(self, place: int) -> tuple[Segment, int]:
        """Return the segment that holds ``place``, a row counted through all segments, and the row in it."""
        number = bisect_right(self._starts, place) - 1
        return self.segments[number], place - self._starts[number]

    def entry(self, place: int) -> Entry:
        """Return the id and the payload of the item at ``place``, a row counted through all segments."""
        segment, row = self.row(place)
        return segment.items.entry(row)

    def places(self, ids: Sequence[str], are_known: bool = False) -> Places:
        """Return the place of each id, its row counted through all segments; -1 for an id that no item has.

        If ``are_known``, raise :class:`UnknownItemError` instead of returning -1.
        """
        found = np.full(len(ids), -1, dtype=np.int64)
        for start, segment in zip(self._starts[:-1], self.segments, strict=True):
            rows = segment.rows(ids)
            found = np.where(rows >= 0, start + rows, found)
        if are_known and (found < 0).any():
            raise UnknownItemError(ids[int(found.argmin())])
        return found

    def check(self, where: Filter | None) -> None:
        """Raise ``FilterError`` if ``where`` has an unknown attribute, or < or > for one without numbers."""
        if where is not None:
            where.check(self.columns)

    def allowed(self, where: Filter | None = None) -> Places:
        """Return the places of all items that ``where`` allows, without deleted ones, in the order of adding.

        A place is a row, counted through all segments. Raises ``FilterError`` as :meth:`Filter.check`.
        """
        self.check(where)
        masks = (segment.allowed(where) for segment in self.segments)
        return np.flatnonzero(np.concatenate([np.empty(0, dtype=np.bool_), *masks]))

    def listed(self, where: Filter | None = None) -> Places:
        """Return the places of :meth:`allowed`, but only the first place of each product."""
        places = self.allowed(where)
        numbers = self._products[places]
        # Write in reverse order, so that the first place of a product is written last and stays.
        first = np.zeros(int(self._products.max(initial=-1)) + 1, dtype=np.int64)
        shown = np.flatnonzero(numbers >= 0)[::-1]
        first[numbers[shown]] = shown
        kept = numbers < 0
        kept[first[numbers[shown]]] = True
        return places[kept]

    @cached_property
    def _products(self) -> NDArray[np.int64]:
        """A number for the product of each item [N]; -1 for an item without a product."""
        known: dict[object, int] = {}
        found = [np.empty(0, dtype=np.int64)]
        for columns in self.columns:
            column = columns[PRODUCT]
            numbers = [-1, *(known.setdefault(product, len(known)) for product in column.values)]
            found.append(np.array(numbers, dtype=np.int64)[column.codes])
        return np.concatenate(found)

    def order(self, places: Places, seed: int | None) -> NDArray[np.uint64]:
        """Return a number for each place by which items are sorted: the place itself, or a random number.

        A random number depends only on ``seed`` and the id, so that the order stays when other items are
        added or deleted.
        """
        if seed is None:
            return places.astype(np.uint64)
        hashes = (segment.items.hashes_by_row for segment in self.segments)
        mixed = np.concatenate([np.empty(0, dtype=np.uint64), *hashes])[places]
        # The finaliser of splitmix64, which mixes all bits.
        mixed ^= np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def open_generation(folder: Path, known: Sequence[Segment] = ()) -> Generation:
    """Open the newest finished generation of the index in ``folder``.

    Those of the open segments ``known`` that it still has are reused. Raises :class:`EngineError` if a file
    is missing or damaged.
    """
    manifest = read_manifest(folder)
    while True:
        try:
            segments = (open_segment(folder, manifest, entry, known) for entry in manifest.segments)
            return Generation(manifest, tuple(segments))
        except MissingFileError:
            # A writer that finished after the manifest was read has removed replaced files.
            newer = read_manifest(folder)
            if newer == manifest:
                raise
            manifest = newer
