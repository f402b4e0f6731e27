"""The words of a segment's items, in the file ``text.sqlite``, which is written once and then only read.

The words are in a full-text table of SQLite (FTS5), whose tokenizer removes English endings. A document of
that table is the text of one item in one column: column c of row r has the number r x 1024 + c.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from dqecir.data.column_roles import may_hold_text
from dqecir.data.payload_fields import RESERVED
from dqecir.index.payload_columns import values_in

FILE = "text.sqlite"
NO_FTS5 = (
    "the sqlite3 of this Python has no FTS5, so the words of titles and descriptions are not searched: use a "
    "Python whose SQLite has it"
)
_FULL_TEXT = "USING fts5(t, content='', tokenize='porter unicode61 remove_diacritics 2')"
_DOCUMENTS = "SELECT group_concat(doc) FROM temp.terms WHERE term = ?"
_COLUMNS = 1024
_TAG = re.compile(r"<[^<>]*>")
_ADDRESS = re.compile(r"\S*//\S+")
_WORD = re.compile(r"[^\W_]+")
_LETTER = re.compile(r"[^\W\d_]")

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows that have a word, and how many times each row has it."""


@cache
def has_fts5() -> bool:
    """Return whether this Python's SQLite has full-text search (FTS5)."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(f"CREATE VIRTUAL TABLE words {_FULL_TEXT}")
        except sqlite3.OperationalError:
            return False
    return True


@lru_cache(maxsize=10_000)
def terms_of(word: str) -> tuple[str, ...]:
    """Return the terms that the full-text table stores for a word: ``v`` and ``neck`` for ``V-necks``."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE words {_FULL_TEXT}")
        connection.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(words, 'instance')")
        connection.execute("INSERT INTO words(rowid, t) VALUES (0, ?)", (word,))
        return tuple(term for (term,) in connection.execute("SELECT term FROM terms ORDER BY offset"))


@lru_cache(maxsize=1024)
def is_searched(name: str) -> bool:
    """Return whether the words of a column with this name are stored for searching."""
    return name not in RESERVED and may_hold_text(name)


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Raise errors of SQLite in the ``with`` block, such as a full disk, as ``OSError`` about ``path``."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


class TextWriter:
    """Writes the words of a segment's items, in the order of their rows; raises ``OSError`` if it cannot."""

    def __init__(self, place: Path) -> None:
        """Make the file ``text.sqlite`` in the existing folder ``place``."""
        self._path = place / FILE
        with _as_os_error(self._path):
            self._database = sqlite3.connect(self._path, isolation_level=None)
            # The file is used only once a manifest names it, so a journal is not needed.
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute("BEGIN")
            self._database.execute(f"CREATE VIRTUAL TABLE words {_FULL_TEXT}")
        self._counts: dict[str, dict[int, int]] = {}

    def add(self, row: int, payload: Mapping[str, Any]) -> None:
        """Write the texts of the item in ``row``; columns with texts beyond the first 1024 are ignored."""
        for name, text in _texts_of(payload):
            if name in self._counts or len(self._counts) < _COLUMNS:
                counts = self._counts.setdefault(name, {})
                counts[row] = len(_WORD.findall(text))
                document = row * _COLUMNS + list(self._counts).index(name)
                with _as_os_error(self._path):
                    self._database.execute("INSERT INTO words(rowid, t) VALUES (?, ?)", (document, text))

    def close(self) -> None:
        """Close the file; without an earlier :meth:`finish` it is incomplete."""
        self._database.close()

    def finish(self, items: int) -> str:
        """Complete the file for ``items`` items, flush it to disk, and return its SHA-256."""
        with _as_os_error(self._path):
            self._database.execute("CREATE TABLE columns (name TEXT, lengths BLOB)")
            for name, counts in self._counts.items():
                lengths = np.zeros(items, dtype=np.uint32)
                lengths[list(counts)] = list(counts.values())
                self._database.execute("INSERT INTO columns VALUES (?, ?)", (name, lengths.tobytes()))
            self._database.execute("INSERT INTO words(words) VALUES ('optimize')")
            self._database.execute("COMMIT")
            self._database.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        return text_digest(self._path.parent)


