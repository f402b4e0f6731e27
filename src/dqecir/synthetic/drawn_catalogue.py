"""Writing a catalogue whose images are drawn: the same arguments give the same bytes, whole or not at all."""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
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
"""Draws the image of a row with its number; for several processes it must be picklable."""

_QUALITY = 92
_CHUNK = 64


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


def check_target(folder: Path, what: str, size: int, workers: int) -> None:
    """Raise ``DataError`` for a folder that holds anything, for a side in pixels at which nothing is drawn,
    and for no worker."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} is there already: name a new or an empty folder, or delete this one first")
    if workers < 1:
        raise DataError(f"{workers} workers cannot draw anything: give 1 or more")
    check_size(what, size)


def write_drawn(
    folder: Path, what: str, rows: Sequence[Row], draw: Draw, workers: int = 1, quiet: bool = False
) -> Path:
    """Write ``attributes.csv`` and ``images/000000.jpg`` onwards, one image a row; return ``folder``.

    ``what`` names what is drawn, in the plural. The folder appears when all is written; the number of
    ``workers`` (processes) does not change its bytes. The folder passed :func:`check_target`.
    """
    with whole_folder(folder) as draft:
        (draft / "images").mkdir()
        write_text(draft / TABLE, _table(rows))
        drawn = _write_images(partial(_write_image, draft, draw), rows, workers)
        for _ in track(drawn, f"drawing {what}", total=len(rows), quiet=quiet):
            pass
    return folder


def _image_name(number: int) -> str:
    return f"images/{number:06d}.jpg"


def _table(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = tuple(rows[0])
    writer.writerow(("image", *columns))
    for number, row in enumerate(rows):
        writer.writerow((_image_name(number), *(row[column] for column in columns)))
    return text.getvalue()


def _write_images(write: partial[None], rows: Sequence[Row], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(write, range(len(rows)), rows)
        return
    # A forked copy of a process that runs threads (as torch does) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(write, range(len(rows)), rows, chunksize=_CHUNK)


def _write_image(folder: Path, draw: Draw, number: int, row: Row) -> None:
    draw(row, number).save(folder / _image_name(number), "JPEG", quality=_QUALITY)
