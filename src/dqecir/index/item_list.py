"""Ids, payloads and columns of the items of a segment (a part of an index), in files that are read in parts.

``items.jsonl`` has one line for each item, ``["its id", {its payload}]``. ``lookup.safetensors`` holds the
byte at which each line begins, the line of each id, and the values of each attribute. Opening these files
parses no item, so that an index of a million items opens fast.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dqecir.errors import EngineError
from dqecir.index.item_text import StoredText, TextWriter, has_fts5, is_searched
from dqecir.index.payload_columns import ColumnCoder, Columns, PayloadColumn
from dqecir.io.files import write_bytes

LINES = "items.jsonl"
LOOKUP = "lookup.safetensors"
FIRST = 1 << 19
"""Bytes of a column's values that are read to guess the column's role."""

_VALUES = json.JSONDecoder()

Entry = tuple[str, Mapping[str, Any]]
"""An item's id and payload."""


class StoredValues(Sequence[Any]):
    """The values of a column; all of them are read only when one is needed that is not among the first."""

    def __init__(self, count: int, read: Callable[[int], bytes]) -> None:
        """Take the number of values; ``read(n)`` returns the first n bytes of their JSON, or all if fewer."""
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        return self._first[place] if place in range(len(self._first)) else self._all[place]

    def __iter__(self) -> Iterator[Any]:
        yield from self._first
        if len(self._first) < self._count:
            yield from islice(self._all, len(self._first), None)

    @cached_property
    def _all(self) -> list[Any]:
        found: list[Any] = json.loads(self._read(sys.maxsize))
        return found

    @cached_property
    def _first(self) -> list[Any]:
        text = self._read(FIRST).decode("ascii")
        if len(text) < FIRST:
            return self._all
        found, place = [], 1
        # A number at the end of the text may go on.
        with suppress(ValueError):
            while (decoded := _VALUES.raw_decode(text, place))[1] < len(text):
                found.append(decoded[0])
                place = decoded[1] + len(", ")
        return found


@dataclass(frozen=True)
class StoredItems:
    """The items of a segment (a part of an index) by row; they stay readable after the files are deleted."""

    lines: mmap.mmap
    starts: NDArray[np.int64]
    """Place in ``lines``, in bytes, at which each line begins, and the end of the last line: [N + 1]."""
    hashes: NDArray[np.uint64]
    """Hashes of all ids [N], sorted."""
    hashed_rows: NDArray[np.int64]
    """Row of the item that each of ``hashes`` belongs to [N]."""
    written: Columns
    """The columns as they were first written, without ``changes``."""
    changes: tuple[ItemChanges, ...] = ()
    """Later changes of payloads, the newest last."""

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
    def hashes_by_row(self) -> NDArray[np.uint64]:
        """Hash of the id in each row [N]."""
        found = np.empty_like(self.hashes)
        found[self.hashed_rows] = self.hashes
        return found

    @cached_property
    def columns(self) -> Columns:
        """The columns of the payloads, with all changes."""
        if not self.changes:
            return self.written
        changed: dict[str, PayloadColumn] = {}
        for change in self.changes:
            for name in change.names:
                before = changed.get(name) or self.written.exactly(name)
                changed[name] = before.changed(change.rows, change.items.written[name])
        left = {name: column for name, column in changed.items() if column.values}
        names = (self.written.names - changed.keys()) | left.keys()
        return Columns(names, len(self), lambda name: left[name] if name in left else self.written[name])

    def entry(self, row: int) -> Entry:
        """Return the id and the payload of the item in ``row``."""
        for change in reversed(self.changes):
            place = bisect_left(change.rows.data, row)
            if place < len(change.rows) and change.rows[place] == row:
                return change.items.entry(place)
        item_id, payload = json.loads(self.lines[self.starts[row] : self.starts[row + 1]])
        return item_id, payload

    def item_id(self, row: int) -> str:
        """Return the id of the item in ``row``, without parsing its payload."""
        line = self.lines[self.starts[row] : self.starts[row + 1]].decode("ascii")
        found: str = _VALUES.raw_decode(line, 1)[0]
        return found

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each id [len(ids)]; -1 for an id that is not in the segment."""
        wanted = np.array([hash_of(item_id) for item_id in ids], dtype=np.uint64)
        found = np.full(len(ids), -1, dtype=np.int64)
        for number, place in enumerate(np.searchsorted(self.hashes, wanted).tolist()):
            head = _head(ids[number])
            # Two ids may have the same hash, so compare the id in the line too.
            while place < len(self) and self.hashes[place] == wanted[number]:
                row = int(self.hashed_rows[place])
                start = self.starts[row]
                if self.lines[start : start + len(head)] == head:
                    found[number] = row
                    break
                place += 1
        return found


@dataclass(frozen=True)
class ItemChanges:
    """New payloads for some items of a segment."""

    rows: NDArray[np.int64]
    """The rows of these items in the segment [M], sorted."""
    items: StoredItems
    """The M items with their new payloads; it has only the columns whose values changed."""
    text: StoredText | None
    """The words of the changed columns; None if no changed column holds texts."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the changed columns."""
        return self.items.written.names


