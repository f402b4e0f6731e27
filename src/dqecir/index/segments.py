"""Segments of an exact index: runs of items on disk that never change; the manifest lists them.

A segment is a folder with ``tokens.npy`` [N, n_t, D] and the files of ``item_list.py`` and ``item_text.py``.
Deleted ("dead") items are marked in a separate file, which a newer file replaces. Files that no manifest
names were left by a killed writer.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from dqecir.errors import DataError, EngineError
from dqecir.index.contract import IndexHeader, ItemBatch, SearchSettings, manifest_of
from dqecir.index.filters import Filter
from dqecir.index.item_list import (
    LINES,
    LOOKUP,
    Entry,
    ItemChanges,
    ItemsWriter,
    StoredItems,
    items_digest,
    open_changes,
    open_items,
)
from dqecir.index.item_text import FILE as TEXT
from dqecir.index.item_text import ChangedText, StoredText, has_fts5
from dqecir.index.projection import (
    DIRECTIONS,
    PROJECTED,
    ProjectedVectors,
    has_faiss,
    project,
    read_projected,
    write_projected,
)
from dqecir.io.files import sync_folder, write_bytes, write_json
from dqecir.settings import Strict, parse_settings

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 3
AGAIN = "build the index again"
_UNFIT = f"does not fit the index's manifest: copy the whole index again, or {AGAIN}"

_COPIED = 1024
"""Number of items that are copied at a time."""

_LEFT = re.compile(r"s\d+|\.manifest\.json\..*")
"""Names of files and folders in an index's folder that a killed writer may have left."""

Part = tuple[Iterable[Entry], NDArray[np.float16]]
"""Ids and payloads of B items, and their tokens [B, n_t, D]."""


class ChangeEntry(Strict):
    """A change of payloads of a segment, as the manifest lists it."""

    name: str
    items: int
    items_sha256: str
    text_sha256: str | None = None
    """SHA-256 of the words of the changed columns; None if none of them holds texts."""


class SegmentEntry(Strict):
    """A segment (a part of an index), as the manifest lists it."""

    # Ignore the quantized tokens that version 0.1.0 could make: score every item instead.
    ignored_keys = frozenset({"sketch_sha256"})

    name: str
    items: int
    token_bytes: int
    """Size of ``tokens.npy`` in bytes."""
    token_sha256: str
    """SHA-256 of the numbers in ``tokens.npy``, without the file's header."""
    items_sha256: str
    """SHA-256 of its ids and payloads (``items_digest``)."""
    dead: int = 0
    """Number of items that were deleted or replaced since."""
    dead_file: str | None = None
    """Name of the file with one bit for each item, which is set for deleted items."""
    text_sha256: str | None = None
    """SHA-256 of the words of its items (``item_text.py``); None if they were not written."""
    longest: float | None = None
    """Largest Euclidean norm of a token, for the rule ``dot``; None for other rules, and in indexes of
    version 0.1.0."""
    projected_sha256: str | None = None
    """SHA-256 of the projected vectors; None if they were not made."""
    changes: tuple[ChangeEntry, ...] = ()
    """Changes of its items' payloads, the newest last."""

    @property
    def files(self) -> list[str | None]:
        """Names of all files, and of the folders of changes, that belong in the segment's own folder.

        None stands for a file that the segment does not have.
        """
        text = TEXT if self.text_sha256 else None
        projected = (PROJECTED, DIRECTIONS) if self.projected_sha256 else ()
        changes = (change.name for change in self.changes)
        return ["tokens.npy", LINES, LOOKUP, text, self.dead_file, *projected, *changes]


class Manifest(Strict):
    """``manifest.json``: one finished generation of an index."""

    ignored_keys = frozenset({"sketch"})

    format: int = FORMAT
    engine: str = "exact"
    generation: int
    header: IndexHeader
    segments: tuple[SegmentEntry, ...]
    quick: SearchSettings | None = None
    """Settings for searching with projected vectors; None: every search scores every item."""


