"""The base of engines whose items are in a database or on a server: facts, reading items, final scores."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dqecir.errors import EngineError, UnknownItemError
from dqecir.index.contract import Hit, Index, IndexHeader, ItemBatch, Page, manifest_of
from dqecir.index.item_preferences import Preference
from dqecir.index.payload_columns import Columns, least_number
from dqecir.io.files import sync_folder, write_json
from dqecir.methods.scoring import best_columns, score_of_results
from dqecir.settings import Strict, parse_settings

SPARE = 16
"""Items that are read beyond the wanted ones, because servers compute inner products with float16
precision."""

PREFERRED = 256
"""Least number of items that are read and sorted again if a search adds preferences (:class:`Preference`),
which the server cannot add itself."""


class StoreLocation(Strict):
    """``manifest.json``: where the items are stored. Subclasses give both fields their values."""

    format: int
    engine: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest in ``folder``; raises :class:`EngineError` for another engine or format."""
        manifest = manifest_of(folder)
        version, engine = (cls.model_fields[name].default for name in ("format", "engine"))
        if manifest["engine"] != engine:
            raise EngineError(
                f"{folder} has the engine {manifest['engine']}, not {engine}: open it with open_index(folder)"
            )
        if manifest.get("format") != version:
            raise EngineError(
                f"{folder} is an index of another version: build it again, or move it "
                f"(dqecir index move {folder} NEW --engine exact)"
            )
        return parse_settings(manifest, cls, str(folder / "manifest.json"))

    def write(self, folder: Path) -> None:
        """Write the manifest into ``folder``, and flush it to disk."""
        write_json(folder / "manifest.json", self.model_dump(mode="json"))
        sync_folder(folder)


class ItemsRecord(Strict):
    """Facts about the items of one generation."""

    header: IndexHeader
    generation: int
    items: int = 0
    next: int = Field(default=1, ge=1)
    """Number of the next item: its place in the order of adding."""
    attributes: dict[str, bool] = Field(default={})
    """Attribute -> whether any item has a number there."""

    def columns(self) -> Columns:
        """Return columns of one invented item that has every attribute, for checking a filter."""
        return Columns.of([{name: 0 if numeric else "" for name, numeric in self.attributes.items()}])

    def with_attributes(self, payloads: Iterable[Mapping[str, Any]]) -> Self:
        """Return the record with the attributes of these payloads added."""
        found = dict(self.attributes)
        for payload in payloads:
            for name, value in payload.items():
                found[name] = found.get(name, False) or math.isfinite(least_number(value))
        return self.model_copy(update={"attributes": found})

    def with_items(self, payloads: Collection[Mapping[str, Any]]) -> Self:
        """Return the record with items with these payloads added."""
        update = {"items": self.items + len(payloads), "next": self.next + len(payloads)}
        return self.with_attributes(payloads).model_copy(update=update)


@dataclass(frozen=True)
class StoredItem:
    """An item as it was read from the database or server."""

    number: int
    """Its place in the order of adding."""
    id: str
    text: str
    """Its payload as JSON."""
    vector: NDArray[np.float16] | None
    """Its tokens, flattened [n_t * D]; None if they were not read."""

    @property
    def payload(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.text)
        return found


class RemoteIndex(Index):
    """An index whose items are in a database or on a server."""

    @property
    @abstractmethod
    def record(self) -> ItemsRecord:
        """Facts about the items of the open generation."""

    @abstractmethod
    def _stored(self, ids: Sequence[str], tokens: bool) -> dict[str, StoredItem]:
        """Return id -> item for these ids, without unknown ones; ``tokens``: whether to read the vectors."""

    @abstractmethod
    def _parts(self, tokens: bool) -> Iterator[Sequence[StoredItem]]:
        """Yield all items in the order of adding, in parts that fit into memory.

        ``tokens``: whether to read their vectors.
        """

    def tokens(self, ids: Sequence[str]) -> Tensor:
        found = self._stored(ids, tokens=True)
        lacking = [item for item in ids if item not in found]
        if lacking:
            raise UnknownItemError(lacking[0])
        return tokens_of([found[item] for item in ids], self.header)

    def payloads(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        return {item: stored.payload for item, stored in self._stored(ids, tokens=False).items()}

    def items(self) -> Iterator[ItemBatch]:
        for part in self._parts(tokens=True):
            tokens = tokens_of(part, self.header)
            yield ItemBatch([item.id for item in part], tokens, [item.payload for item in part])

    def entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for part in self._parts(tokens=False):
            yield from ((item.id, item.payload) for item in part)

    def columns(self) -> list[Columns]:
        return [self.record.columns()]

    @property
    def generation(self) -> int:
        return self.record.generation

    def __len__(self) -> int:
        return self.record.items


def page_of(found: Sequence[StoredItem], limit: int) -> Page:
    """Return a page of ``limit`` items; ``found`` has one more item if there is a next page."""
    entries = [(item.id, item.payload) for item in found[:limit]]
    return Page(entries, entries[-1][0] if len(found) > limit else None)


def tokens_of(items: Sequence[StoredItem], header: IndexHeader) -> Tensor:
    """Return the float16 tokens [N, n_t, D] of items that were read with their vectors."""
    read = np.array([item.vector for item in items], dtype=np.float16)
    return torch.from_numpy(read.reshape(len(items), header.tokens, header.size))


def best_hits(
    query: Tensor, items: Iterable[StoredItem], k: int, header: IndexHeader, preference: Preference
) -> list[Hit]:
    """Return the ``k`` best of some items for a query [n_q, D]; equal scores come in the order of adding.

    The cells of ``preference`` add to the scores; its words do not. ``items`` were read with their vectors.
    """
    ordered = sorted(items, key=lambda item: item.number)
    if not ordered:
        return []
    scores = score_of_results(query[None], tokens_of(ordered, header), header.score_rule)
    if preference:
        scores += torch.from_numpy(preference.of_cells(Columns.of([item.payload for item in ordered])))
    values, places = best_columns(scores, k)
    found = zip(values[0].tolist(), [ordered[place] for place in places[0].tolist()], strict=True)
    return [Hit(item.id, value, item.payload) for value, item in found]
