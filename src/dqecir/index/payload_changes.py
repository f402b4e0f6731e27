"""Write changed payloads of a segment next to its own files, so that vectors need not be written again.

A change is a folder inside the segment's folder. It has the files of ``item_list.py`` for the changed items
only, with the columns whose values differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from dqecir.index.item_list import Entry, ItemsWriter, items_digest
from dqecir.index.item_text import has_fts5, is_searched
from dqecir.index.segments import ChangeEntry, Segment, SegmentEntry, new_folder


def with_payloads(
    folder: Path, generation: int, segment: Segment, entries: Mapping[int, Entry]
) -> SegmentEntry:
    """Write those of ``entries`` (row -> id and payload) whose payload has changed.

    Returns the segment's entry for the manifest, with this change. ``folder`` is the index's, ``generation``
    the number of the next generation.
    """
    names = {
        row: _changed_names(segment.items.entry(row)[1], payload) for row, (_, payload) in entries.items()
    }
    new = {row: entry for row, entry in entries.items() if names[row]}
    if not new:
        return segment.entry
    return _write_changes(folder, generation, segment, new, set().union(*names.values()))


def join_changes(folder: Path, generation: int, segment: Segment, merged: range) -> SegmentEntry:
    """Merge the changes at the places ``merged``, which are the newest, into one.

    Returns the segment's entry for the manifest, with the merged change. ``folder`` is the index's,
    ``generation`` the number of the next generation.
    """
    rows = {row for change in segment.items.changes[merged.start :] for row in change.rows.tolist()}
    entries = {row: segment.items.entry(row) for row in rows}
    return _write_changes(folder, generation, segment, entries, set())


def _write_changes(
    folder: Path, generation: int, segment: Segment, entries: Mapping[int, Entry], names: set[str]
) -> SegmentEntry:
    """Write ``entries`` (row -> id and payload) with the columns ``names`` as a change; return the new entry.

    Earlier changes of which all rows are among these are left out, and their columns are written again.
    ``folder`` is the index's, ``generation`` the number of the next generation.
    """
    rows = np.array(sorted(entries), dtype=np.int64)
    kept = []
    for change, opened in zip(segment.entry.changes, segment.items.changes, strict=True):
        if np.isin(opened.rows, rows).all():
            names = names | opened.names
        else:
            kept.append(change)
    place = folder / segment.entry.name / f"changed-{generation:08}"
    with new_folder(place), closing(ItemsWriter(place, names)) as items:
        items.add(entries[row] for row in rows.tolist())
        items.finish(rows)
    change = ChangeEntry(
        name=place.name, items=len(rows), items_sha256=items_digest(place), text_sha256=items.text_sha256
    )
    update: dict[str, Any] = {"changes": (*kept, change)}
    if any(map(is_searched, names)) and not has_fts5():
        # Without FTS5 the new words cannot be stored, and the stored ones no longer fit the items.
        update["text_sha256"] = None
    return segment.entry.model_copy(update=update)


def _changed_names(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return the columns in which two payloads differ, also in type: 1 and 1.0 are shown differently."""
    return {
        name
        for name in before.keys() | after.keys()
        if (name in before) != (name in after) or repr(before.get(name)) != repr(after.get(name))
    }