def text_digest(place: Path) -> str:
    """Return the SHA-256 of the text file in the folder ``place``; raises ``OSError`` if it is missing."""
    with (place / FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StoredText:
    """The words of the items of a segment (a part of an index).

    They can be read from any thread, also after the file is deleted.
    """

    def __init__(self, place: Path) -> None:
        """Open ``text.sqlite`` in the folder ``place``.

        Raises ``OSError`` if it is missing, and ``sqlite3.Error`` if it is damaged.
        """
        address = f"{(place / FILE).resolve(strict=True).as_uri()}?mode=ro&immutable=1"
        # Threads share one connection in turn: a deleted file cannot be opened a second time.
        self._database = sqlite3.connect(address, uri=True, check_same_thread=False)
        finalize(self, self._database.close)
        self._turn = Lock()
        self._database.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, words, 'instance')")
        columns = self._database.execute("SELECT name, lengths FROM columns ORDER BY rowid").fetchall()
        self.lengths = {name: np.frombuffer(lengths, dtype=np.uint32) for name, lengths in columns}
        """Column -> number of words in each row [N]."""

    def counts(self, term: str, columns: Collection[str]) -> Counts:
        """Return the rows that have ``term`` (:func:`terms_of`) in any of ``columns``, and how many times."""
        with self._turn:
            [[found]] = self._database.execute(_DOCUMENTS, (term,))
        documents = np.array(found.split(",") if found else [], dtype=np.int64)
        names = list(self.lengths)
        wanted = np.isin(documents % _COLUMNS, [names.index(one) for one in columns if one in names])
        return np.unique(documents[wanted] // _COLUMNS, return_counts=True)


@dataclass(frozen=True)
class ChangedText:
    """The words of a segment's items after some columns of some rows have changed."""

    before: StoredText | ChangedText
    after: StoredText
    """The words of the changed rows, in the changed columns only."""
    rows: NDArray[np.int64]
    """The changed rows [M]."""
    names: Collection[str]
    """The changed columns."""
    items: int
    """Number of the segment's items [N]."""

    @cached_property
    def lengths(self) -> dict[str, NDArray[np.uint32]]:
        """Column -> number of words in each row [N]."""
        found = dict(self.before.lengths)
        for name in self.names:
            own = found.get(name, np.zeros(self.items, dtype=np.uint32)).copy()
            own[self.rows] = self.after.lengths.get(name, 0)
            found[name] = own
        return found

    def counts(self, term: str, columns: Collection[str]) -> Counts:
        """Return the rows that have ``term`` in any of ``columns``, and how many times, after the changes."""
        changed = [name for name in columns if name in self.names]
        kept = self.before.counts(term, [name for name in columns if name not in self.names])
        if not changed:
            return kept
        old_rows, old_counts = self.before.counts(term, changed)
        new_rows, new_counts = self.after.counts(term, changed)
        same = ~np.isin(old_rows, self.rows)
        rows = np.concatenate([kept[0], old_rows[same], self.rows[new_rows]])
        counts = np.concatenate([kept[1], old_counts[same], new_counts])
        found, places = np.unique(rows, return_inverse=True)
        return found, np.bincount(places, counts, len(found)).astype(np.int64)


def _texts_of(payload: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield column and text of each field of a payload in which words are searched.

    HTML tags and web addresses are left out of the text.
    """
    for name, value in payload.items():
        if is_searched(name):
            texts = [one for one in values_in(value) if isinstance(one, str) and _LETTER.search(one)]
            plain = " ".join(_ADDRESS.sub(" ", _TAG.sub(" ", text)) for text in texts)
            if plain.strip():
                yield _storable(name), _storable(plain)


def _storable(text: str) -> str:
    """Return the text with ``?`` for lone surrogates, which JSON allows but SQLite refuses."""
    return text.encode(errors="replace").decode()
