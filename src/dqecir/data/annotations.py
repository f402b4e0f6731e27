"""Read published annotation files, and check that the images they name exist."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqecir.data.triplets import Positions
from dqecir.errors import DataError

SUFFIXES = (".jpg", ".png")
"""Suffixes that are tried for the file of an image id, in this order."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a test split, whose answer is not published."""

    pair_id: str
    """Id of the question in its split: the data set's number, or for FashionIQ the category and the position
    in its file, ``dress-12``."""
    reference: int
    """Position of the reference image in ``Questions.image_ids``."""
    captions: tuple[str, ...]
    category: str
    subset: tuple[int, ...] = ()
    """Positions of the near-identical images, ascending, without the reference; see ``Triplet.subset``."""


@dataclass(frozen=True)
class Questions:
    """The images, galleries and questions of a split without answers.

    The fields are those of ``Benchmark``, with ``questions`` instead of ``triplets``.
    """

    name: str
    split: str
    image_ids: tuple[str, ...]
    image_paths: tuple[Path, ...]
    galleries: Mapping[str, Positions]
    questions: tuple[Question, ...]
    mask_reference: bool


def read_json(path: Path, what: str) -> Any:
    """Return the contents of a JSON file.

    Raises :class:`DataError`, in which ``what`` says what the file should be, if the file is missing, cannot
    be read, or is not JSON.
    """
    try:
        return json.loads(_read(path, what))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON ({error}): fetch {what} again") from None


def read_text(path: Path, what: str) -> list[str]:
    """Return the lines of a text file.

    Raises :class:`DataError`, in which ``what`` says what the file should be, if the file is missing, cannot
    be read, or is not UTF-8.
    """
    try:
        return _read(path, what).splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: fetch {what} again") from None


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"there is no file {path} ({what}): name the folder of the data set, or fetch the file"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its permissions") from None


def read_rows(path: Path, what: str, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """Read a JSON list of objects that all have ``fields`` (name -> type); they may have further fields.

    Raises :class:`DataError`, in which ``what`` says what the file should be, for any other file.
    """
    rows = read_json(path, what)
    if not isinstance(rows, list):
        raise DataError(f"{path} is not {what}, which is a list of questions: fetch it again")
    for number, row in enumerate(rows):
        for name, kind in fields.items():
            if not isinstance(row, dict) or not isinstance(row.get(name), kind):
                raise DataError(
                    f"{path} is not {what}: entry {number} needs a field {name!r} of the type "
                    f"{kind.__name__}; fetch it again"
                )
    return rows


def strings(values: Any, path: Path, what: str) -> list[str]:
    """Return ``values`` if they are a list of different strings; raises :class:`DataError` otherwise.

    ``path`` and ``what`` name the file in the error.
    """
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{path} is not {what}, which is a list of names: fetch it again")
    if len(set(values)) != len(values):
        raise DataError(f"{path} names an image twice: fetch {what} again")
    return values


def require_named(image: Any, known: Container[str], path: Path, split: Path) -> None:
    """Raise :class:`DataError` if ``image``, which the file ``path`` names, is not in ``known``.

    ``split`` is the file that lists the known images.
    """
    if not isinstance(image, str) or image not in known:
        raise DataError(
            f"{path} names the image {image!r}, which is not in the split {split}: fetch annotations and "
            "splits of the same release"
        )


def found_images(folder: Path, ids: Sequence[str]) -> tuple[Path, ...]:
    """Return the path of each image id in ``folder``: with the first of ``SUFFIXES`` that exists.

    If none exists, it is ``.jpg``.
    """
    candidates = ([folder / f"{image}{suffix}" for suffix in SUFFIXES] for image in ids)
    return tuple(next((path for path in paths if path.is_file()), paths[0]) for paths in candidates)


def require_images(paths: Iterable[Path], name: str) -> None:
    """Raise :class:`DataError`, which counts them and names the first three, if files are missing.

    ``name`` is the data set, for the error.
    """
    paths = list(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        first = ", ".join(str(path) for path in missing[:3])
        raise DataError(
            f"{name}: {len(missing):,} of {len(paths):,} images are missing "
            f"({first}{', …' if len(missing) > 3 else ''}): put them there, name their folder with images, "
            "or read only the annotations with check_images=False"
        )