@dataclass(frozen=True)
class Segment:
    """An open segment, a part of an index; its tokens stay readable after the files are deleted."""

    entry: SegmentEntry
    items: StoredItems
    stored: NDArray[np.float16]
    """The tokens [N, n_t, D]."""
    alive: NDArray[np.bool_]
    """A mask [N] of the items that are not deleted."""
    longest: float
    """Largest Euclidean norm of a token; 0 for score rules that do not need it."""
    projected: ProjectedVectors | None
    """None if they were not made or are damaged, or without FAISS; then all items are scored."""
    written_text: StoredText | None
    """The words of its items, without ``changes``; None in an index of an older version, or without FTS5."""

    @cached_property
    def text(self) -> StoredText | ChangedText | None:
        """The words of its items with all changes; None if they cannot be searched."""
        text: StoredText | ChangedText | None = self.written_text
        for change in self.items.changes:
            if text is not None and change.text is not None:
                text = ChangedText(text, change.text, change.rows, change.names, self.entry.items)
        return text

    @cached_property
    def tokens(self) -> Tensor:
        """The tokens [N, n_t, D] as a tensor."""
        return as_tensor(self.stored)

    @property
    def living(self) -> int:
        return self.entry.items - self.entry.dead

    def allowed(self, where: Filter | None) -> NDArray[np.bool_]:
        """Return a mask [N] of the items that a search may find: not deleted, and allowed by ``where``."""
        return self.alive if where is None else self.alive & where.mask(self.items.columns)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each id [len(ids)]; -1 if no item of the segment has it, or it is deleted."""
        rows = self.items.rows(ids)
        rows[~self.alive[rows]] = -1
        return rows


class MissingFileError(EngineError):
    """A file that the manifest names is missing: damage, or a writer has just replaced the file."""


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an exact index.

    Raises :class:`EngineError` if it is missing or damaged, or of another engine or version.
    """
    data = manifest_of(folder)
    if data["engine"] != "exact" or data.get("format") != FORMAT:
        raise EngineError(f"{folder} is not an exact index of this version: build it again")
    try:
        return parse_settings(data, Manifest, str(folder / "manifest.json"))
    except DataError as error:
        raise EngineError(f"{error}\nBuild the index again.") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make ``manifest`` the current generation; after this call it survives a kill and a power cut."""
    write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    sync_folder(folder)


def open_segment(folder: Path, manifest: Manifest, entry: SegmentEntry, known: Sequence[Segment]) -> Segment:
    """Open the segment ``entry`` of ``manifest``; reuse the open files of ``known`` if it is among them.

    ``folder`` is the index's. Raises :class:`MissingFileError` if a file is missing, and :class:`EngineError`
    if its files cannot be read or do not fit the manifest.
    """
    place, plain = folder / entry.name, _unchanged(entry)
    with _reading(place):
        found = next((one for one in known if _unchanged(one.entry) == plain), None)
        found = found or _open_unchanged(place, plain, manifest.header)
        if entry == found.entry:
            return found
        alive, projected, items = _read_alive(place, entry), found.projected, found.items
        if entry.projected_sha256 != found.entry.projected_sha256:
            projected = read_projected(place, entry.projected_sha256)
        if entry.changes != found.entry.changes:
            opened = dict(zip(found.entry.changes, items.changes, strict=True))
            changes = (opened.get(change) or _open_change(place, change) for change in entry.changes)
            items = replace(items, changes=tuple(changes))
    return replace(found, entry=entry, alive=alive, projected=projected, items=items)


def _unchanged(entry: SegmentEntry) -> SegmentEntry:
    """Return the entry without what may be added later: dead items, projected vectors, changed payloads."""
    return entry.model_copy(update={"dead": 0, "dead_file": None, "projected_sha256": None, "changes": ()})


def _open_unchanged(place: Path, entry: SegmentEntry, header: IndexHeader) -> Segment:
    path = place / "tokens.npy"
    _check_items(place, entry.items_sha256)
    items = open_items(place)
    if path.stat().st_size != entry.token_bytes:
        raise EngineError(f"{path} is cut off: {AGAIN}")
    try:
        # Copy-on-write, because torch requires writable memory.
        tokens = np.asarray(np.load(path, mmap_mode="c"))
    except ValueError as error:
        raise EngineError(f"{path} is damaged ({error}): {AGAIN}") from None
    text = StoredText(place) if entry.text_sha256 and has_fts5() else None
    if tokens.shape != (entry.items, header.tokens, header.size) or tokens.dtype != np.float16:
        raise EngineError(f"{path} {_UNFIT}")
    longest = entry.longest or (_longest(tokens) if header.score_rule == "dot" else 0.0)
    return Segment(entry, items, tokens, np.ones(entry.items, dtype=np.bool_), longest, None, text)


def _open_change(place: Path, change: ChangeEntry) -> ItemChanges:
    _check_items(place / change.name, change.items_sha256)
    return open_changes(place / change.name, change.text_sha256 is not None)


def _check_items(place: Path, digest: str) -> None:
    if items_digest(place) != digest:
        raise EngineError(f"the list of items in {place} {_UNFIT}")


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    """Turn errors of reading a segment's files in ``place`` into :class:`EngineError`.

    A missing file raises its subclass :class:`MissingFileError`.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"{error.filename} is missing: {AGAIN}") from None
    except OSError as error:
        raise EngineError(
            f"{error.filename} cannot be read ({error.strerror}): check its permissions"
        ) from None
    except sqlite3.Error as error:
        raise EngineError(f"the words of {place} are damaged ({error}): {AGAIN}") from None


