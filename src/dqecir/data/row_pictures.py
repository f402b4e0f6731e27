"""Find the files of the pictures that each row of a table names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from dqecir.data.picture_files import PICTURE_SUFFIXES, FileNames

_ADDRESS = re.compile(r"(?:https?:)?//[^/]", re.IGNORECASE)
_BETWEEN_ADDRESSES = re.compile(r"[\s,;|]+(?=(?:https?:)?//)", re.IGNORECASE)
_BETWEEN_NAMES = re.compile(r"\s*[,;|\n]\s*")


@dataclass(frozen=True)
class RowPicture:
    """A picture that a row names; ``row`` is the row's position."""

    row: int
    file: str
    """Path of its file, relative to the folder; the name in the cell if there is no such file, the first file
    if the name fits several."""
    problem: str = ""
    """Why there is no file, or which several files the name fits; empty if it fits exactly one."""
    is_missing: bool = False
    """Whether the file does not exist or the cell is empty, and nothing else is wrong."""


@dataclass(frozen=True)
class RowPictures:
    """The pictures of all rows, row by row; each row has at least one entry."""

    pictures: tuple[RowPicture, ...]
    warnings: tuple[str, ...]


def row_pictures(folder: Path, rows: Sequence[Sequence[str]], lines: Sequence[int]) -> RowPictures:
    """Find the file of every picture: the one with exactly that name, else the only similar one.

    ``rows`` has each row's cells that name pictures; a cell may name several, with commas, semicolons, bars
    or line breaks between them. Similar names differ in case, Unicode form and slashes. An address means the
    file named by its last part, in any sub-folder. ``lines``: the rows' lines in the file, for problems.
    """
    names = FileNames(folder)
    found: list[RowPicture] = []
    respelt: list[str] = []
    for row, (cells, line) in enumerate(zip(rows, lines, strict=True)):
        named = [name for cell in cells for name in _named(cell, names)]
        for name in named or [""]:
            picture = _found(row, name, names, line)
            if not picture.problem and picture.file != name and not _ADDRESS.match(name):
                respelt.append(f"{name!r} as {picture.file!r}")
            found.append(picture)
    more = f" and {len(respelt) - 1} more" if len(respelt) > 1 else ""
    warnings = (
        (f"names of images are spelled differently from their files: {respelt[0]}{more}",) if respelt else ()
    )
    return RowPictures(tuple(found), warnings)


def _named(cell: str, names: FileNames) -> Iterator[str]:
    """Yield the pictures that a cell names; a comma may be part of a name."""
    if not cell:
        return
    if _ADDRESS.match(cell):
        yield from _BETWEEN_ADDRESSES.split(cell)
        return
    parts = [part for part in _BETWEEN_NAMES.split(cell) if part]
    if len(parts) > 1 and all(part.casefold().endswith(tuple(PICTURE_SUFFIXES)) for part in parts):
        yield from [cell] if not path_problem(cell) and names.find(cell) else parts
    else:
        yield cell


def _found(row: int, cell: str, names: FileNames, line: int) -> RowPicture:
    wanted = cell
    if _ADDRESS.match(cell):
        wanted = PurePosixPath(unquote(urlsplit(cell).path)).name
        found = names.find(wanted) or names.of_last_part(wanted)
    elif problem := path_problem(cell):
        return RowPicture(row, cell, f"{problem} (line {line})", is_missing=not cell)
    else:
        found = names.find(cell)
    if not found:
        similar = names.similar(wanted)
        helps = (
            f"write {similar[0]!r} if you mean that" if len(similar) == 1 else "add it, or correct its name"
        )
        helps = "dqecir catalogue fetch downloads it" if wanted != cell else helps
        return RowPicture(row, cell, f"image {wanted!r} is not in the folder (line {line}): {helps}", True)
    if len(found) > 1:
        several = f"image {wanted!r} may be {' or '.join(found)} (line {line}): write its exact name"
        return RowPicture(row, found[0], several)
    return RowPicture(row, found[0])


def path_problem(name: str) -> str | None:
    """Return why ``name`` cannot be a file in the catalogue's folder, as a sentence; None if it can.

    It must not be empty, absolute, or outside of the folder.
    """
    if not name:
        return "a row names no image"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        return f"image {name!r} is an absolute path: write it relative to the folder"
    if ".." in name.replace("\\", "/").split("/"):
        return f"image {name!r} points outside the folder: name a picture in it"
    return None
