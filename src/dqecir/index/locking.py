"""Lock an index so that only one writer changes it; the system releases the lock if the writer is killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from dqecir.errors import EngineError
from dqecir.index.contract import check_replaceable
from dqecir.io.files import whole_folder

PATIENCE = 30.0
"""Seconds to wait for another writer to finish."""


@contextmanager
def write_lock(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock of writers of an index during the ``with`` block; it holds for threads and processes.

    Readers do not need it. Raises :class:`EngineError` if another writer holds the lock for more than
    ``patience`` seconds, if the folder cannot be written to, or if its file system has no locks.
    """
    end = time.monotonic() + patience
    while True:
        try:
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise EngineError(
                f"{folder} cannot be written to ({error.strerror}): check its permissions"
            ) from None
        try:
            if _taken(handle, folder) and _is_named(handle, folder):
                yield
                return
        finally:
            os.close(handle)
        if time.monotonic() >= end:
            raise EngineError(f"{folder} is being written to by another process: try again when it has ended")
        time.sleep(0.01)


@contextmanager
def place_to_build(folder: Path, in_place: bool) -> Iterator[Path]:
    """Yield the folder to build in: ``folder`` itself, locked, or a draft that replaces it at the end.

    ``in_place``: build the next generation of the index in ``folder``, so that a kill at any moment leaves
    either the old or the new index. Raises :class:`EngineError` if the folder holds files that are not an
    index.
    """
    check_replaceable(folder)
    if in_place:
        with write_lock(folder):
            yield folder
    else:
        with whole_folder(folder) as draft:
            yield draft


def _taken(handle: int, folder: Path) -> bool:
    try:
        return lock_descriptor(handle, blocking=False)
    except OSError as error:
        raise EngineError(
            f"{folder} cannot be locked ({error.strerror}): keep the index on a disk that supports locks"
        ) from None


def _is_named(handle: int, folder: Path) -> bool:
    """Return whether the open file ``handle`` is still ``lock`` in ``folder``; a new index may replace it."""
    try:
        return os.path.samestat(os.fstat(handle), (folder / "lock").stat())
    except FileNotFoundError:
        return False
