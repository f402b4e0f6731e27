"""Find the pictures of an index: payloads have paths relative to one folder, which may be moved."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

from dqecir.errors import EngineError
from dqecir.io.files import write_json

FILE = "pictures.json"

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_address(stored: str) -> bool:
    """Return whether ``stored`` is the address of a picture, such as ``s3://…``, and not a path."""
    return _ADDRESS.match(stored) is not None


def stored_path(path: Path, root: Path | None) -> str:
    """Return a picture's path as payloads store it: relative to ``root`` if it is inside, else absolute.

    ``root`` is an absolute path; if it is None, the result is absolute.
    """
    whole = Path(os.path.abspath(path))  # noqa: PTH100  (a link within the root is no way out of it)
    if root is not None and whole.is_relative_to(root):
        return whole.relative_to(root).as_posix()
    return str(path.resolve())


def picture_path(folder: Path, stored: str) -> Path:
    """Return the path of the picture that a payload of the index in ``folder`` stores as ``stored``.

    The file may be missing. A picture that the service stored is also looked for in the folder of uploads
    next to the index. Raises :class:`EngineError` if ``pictures.json`` is damaged.
    """
    path = Path(stored)
    if not path.is_absolute():
        return (read_root(folder) or Path()) / path
    if path.exists():
        return path
    uploaded = folder.with_name(f"{folder.name}-uploads") / path.name
    return uploaded if uploaded.is_file() else path


def read_root(folder: Path) -> Path | None:
    """Return the folder that the paths of an index are relative to; None if they are absolute.

    If index and pictures were moved together, it is the folder at the same place relative to the index.
    Raises :class:`EngineError` if ``pictures.json`` is damaged.
    """
    try:
        return _read(folder, (folder / FILE).stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=64)
def _read(folder: Path, changed: int) -> Path:
    try:
        said = json.loads((folder / FILE).read_text(encoding="utf-8"))
        beside, whole = Path(said["beside"]), Path(said["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{folder / FILE} is damaged ({error}): dqecir index reroot writes it again"
        ) from None
    moved = Path(os.path.abspath(folder.resolve() / beside))  # noqa: PTH100
    return moved if moved.is_dir() else whole


def write_root(folder: Path, root: Path | None) -> None:
    """Store that the paths of the index in ``folder`` are relative to ``root``; None: they are absolute."""
    if root is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    whole = Path(os.path.abspath(root))  # noqa: PTH100
    try:
        beside = os.path.relpath(whole.resolve(), folder.resolve())
    except ValueError:  # Another drive on Windows.
        beside = str(whole)
    write_json(folder / FILE, {"root": str(whole), "beside": beside})
