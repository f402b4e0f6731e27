"""Write a catalogue of drawn images, whole or not at all; the same arguments give the same bytes."""

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
"""Branches of a seed: choosing the items, and drawing each."""

SMALLEST, LARGEST = 64, 512
"""Sides, in pixels, of the images that can be drawn."""

Row = Mapping[str, str]
"""One line of the table without its image: column -> value, in the order of columns."""
Items = Sequence[tuple[Row, int]]
"""Rows with the number of their family."""

_QUALITY = 92


def check_size(what: str, size: int) -> None:
    """Raise ``DataError`` for an image side, in pixels, outside the limits."""
    if not SMALLEST <= size <= LARGEST:
        raise DataError(f"{what} are drawn at {SMALLEST} to {LARGEST} pixels a side, not {size}")


@dataclass(frozen=True)
class DrawnCatalogue:
    """A kind of catalogue whose images are drawn.

    Every method raises ``DataError`` for an argument that cannot be used.
    """

    what: str
    """What the images show, in the plural."""
    size: int
    """Default side of an image, in pixels."""
    arrange: Callable[[int, Arrangement, np.random.Generator], tuple[Items, Sequence[int]]]
    """Number of items -> the items, and their families in the order in which they are split."""
    draw: Callable[[Row, np.random.Generator, int], Image.Image]
    """Row, generator, side in pixels -> its image."""

    def rows(
        self, items: int, seed: int, arrangement: Arrangement = "families", split: str | None = None
    ) -> list[dict[str, str]]:
        """Return the split and the attributes of every item in order, without drawing images.

        The items are shuffled. Without ``split``, whole families go to train, val and test (80/10/10; each
        gets at least one of three or more families); else all items get ``split``. The same arguments give
        the same rows.
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
        """Draw item ``number`` of a seed as RGB, independent of other items.

        ``size`` is its side in pixels. Default: that of this kind of catalogue.
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
        """Write ``attributes.csv`` and ``images/000000.jpg`` onwards into ``folder``, and return it.

        ``size`` is the side of the images in pixels, 64 to 512 (default: as :meth:`image`); the other
        arguments are those of :meth:`rows`. Item ``n`` is its :meth:`image` as JPEG. The same arguments give
        the same bytes. The folder appears once everything is written. Raises ``DataError`` if the folder is
        not empty.
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
    """Return the generator of one branch of a seed: ``_ARRANGING``, or ``_DRAWING`` and a number."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=branch))


def _split_in_turn(families: Sequence[int]) -> dict[int, str]:
    """Assign families to splits in order: a tenth to val, a tenth to test, the rest to train.

    Val and test get at least one of three or more families.
    """
    held_out = max(1, round(0.1 * len(families))) if len(families) >= len(SPLITS) else 0
    splits = ["val"] * held_out + ["test"] * held_out + ["train"] * (len(families) - 2 * held_out)
    return dict(zip(families, splits, strict=True))
