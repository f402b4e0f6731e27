"""Writing a catalogue whose images are drawn: the same arguments give the same bytes, whole or not at all."""

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
"""Branches of a seed: which items there are, and how each is drawn."""

SMALLEST, LARGEST = 64, 512
"""Sides, in pixels, of the images that can be drawn."""

Row = Mapping[str, str]
"""One line of the table but for its image: column -> value, the columns in their order."""
Items = Sequence[tuple[Row, int]]
"""Rows, each with its family."""

_QUALITY = 92


def check_size(what: str, size: int) -> None:
    """Raise ``DataError`` for a side of an image, in pixels, at which nothing is drawn."""
    if not SMALLEST <= size <= LARGEST:
        raise DataError(f"{what} are drawn at {SMALLEST} to {LARGEST} pixels a side, not {size}")


@dataclass(frozen=True)
class DrawnCatalogue:
    """A kind of catalogue whose images are drawn.

    Every method raises ``DataError`` for an argument that cannot be used.
    """

    what: str
    """The kind of thing that the images show, in the plural."""
    size: int
    """Side of an image in pixels, unless another one is given."""
    arrange: Callable[[int, Arrangement, np.random.Generator], tuple[Items, Sequence[int]]]
    """Number of items -> the items, and their families in the order of splitting."""
    draw: Callable[[Row, np.random.Generator, int], Image.Image]
    """Draws the image of a row, of so many pixels a side."""

    def rows(
        self, items: int, seed: int, arrangement: Arrangement = "families", split: str | None = None
    ) -> list[dict[str, str]]:
        """Return the split and the attributes of every item, in the order of their numbers; draw nothing.

        The items are shuffled. Without ``split``, whole families go to train, val and test (80/10/10, and
        one at least where there are three); else all items get ``split``. The same arguments give the same
        rows.
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
        """Draw item ``number`` of a seed: RGB, ``size`` x ``size`` pixels; other items have no say in it."""
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
        """Write ``attributes.csv`` and ``images/000000.jpg`` onwards into ``folder``, and return it.

        ``size`` is the side of the images in pixels (64 to 512); the other arguments are those of
        :meth:`rows`. Item ``n`` is its :meth:`image` as JPEG. The same arguments give the same bytes. The
        folder appears when all is written. Raises ``DataError`` for a folder that holds anything.
        """
        folder = Path(folder)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise DataError(
                f"{folder} is there already: name a new or an empty folder, or delete this one first"
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
    """Return the generator of one branch of a seed: ``_ARRANGING``, or ``_DRAWING`` and a number."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=branch))


def _split_in_turn(families: Sequence[int]) -> dict[int, str]:
    """Return family -> split: a tenth to val, a tenth to test, the rest to train, in the order given.

    Val and test get one family at least where there are three.
    """
    held_out = max(1, round(0.1 * len(families))) if len(families) >= len(SPLITS) else 0
    splits = ["val"] * held_out + ["test"] * held_out + ["train"] * (len(families) - 2 * held_out)
    return dict(zip(families, splits, strict=True))
