"""Read Shoes: captions that compare two shoes, over the pictures of the Attribute Discovery Dataset.

Source: the published annotations (arXiv 1805.00145, XiaoxiaoGuo/fashion-retrieval).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dqecir.data.annotations import read_rows, read_text, require_images, require_named
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError

CAPTIONS = "relative_captions_shoes.json"
NAMES = {"train": "train_im_names.txt", "test": "eval_im_names.txt", "val": "eval_im_names.txt"}
"""Split -> the file that lists its pictures. ``val`` means the test split, because there is no other."""
GALLERY = "all"


def read_shoes(
    folder: Path, split: str = "test", *, images: Path | None = None, check_images: bool = True
) -> Benchmark:
    """Read the captions and the names of the pictures of a split in ``folder``.

    The splits are ``train`` and ``test``; ``val`` means test. Pictures are ``.jpg`` files anywhere in
    ``images`` (default: ``folder``); the data set has them in folders ``womens_*``. The reference of a
    question decides its split. With ``check_images=False`` pictures need not exist.

    Raises :class:`DataError` for another split, a file that is missing or damaged, a target outside of the
    split, and missing pictures.
    """
    if split not in NAMES:
        raise DataError(f"Shoes has no split {split!r}: its splits are train and test")
    listed, captions = folder / NAMES[split], folder / CAPTIONS
    names = [line.strip() for line in read_text(listed, "the names of Shoes' pictures") if line.strip()]
    fields: dict[str, type] = dict.fromkeys(("ImageName", "ReferenceImageName", "RelativeCaption"), str)
    rows = read_rows(captions, "Shoes' captions", fields)
    places = {name: place for place, name in enumerate(names)}
    if len(places) < len(names):
        raise DataError(f"{listed} names a picture twice: fetch it again")
    paths = _found(folder if images is None else images, names)
    if check_images:
        require_images(paths, "shoes")
    triplets = []
    for number, row in enumerate(rows):
        reference, target = row["ReferenceImageName"], row["ImageName"]
        if reference in places:
            require_named(target, places, captions, listed)
            caption = row["RelativeCaption"].strip()
            place = places[target]
            triplets.append(
                Triplet(places[reference], place, (caption,), GALLERY, (place,), pair_id=str(number))
            )
    galleries = {GALLERY: np.arange(len(names), dtype=np.int64)}
    return Benchmark("shoes", split, tuple(names), paths, galleries, tuple(triplets), False)


def _found(root: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Return the path of each picture below ``root``; directly in ``root`` if it does not exist."""
    there = {path.name: path for path in sorted(root.rglob("*.jpg"))}
    return tuple(there.get(name, root / name) for name in names)
