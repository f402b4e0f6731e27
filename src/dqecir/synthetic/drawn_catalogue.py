"""Write a catalogue of drawn pictures; the same arguments give the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
_ARRANGING, _DRAWING = 0, 1
"""Two independent streams of random numbers of a seed: one chooses the items, one draws each."""

SMALLEST, LARGEST = 64, 512
"""Smallest and largest side, in pixels, of a drawn picture."""

Row = Mapping[str, str]
"""A line of the table without its picture: column -> value, in the order of the columns."""
Items = Sequence[tuple[Row, int]]
"""Rows, each with the number of its family: items that must be in the same split."""

_QUALITY = 92


def check_size(what: str, size: int) -> None:
    """Raise ``DataError`` if ``size``, the side of a picture in pixels, is too small or too large.

    ``what`` names what the pictures show, such as garments, for the error.
    """
    if not SMALLEST <= size <= LARGEST:
        raise DataError(
            f"{what} are drawn at {SMALLEST} to {LARGEST} pixels a side, not {size}: choose another size"
        )


@dataclass(frozen=True)
class DrawnCatalogue:
    """A kind of catalogue whose pictures are drawn.

    Every method raises ``DataError`` for an argument that cannot be used.
    """

    what: str
    """What the pictures show, in the plural, for errors."""
    size: int
    """Default side of a picture, in pixels."""
    arrange: Callable[[int, Arrangement, np.random.Generator], tuple[Items, Sequence[int]]]
    """Function (number of items, arrangement, random generator) -> the items, and the numbers of their
    families in the order in which these are given to splits."""
    draw: Callable[[Row, np.random.Generator, int], Image.Image]
    """Function (row, random generator, side in pixels) -> its picture."""

    def rows(
        self, items: int, seed: int, arrangement: Arrangement = "families", split: str | None = None
    ) -> list[dict[str, str]]:
        """Return the split and the attributes of every item, without drawing pictures.

        The items are shuffled. If ``split`` is None, whole families go to train, val and test (80/10/10; each
        gets at least one if there are three or more); otherwise all items get ``split``. The same arguments
        give the same rows. ``arrangement``: families of similar items, or independent items.
        """
        if items < 1:
            raise DataError(f"a catalogue of {items} {self.what} is empty: give 1 or more")
        if arrangement not in get_args(Arrangement):
            raise DataError(
                f"there is no arrangement {arrangement!r}{nearest(arrangement, get_args(Arrangement))}"
            )
        if split is not None and split not in SPLITS:
            raise DataError(f"there is no split {split!r}{nearest(split, SPLITS)}")
        rng = _generator(seed, _ARRANGING)
        arranged, families = self.arrange(items, arrangement, rng)
        splits = _split_in_turn(families)
        rows = [{"split": split or splits[family], **row} for row, family in arranged]
        return [rows[place] for place in rng.permutation(len(rows))]

    def image(self, row: Row, seed: int, number: int, size: int | None = None) -> Image.Image:
        """Draw item ``number`` of a seed, with the attributes ``row`` (RGB).

        The picture does not depend on other items.

        ``size`` is its side in pixels. Default: :attr:`size`.
        """
        return self.draw(row, _generator(seed, _DRAWING, number), self.size if size is None else size)

    def write(
        self,
        folder: Path,
        items: int,
        seed: int,
        size: int | None = None,
        split: str | None = None,
        arrangement: Arrangement = "families",
        quiet: bool = False,
    ) -> Path:
        """Write ``attributes.csv`` and ``images/000000.jpg``, ``000001.jpg``, … to ``folder``; return it.

        ``size`` is the side of the pictures in pixels, from 64 to 512 (default: :attr:`size`). ``quiet``:
        show no progress. The other arguments are those of :meth:`rows`. The folder is written completely or
        not at all. Raises ``DataError`` if the folder is not empty.
        """
        folder = Path(folder)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise DataError(
                f"{folder} already exists: name a new or an empty folder, or delete this one first"
            )
        check_size(self.what, self.size if size is None else size)
        rows = self.rows(items, seed, arrangement, split)
        names = [f"images/{number:06d}.jpg" for number in range(len(rows))]
        with whole_folder(folder) as draft:
            (draft / "images").mkdir()
            table = io.StringIO(newline="")
            writer = csv.DictWriter(table, ["image", *rows[0]], lineterminator="\n")
            writer.writeheader()
            writer.writerows({"image": name, **row} for name, row in zip(names, rows, strict=True))
            write_text(draft / TABLE, table.getvalue())
            for number, row in enumerate(track(rows, f"drawing {self.what}", quiet=quiet)):
                self.image(row, seed, number, size).save(draft / names[number], "JPEG", quality=_QUALITY)
        return folder


def _generator(seed: int, *branch: int) -> np.random.Generator:
    """Return the random generator for one purpose of a seed: ``_ARRANGING``, or ``_DRAWING`` and a number."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=branch))


def _split_in_turn(families: Sequence[int]) -> dict[int, str]:
    """Return family -> split: a tenth of the families to val, a tenth to test, the rest to train, in order.

    Val and test get at least one if there are three or more families.
    """
    held_out = max(1, round(0.1 * len(families))) if len(families) >= len(SPLITS) else 0
    splits = ["val"] * held_out + ["test"] * held_out + ["train"] * (len(families) - 2 * held_out)
    return dict(zip(families, splits, strict=True))