def stored_parts(header: IndexHeader, batches: Iterable[ItemBatch]) -> Iterator[Part]:
    """Yield the items of batches as :data:`Part`; raises as :meth:`ItemBatch.as_stored`."""
    for batch in batches:
        tokens = batch.as_stored(header).contiguous().numpy()
        yield zip(batch.ids, batch.payloads, strict=True), tokens


def living_items(segments: Sequence[Segment]) -> Iterator[tuple[list[Entry], NDArray[np.float16]]]:
    """Yield all items that are not deleted, in the order of adding, some at a time, with their tokens.

    This function uses numpy in one thread: torch's threads would block all cores for such small pieces, and
    so slow down searches of other processes.
    """
    for segment in segments:
        tokens, rows = segment.stored, np.flatnonzero(segment.alive)
        for start in range(0, len(rows), _COPIED):
            part = rows[start : start + _COPIED]
            yield [segment.items.entry(row) for row in part.tolist()], tokens[part]


def with_projected(folder: Path, entry: SegmentEntry, settings: SearchSettings | None) -> SegmentEntry:
    """Project a segment's vectors (``projection.py``) if ``settings`` need it; return its new entry.

    ``folder`` is the index's, ``entry`` the segment's entry before. If the disk is full or FAISS is missing,
    the vectors are not projected, and searches score all items.
    """
    if settings is None or entry.items <= settings.exact_up_to or not has_faiss():
        return entry
    tokens = np.load(folder / entry.name / "tokens.npy", mmap_mode="r")
    with suppress(OSError):
        digest = write_projected(folder / entry.name, project(tokens))
        return entry.model_copy(update={"projected_sha256": digest})
    return entry


