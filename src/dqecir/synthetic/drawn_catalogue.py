"""Writing a catalogue whose images are drawn: the same arguments give the same bytes, whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from dqecir.data.catalogue_table import SPLITS, TABLE
from dqecir.errors import DataError
from dqecir.io.files import whole_folder, write_text
from dqecir.io.progress import track
from dqecir.settings import nearest

Arrangement = Literal["families", "independent"]
ARRANGING, DRAWING = 0, 1
"""Branches of a seed: which items there are, and how each is drawn."""

SMALLEST, LARGEST = 64, 512
"""Sides, in pixels, of the images that can be drawn."""

Row = Mapping[str, str]
"""One line of the table but for its image: column -> value, the columns in their order."""
Draw = Callable[[Row, int], Image.Image]
"""Draws the image of a row with its number."""

_QUALITY = 92


def check_size(what: str, size: int) -> None:
    """Raise ``DataError`` for a side of an image, in pixels, at which nothing is drawn."""
    if not SMALLEST <= size <= LARGEST:
        raise DataError(f"{what} are drawn at {SMALLEST} to {LARGEST} pixels a side, not {size}")


def check_request(what: str, items: int, arrangement: str, split: str | None) -> None:
    """Raise ``DataError`` for a catalogue of ``what`` (in the plural) that cannot be arranged.

    A split of ``None`` is drawn.
    """
    if items < 1:
        raise DataError(f"a catalogue of {items} {what} is empty: give 1 or more")
    if arrangement not in get_args(Arrangement):
        raise DataError(
            f"there is no arrangement {arrangement!r}{nearest(arrangement, get_args(Arrangement))}"
        )
    if split is not None and split not in SPLITS:
        raise DataError(f"there is no split {split!r}{nearest(split, SPLITS)}")


def generator_of(seed: int, *branch: int) -> np.random.Generator:
    """Return the generator of one branch of a seed: :data:`ARRANGING`, or :data:`DRAWING` and a number."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=branch))


def split_in_turn(families: Sequence[int]) -> dict[int, str]:
    """Family -> split: a tenth to val, a tenth to test, the rest to train, in the order given.

    Val and test get one family at least where there are three.
    """
    held_out = max(1, round(0.1 * len(families))) if len(families) >= len(SPLITS) else 0
    splits = ["val"] * held_out + ["test"] * held_out + ["train"] * (len(families) - 2 * held_out)
    return dict(zip(families, splits, strict=True))


def check_target(folder: Path, what: str, size: int) -> None:
    """Raise ``DataError`` for a folder that holds anything, and for a side at which nothing is drawn."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} is there already: name a new or an empty folder, or delete this one first")
    check_size(what, size)


def write_drawn(folder: Path, what: str, rows: Sequence[Row], draw: Draw, quiet: bool = False) -> Path:
    """Write ``attributes.csv`` and ``images/000000.jpg`` onwards, one image a row; return ``folder``.

    ``what`` names what is drawn, in the plural. The folder appears when all is written. It passed
    :func:`check_target`.
    """
    names = [f"images/{number:06d}.jpg" for number in range(len(rows))]
    with whole_folder(folder) as draft:
        (draft / "images").mkdir()
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, ["image", *rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"image": name, **row} for name, row in zip(names, rows, strict=True))
        write_text(draft / TABLE, table.getvalue())
        for number, row in enumerate(track(rows, f"drawing {what}", quiet=quiet)):
            draw(row, number).save(draft / names[number], "JPEG", quality=_QUALITY)
    return folder
