"""Lock an index for one writer by a file lock, which the system releases even if the writer is killed."""

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
"""Seconds to wait for another writer."""


@contextmanager
def write_lock(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the writers' lock of the index among threads and processes; readers never need it.

    Raises :class:`EngineError` if another writer holds it for more than ``patience`` seconds, if the folder
    cannot be written to, or if its file system has no locks.
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
    """Yield where to build: ``folder`` itself, locked, or a draft that replaces it at the end.

    ``in_place``: the build replaces the index there by a next generation, so that a kill at any moment leaves
    the old one or the new one. Raises :class:`EngineError` if the folder holds files that are not an index.
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
    """Return whether the locked file is still the folder's; a new index may have replaced it."""
    try:
        return os.path.samestat(os.fstat(handle), (folder / "lock").stat())
    except FileNotFoundError:
        return False
