"""A store's folder: its identity, its images, and files ("shards") with their tokens.

``state.json`` holds the identity and the layout. ``images.txt`` has one line for each row of tokens, in
order: the hash of the image's bytes and the mean relative error of its tokens. A row is valid if its line
exists; the line is written after the row's bytes are flushed. Bytes after the last valid row, which a killed
process has left, are overwritten. Rows are only added, so an open store stays valid.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import lock_descriptor
from numpy.typing import NDArray

from dqecir.encoders.store.precision import PRECISIONS, PrecisionName
from dqecir.encoders.store.rows import Shard, ShardedRows
from dqecir.errors import DataError
from dqecir.io.files import write_json
from dqecir.io.progress import console

FORM = 2
JOURNAL = "images.txt"
LOCK = "lock"
SHARD_BYTES = 256 * 2**20
HASH = 64
LINE = HASH + len(" 1.234567e-04\n")
_LINE = re.compile(rb"[0-9a-f]{64} \d\.\d{6}e[+-]\d\d\n")


@dataclass(frozen=True)
class StoreIdentity:
    """What stored tokens depend on: tower, preprocessing, number type and number of views.

    ``tower`` is the fingerprint of its weights. A folder with another identity raises an error.
    """

    preprocessing: dict[str, Any]
    tower: str
    precision: PrecisionName
    views: int


@dataclass(frozen=True)
class Layout:
    """The layout of shards: M ``tokens`` of ``width`` W for each view, and ``per_shard`` images in a file."""

    tokens: int
    width: int
    per_shard: int

    @classmethod
    def of(cls, identity: StoreIdentity, tokens: int, width: int) -> Layout:
        """Return a layout with shards of at most ``SHARD_BYTES`` bytes, but with at least one image.

        ``tokens`` and ``width`` are M and W.
        """
        row = PRECISIONS[identity.precision].row(identity.views, tokens, width)
        return cls(tokens, width, max(1, SHARD_BYTES // row.itemsize))


@dataclass(frozen=True)
class Held:
    """What a folder contains: image hash -> row, and the mean relative error of each row's tokens [rows]."""

    layout: Layout | None
    places: dict[str, int]
    errors: NDArray[np.float64]

    @classmethod
    def read(cls, folder: Path, identity: StoreIdentity) -> Held:
        """Read what a folder contains; a folder that does not exist contains nothing.

        Rows after the first incomplete or unreadable line of ``images.txt`` are ignored. Raises
        :class:`DataError` if ``state.json`` is damaged or has an old format or another identity.
        """
        layout = _read_layout(folder, identity)
        journal = folder / JOURNAL
        if layout is None or not journal.exists():
            return cls(layout, {}, np.zeros(0))
        data = journal.read_bytes()
        lines = [data[start : start + LINE] for start in range(0, len(data), LINE)]
        # Ignore everything after a line that is incomplete or unreadable.
        whole = list(takewhile(_LINE.fullmatch, lines))
        return cls(
            layout,
            {line[:HASH].decode(): row for row, line in enumerate(whole)},
            np.array([float(line[HASH:]) for line in whole]),
        )

    def rows(self, folder: Path, identity: StoreIdentity) -> ShardedRows:
        """Return the rows, memory-mapped; there must be at least one.

        Raises :class:`DataError` if a file is missing or too short.
        """
        assert self.layout is not None
        layout, count = self.layout, len(self.errors)
        row = PRECISIONS[identity.precision].row(identity.views, layout.tokens, layout.width)
        shards = []
        for number, start in enumerate(range(0, count, layout.per_shard)):
            path = shard_path(folder, number)
            size = min(layout.per_shard, count - start)
            if not path.is_file() or path.stat().st_size < size * row.itemsize:
                raise _damaged(path)
            mapped = np.memmap(path, dtype=row, mode="r", shape=(size,))
            # Use plain arrays, so that rows read from them are no memory maps.
            fields = {name: mapped[name].view(np.ndarray) for name in row.names or ()}
            shards.append(Shard(**fields))
        return ShardedRows(shards, layout.per_shard)


