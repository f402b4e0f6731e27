"""Write files and folders completely or not at all: write a temporary one, then rename it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import lock_descriptor


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``; a reader sees the old file or the new one, never a part."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``; readers see the old file or the new one, never a part."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; a reader sees the old file or the new one, never a part."""
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield an empty file that replaces ``path`` if the ``with`` block ends without an error.

    The folder of ``path`` is created if necessary. If ``path`` is a link, its target is replaced. Pipes and
    devices are written directly.
    """
    # A link such as /dev/stdout may lead to a pipe, which has no path of its own.
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk, so that new names survive a power cut.

    Does nothing on Windows.
    """
    if os.name != "nt":
        with _opened(folder) as handle:
            os.fsync(handle)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``path`` if the ``with`` block ends without an error.

    Until then, and after an error, an existing ``path`` does not change. If ``path`` is a link, its target is
    replaced. Drafts that killed processes have left are removed.
    """
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in dead_drafts(path):
        shutil.rmtree(left, ignore_errors=True)
    draft, handle = _locked_draft(path)
    try:
        yield draft
        draft.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            path.replace(old / path.name)
            draft.replace(path)
            shutil.rmtree(old)
        else:
            draft.replace(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        if handle is not None:
            os.close(handle)


def dead_drafts(path: Path) -> list[Path]:
    """Return the drafts of a folder that killed processes have left; empty where folders cannot be locked."""
    if path.is_symlink():
        path = path.resolve()
    name = re.compile(rf"\.{re.escape(path.name)}\.draft-[a-z0-9_]{{8}}")
    found = path.parent.iterdir() if path.parent.is_dir() else ()
    drafts = sorted(one for one in found if name.fullmatch(one.name) and one.is_dir())
    return [draft for draft in drafts if _is_dead(draft)]


def _locked_draft(path: Path) -> tuple[Path, int | None]:
    """Return a new draft of a folder, and the handle that locks it until the handle is closed.

    The handle is None on Windows, which cannot lock folders. If the file system has no locks, no draft counts
    as dead.
    """
    while True:
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.draft-"))
        if os.name == "nt":
            return draft, None
        # Before the draft is locked, another process may take it for a dead one and remove it.
        with suppress(FileNotFoundError):
            handle = os.open(draft, os.O_RDONLY)
            with suppress(OSError):
                lock_descriptor(handle, blocking=False)
            if draft.exists():
                return draft, handle
            os.close(handle)


def _is_dead(draft: Path) -> bool:
    """Return whether no process holds the lock of a draft; False where folders cannot be locked."""
    try:
        with _opened(draft) as handle:
            return os.name != "nt" and lock_descriptor(handle, blocking=False)
    except OSError:
        return False


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)
