"""Write new payloads of a segment's items beside its own files, so that no vector is written again.

A change is a folder within that of the segment, with the files of ``item_list.py`` for the changed items
alone. Its columns are those whose values differ.
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
    """Write the new payloads among some entries, by row; return the segment's entry with them."""
    names = {
        row: _changed_names(segment.items.entry(row)[1], payload) for row, (_, payload) in entries.items()
    }
    new = {row: entry for row, entry in entries.items() if names[row]}
    if not new:
        return segment.entry
    return _write_changes(folder, generation, segment, new, set().union(*names.values()))


def join_changes(folder: Path, generation: int, segment: Segment, merged: range) -> SegmentEntry:
    """Merge the newest of the segment's changes into one; return the segment's entry with it."""
    rows = {row for change in segment.items.changes[merged.start :] for row in change.rows.tolist()}
    entries = {row: segment.items.entry(row) for row in rows}
    return _write_changes(folder, generation, segment, entries, set())


def _write_changes(
    folder: Path, generation: int, segment: Segment, entries: Mapping[int, Entry], names: set[str]
) -> SegmentEntry:
    """Write entries by row with these columns, instead of all earlier changes of the same rows."""
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
        # The words that are stored are not those of the items any more.
        update["text_sha256"] = None
    return segment.entry.model_copy(update=update)


def _changed_names(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return the columns whose values differ, also in type: 1 and 1.0 are shown in different ways."""
    return {
        name
        for name in before.keys() | after.keys()
        if (name in before) != (name in after) or repr(before.get(name)) != repr(after.get(name))
    }
