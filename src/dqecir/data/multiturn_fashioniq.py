"""Read multi-turn FashionIQ: dialogues that lead from a first picture to a target, turn by turn.

Source: the published annotations (arXiv 2106.04128, yfyuan01/MultiturnFashionRetrieval).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dqecir.data.annotations import (
    found_images,
    read_json,
    read_rows,
    require_images,
    require_named,
    strings,
)
from dqecir.data.fashioniq import CATEGORIES
from dqecir.data.triplets import Benchmark, Triplet, Turn
from dqecir.errors import DataError
from dqecir.settings import nearest

SPLITS = ("train", "val")
_DIALOGUES = "a file of multi-turn FashionIQ"


def read_multiturn_fashioniq(
    folder: Path, split: str = "val", *, images: Path | None = None, check_images: bool = True
) -> Benchmark:
    """Read the dialogues ``data/CATEGORY.SPLIT.json`` and the galleries ``image_splits/split.*.json``.

    The galleries are those of this data set, not those of FashionIQ. Captions are stripped, and empty ones
    left out. The file of an image id is looked for in ``images`` (default: ``folder/images``), first as
    ``.jpg``, then as ``.png``; with ``check_images=False`` it need not exist.

    Raises :class:`DataError` for another split, a file that is missing or damaged, a turn without a caption,
    an image outside of the split, and missing images.
    """
    if split not in SPLITS:
        raise DataError(f"multi-turn FashionIQ has no split {split!r}{nearest(split, SPLITS)}")
    listed = {name: folder / "image_splits" / f"split.{name}.{split}.json" for name in CATEGORIES}
    ids = {name: strings(read_json(path, _SPLIT), path, _SPLIT) for name, path in listed.items()}
    places = {image: n for n, image in enumerate(dict.fromkeys(i for own in ids.values() for i in own))}
    paths = found_images(folder / "images" if images is None else images, list(places))
    if check_images:
        require_images(paths, "multiturn-fashioniq")
    triplets = []
    for category, split_file in listed.items():
        path, known = folder / "data" / f"{category}.{split}.json", set(ids[category])
        for number, row in enumerate(read_rows(path, _DIALOGUES, {"target": list, "reference": list})):
            turns = [_turn(turn, path, number) for turn in row["reference"]]
            target = row["target"][1] if len(row["target"]) == 2 else ""
            if not turns:
                raise _damaged(path, number, "has no turn")
            for image in (target, *(image for image, _ in turns)):
                require_named(image, known, path, split_file)
            *earlier, last = [Turn(places[image], captions) for image, captions in turns]
            triplets.append(
                Triplet(
                    reference=last.reference,
                    target=places[target],
                    captions=last.captions,
                    category=category,
                    relevant=(places[target],),
                    earlier=tuple(earlier),
                    pair_id=f"{category}-{number}",
                )
            )
    galleries = {
        category: np.array(sorted(places[image] for image in own), dtype=np.int64)
        for category, own in ids.items()
    }
    return Benchmark("multiturn-fashioniq", split, tuple(places), paths, galleries, tuple(triplets), False)


_SPLIT = "an image split of multi-turn FashionIQ"


def _turn(turn: Any, path: Path, number: int) -> tuple[str, tuple[str, ...]]:
    """Return the image id and the captions of a turn, which is a list of address, captions and image id."""
    if not isinstance(turn, list) or len(turn) != 3 or not isinstance(turn[1], list):
        raise _damaged(path, number, "has a turn that is not an address, captions and an image")
    captions = tuple(text.strip() for text in turn[1] if isinstance(text, str) and text.strip())
    if not captions:
        raise _damaged(path, number, "has a turn without a caption")
    return turn[2], captions


def _damaged(path: Path, number: int, fault: str) -> DataError:
    return DataError(f"{path}: dialogue {number} {fault}: fetch the file again")