class ItemsWriter:
    """Writes the item files of a segment, in the order in which items are added."""

    def __init__(self, place: Path, names: Collection[str] | None = None) -> None:
        """Write into the existing folder ``place``.

        ``names`` are the only columns to write besides the payloads. Default: all columns.
        """
        self._place = place
        self._file = (place / LINES).open("wb")
        self._hashes, self._starts = array("Q"), array("q", [0])
        self._names = names
        self._coders = {name: ColumnCoder() for name in names or ()}
        has_words = names is None or any(map(is_searched, names))
        self._text = TextWriter(place) if has_words and has_fts5() else None
        self.text_sha256: str | None = None
        """SHA-256 of the file of words; None before :meth:`finish`, or if no words are written."""

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, entries: Iterable[Entry]) -> None:
        """Write items; no id may come twice."""
        for item_id, payload in entries:
            line = _head(item_id) + json.dumps(payload).encode("ascii") + b"]\n"
            self._file.write(line)
            known = {
                name: value for name, value in payload.items() if self._names is None or name in self._names
            }
            for name, value in known.items():
                self._coders.setdefault(name, ColumnCoder()).add(len(self), value)
            if self._text is not None:
                self._text.add(len(self), known)
            self._hashes.append(hash_of(item_id))
            self._starts.append(self._starts[-1] + len(line))

    def close(self) -> None:
        """Close the files; without an earlier :meth:`finish` they are incomplete."""
        self._file.close()
        if self._text is not None:
            self._text.close()

    def finish(self, rows: NDArray[np.int64] | None = None) -> None:
        """Complete the files and flush them to disk.

        ``rows``: if the items are changes (:class:`ItemChanges`), their rows in the segment.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        parts: dict[str, NDArray[Any]] = {
            "starts": np.frombuffer(self._starts, dtype=np.int64),
            "hashes": hashes[order],
            "hashed_rows": order.astype(np.int64),
        }
        if rows is not None:
            parts["rows"] = rows
        for name, coder in self._coders.items():
            column = coder.column(len(self))
            parts[f"codes {name}"] = column.codes
            parts[f"values {name}"] = np.frombuffer(json.dumps(column.values).encode("ascii"), dtype=np.uint8)
        write_bytes(self._place / LOOKUP, save(parts))
        if self._text is not None:
            self.text_sha256 = self._text.finish(len(self))


def items_digest(place: Path) -> str:
    """Return one SHA-256 for both item files in ``place``; raises ``OSError`` if one is missing."""
    digest = hashlib.sha256()
    for name in (LINES, LOOKUP):
        with (place / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def open_items(place: Path) -> StoredItems:
    """Open the files that :class:`ItemsWriter` wrote to the folder ``place``.

    Raises :class:`EngineError` if they are damaged, and ``OSError`` if they cannot be read.
    """
    with (place / LINES).open("rb") as file:
        try:
            lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise EngineError(f"{place / LINES} is damaged ({error}): build the index again") from None
    try:
        kept: Any = safe_open(place / LOOKUP, framework="np")
        starts, hashes, rows = (kept.get_tensor(name) for name in ("starts", "hashes", "hashed_rows"))
        names = [key.removeprefix("codes ") for key in kept.keys() if key.startswith("codes ")]  # noqa: SIM118
    except SafetensorError as error:
        raise EngineError(f"{place / LOOKUP} is damaged ({error}): build the index again") from None

    def column(name: str) -> PayloadColumn:
        codes, values = kept.get_tensor(f"codes {name}"), kept.get_slice(f"values {name}")
        # Each value is one of an item.
        count = int(codes.max(initial=0))
        length = values.get_shape()[0]
        return PayloadColumn(codes, StoredValues(count, lambda size: values[: min(size, length)].tobytes()))

    return StoredItems(lines, starts, hashes, rows, Columns(names, len(hashes), column))


def open_changes(place: Path, has_words: bool) -> ItemChanges:
    """Open the changed payloads in the folder ``place``; ``has_words``: whether it has a file of words.

    Raises as :func:`open_items`, and ``sqlite3.Error``.
    """
    items = open_items(place)
    with safe_open(place / LOOKUP, framework="np") as kept:
        rows = kept.get_tensor("rows")
    return ItemChanges(rows, items, StoredText(place) if has_words and has_fts5() else None)


def hash_of(item_id: str) -> int:
    """Return a hash of an id. Unlike Python's own hash, it is the same in every process."""
    data = item_id.encode("utf-8", errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _head(item_id: str) -> bytes:
    """Return the bytes with which an item's line begins. ASCII JSON encodes each id in exactly one way."""
    return f"[{json.dumps(item_id)}, ".encode("ascii")