class Appender:
    """Adds rows to a folder; no other process may write to it meanwhile (:func:`appending`).

    The lines of ``images.txt`` after the last valid row are removed.
    """

    def __init__(self, folder: Path, identity: StoreIdentity) -> None:
        self.folder, self.identity = folder, identity
        self.held = Held.read(folder, identity)
        self.layout, self.count = self.held.layout, len(self.held.errors)
        os.truncate(folder / JOURNAL, self.count * LINE)

    def append(self, hashes: Sequence[str], fields: dict[str, NDArray[Any]], errors: Sequence[float]) -> None:
        """Add b images: ``fields`` are codes [b, V, M, W] and scales [b, V, M], ``errors`` one for each.

        ``hashes`` are those of their files. Raises :class:`DataError` if M or W differ from the folder's, or
        if writing fails; earlier rows stay valid.
        """
        tokens, width = fields["codes"].shape[2:]
        if self.layout is None:
            self.layout = Layout.of(self.identity, tokens, width)
            with _writing(self.folder):
                state = {"form": FORM, **asdict(self.identity), **asdict(self.layout)}
                write_json(self.folder / "state.json", state)
        if (tokens, width) != (self.layout.tokens, self.layout.width):
            raise DataError(
                f"{self.folder} keeps {self.layout.tokens} tokens of width {self.layout.width} an image, "
                f"but the tower gives {tokens} of width {width}: remove the folder or name another"
            )
        row = PRECISIONS[self.identity.precision].row(self.identity.views, tokens, width)
        block = np.empty(len(hashes), dtype=row)
        for name, values in fields.items():
            block[name] = values
        with _writing(self.folder):
            self._write(block)
            self._count(hashes, errors)
        self.count += len(block)

    def _write(self, block: NDArray[Any]) -> None:
        """Write the bytes of new rows and flush them to disk."""
        assert self.layout is not None
        written = 0
        while written < len(block):
            shard, place = divmod(self.count + written, self.layout.per_shard)
            some = block[written : written + self.layout.per_shard - place]
            path = shard_path(self.folder, shard)
            path.touch()
            with path.open("r+b") as file:
                file.seek(place * block.itemsize)
                file.write(some.view(np.uint8).data)
                to_disk(file)
            written += len(some)

    def _count(self, hashes: Sequence[str], errors: Sequence[float]) -> None:
        """Make new rows valid by writing their lines to ``images.txt``."""
        lines = [f"{name} {error:.6e}\n" for name, error in zip(hashes, errors, strict=True)]
        with (self.folder / JOURNAL).open("r+b") as file:
            file.seek(self.count * LINE)
            file.write("".join(lines).encode())
            to_disk(file)


@contextmanager
def appending(folder: Path, identity: StoreIdentity, quiet: bool) -> Iterator[Appender]:
    """Lock ``folder`` during the ``with`` block, and yield an :class:`Appender`.

    It waits for other processes, and prints that unless ``quiet``; the lock of a killed process is released.
    ``identity`` is what the folder must have been made with. Raises :class:`DataError` if it has another one,
    is damaged, or cannot be written to.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOURNAL).touch()
        # Lock a separate file, because on Windows others cannot read a locked file.
        lock = (folder / LOCK).open("ab")
    with lock:
        with _writing(folder):
            if not lock_descriptor(lock.fileno(), blocking=False):
                if not quiet:
                    console.print(f"waiting for another process, which is encoding images into {folder}")
                lock_descriptor(lock.fileno())
        yield Appender(folder, identity)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: image tokens cannot be written ({error.strerror}); free some space and run the same "
            "command again, which continues from the tokens that are stored"
        ) from error


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of the shard with this number."""
    return folder / f"tokens-{number:05}.bin"


def to_disk(file: BinaryIO) -> None:
    """Flush a file to disk."""
    file.flush()
    os.fsync(file.fileno())


def _read_layout(folder: Path, identity: StoreIdentity) -> Layout | None:
    path = folder / "state.json"
    if not path.exists():
        return None
    try:
        state = json.loads(path.read_text())
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(state, dict) or state.get("form") != FORM:
        raise DataError(
            f"{folder} keeps image tokens in an old format that is not supported: remove the folder, and "
            "they are computed again"
        )
    for key, needed in asdict(identity).items():
        if state.get(key) != needed:
            kept, needed = _differing(state.get(key), needed)
            raise DataError(
                f"{folder} keeps tokens of other {key} ({kept} where {needed} is needed): "
                "remove the folder or name another"
            )
    try:
        return Layout(*(int(state[key]) for key in ("tokens", "width", "per_shard")))
    except (KeyError, TypeError, ValueError):
        raise _damaged(path) from None


def _differing(kept: Any, needed: Any) -> tuple[Any, Any]:
    """Return the parts of two settings that differ."""
    if not isinstance(kept, dict) or not isinstance(needed, dict):
        return kept, needed
    keys = [key for key in needed | kept if kept.get(key) != needed.get(key)]
    return {key: kept.get(key) for key in keys}, {key: needed.get(key) for key in keys}


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged: remove {path.parent}, and its image tokens are computed again")