def with_dead(folder: Path, generation: int, segment: Segment, ids: Sequence[str]) -> SegmentEntry:
    """Mark items of a segment as deleted, in a new file for this generation; return the segment's new entry.

    ``folder`` is the index's; ``ids`` are those of the items.
    """
    rows = segment.rows(ids)
    rows = rows[rows >= 0]
    if not len(rows):
        return segment.entry
    alive = segment.alive.copy()
    alive[rows] = False
    name = f"dead-{generation:08}"
    place = folder / segment.entry.name
    write_bytes(place / name, np.packbits(~alive).tobytes())
    sync_folder(place)
    return segment.entry.model_copy(update={"dead": int((~alive).sum()), "dead_file": name})


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove files of the index in ``folder`` that ``manifest`` does not name.

    These are replaced segments and marks, and what killed writers have left.
    """
    kept = {entry.name for entry in manifest.segments}
    left = [path for path in folder.iterdir() if _LEFT.fullmatch(path.name) and path.name not in kept]
    for entry in manifest.segments:
        left += [path for path in (folder / entry.name).iterdir() if path.name not in entry.files]
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def as_tensor(tokens: NDArray[np.float16]) -> Tensor:
    """Return the array as a tensor that shares its memory."""
    from torch import from_numpy  # It is slow to import, and facts about an index do not need it.

    return from_numpy(tokens)


def token_digest(tokens: NDArray[np.float16]) -> str:
    """Return the SHA-256 of tokens, which are read in parts."""
    digest = hashlib.sha256()
    for start in range(0, len(tokens), 4096):
        digest.update(tokens[start : start + 4096].tobytes())
    return digest.hexdigest()


@contextmanager
def new_folder(place: Path) -> Iterator[None]:
    """Make the folder ``place`` for the ``with`` block; an older folder of this name is removed.

    At the end its entries are flushed to disk; after an error it is removed.
    """
    # A writer that was killed before its manifest may have left a folder of this name.
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    sync_folder(place)
    sync_folder(place.parent)


def write_segment(
    folder: Path,
    generation: int,
    header: IndexHeader,
    parts: Iterable[Part],
    settings: SearchSettings | None,
) -> SegmentEntry:
    """Write a segment with all items of ``parts``, one part in memory at a time; return its entry.

    No manifest names it yet. Its vectors are projected if ``settings`` need it. ``folder`` is the index's,
    ``generation`` the number of its next generation. After an error the files are removed.
    """
    place = folder / f"s{generation:08}"
    path, digest, longest = place / "tokens.npy", hashlib.sha256(), 0.0
    with new_folder(place), closing(ItemsWriter(place)) as items, path.open("wb") as file:
        write_head(file, 0, header)
        for entries, tokens in parts:
            items.add(entries)
            file.write(tokens.data)
            digest.update(tokens.data)
            if header.score_rule == "dot":
                longest = max(longest, _longest(tokens))
        file.seek(0)
        write_head(file, len(items), header)
        file.flush()
        os.fsync(file.fileno())
        items.finish()
    entry = SegmentEntry(
        name=place.name,
        items=len(items),
        token_bytes=path.stat().st_size,
        token_sha256=digest.hexdigest(),
        items_sha256=items_digest(place),
        text_sha256=items.text_sha256,
        longest=longest or None,
    )
    return with_projected(folder, entry, settings)


def _longest(tokens: NDArray[np.float16]) -> float:
    """Return the largest Euclidean norm of tokens [N, n_t, D], which are read in parts."""
    parts = (tokens[start : start + _COPIED].astype(np.float32) for start in range(0, len(tokens), _COPIED))
    return max((float(np.linalg.norm(part, axis=2).max()) for part in parts), default=0.0)


def write_head(file: BinaryIO, items: int, header: IndexHeader) -> None:
    """Write the header of ``tokens.npy``; it has the same length for any number of items."""
    shape = (items, header.tokens, header.size)
    write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})


def _read_alive(place: Path, entry: SegmentEntry) -> NDArray[np.bool_]:
    if entry.dead_file is None:
        return np.ones(entry.items, dtype=np.bool_)
    data = np.fromfile(place / entry.dead_file, dtype=np.uint8)
    if len(data) == -(-entry.items // 8):
        dead = np.unpackbits(data, count=entry.items).astype(np.bool_)
        if int(dead.sum()) == entry.dead:
            return ~dead
    raise EngineError(f"{place / entry.dead_file} {_UNFIT}")
