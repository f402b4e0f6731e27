"""Find the file of the picture that each row of a table names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from dqecir.data.picture_files import FileNames

_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class RowPictures:
    """The file of each row, relative to the folder; the cell itself where no file is found."""

    files: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def row_pictures(folder: Path, cells: Sequence[str], lines: Sequence[int]) -> RowPictures:
    """Find the file of each cell: of exactly that name, or the only one spelled alike.

    Case, Unicode form and slashes may differ. An address means a file of its last part.
    """
    names = FileNames(folder)
    files: list[str] = []
    problems: list[str] = []
    respelt: list[str] = []
    for cell, line in zip(cells, lines, strict=True):
        wanted = cell
        if _ADDRESS.match(cell):
            wanted = PurePosixPath(unquote(urlsplit(cell).path)).name
            found = names.find(wanted) or names.of_last_part(wanted)
        elif problem := _path_problem(cell):
            problems.append(f"{problem} (line {line})")
            found = [cell]
        else:
            found = names.find(cell)
        if not found:
            fetch = ": download it into the folder" if wanted != cell else ""
            problems.append(f"image {wanted!r} is not in the folder (line {line}){fetch}")
        elif len(found) > 1:
            problems.append(
                f"image {wanted!r} may be {' or '.join(found)} (line {line}): write its exact name"
            )
        elif found[0] != cell and wanted == cell:
            respelt.append(f"{cell!r} as {found[0]!r}")
        files.append(found[0] if found else cell)
    more = f" and {len(respelt) - 1} more" if len(respelt) > 1 else ""
    warnings = (
        (f"names of images are written otherwise than their files: {respelt[0]}{more}",) if respelt else ()
    )
    return RowPictures(tuple(files), tuple(problems), warnings)


def _path_problem(name: str) -> str | None:
    if not name:
        return "a row names no image"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        return f"image {name!r} is an absolute path: write it relative to the folder"
    if ".." in name.replace("\\", "/").split("/"):
        return f"image {name!r} leads out of the folder"
    return None
