"""Read GeneCIS: questions about similarity under a condition, each with its own small gallery.

Source: the published annotations and loaders (arXiv 2306.07969, facebookresearch/genecis). The two tasks
about objects use COCO's val2017, those about attributes use crops of Visual Genome.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dqecir.data.annotations import read_rows, require_images
from dqecir.data.images import load_image
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError
from dqecir.io.files import write_bytes

TASKS = ("change_attribute", "change_object", "focus_attribute", "focus_object")
COCO, GENOME, CROPS = Path("val2017"), Path("VG_100K_all"), Path("crops")
"""Sub-folders of the folder of pictures: COCO's val2017, all of Visual Genome 1.2, and crops of the
latter."""
DILATION = 0.7
"""How far a crop extends beyond its box to the left and up, as a share of the box's width and height."""


def read_genecis(
    folder: Path, split: str = "val", *, images: Path | None = None, check_images: bool = True
) -> Benchmark:
    """Read the four tasks in ``folder/genecis`` as four categories; the only split is ``val``.

    ``Triplet.subset`` is the small gallery of a question, with its target; the gallery of a task joins them
    all. Pictures are in ``images`` (default: ``folder``); crops are written there once, as
    ``crops/IMAGE_X_Y_W_H.png``. With ``check_images=False`` pictures need not exist, and nothing is written.

    Raises :class:`DataError` for another split, a file that is missing or damaged, and missing pictures.
    """
    if split != "val":
        raise DataError(f"GeneCIS has no split {split!r}: its one split is 'val'")
    root = folder if images is None else images
    files: dict[str, Path] = {}
    boxes: dict[str, tuple[Path, list[float]]] = {}
    asked: list[tuple[str, str, str, str, list[str]]] = []
    for task in TASKS:
        path = folder / "genecis" / f"{task}.json"
        fields: dict[str, type] = {"condition": str, "reference": dict, "target": dict, "gallery": list}
        for number, row in enumerate(read_rows(path, "a GeneCIS task", fields)):
            named = []
            for entry in (row["reference"], row["target"], *row["gallery"]):
                name, picture, box = _picture(entry, f"{path}, entry {number}")
                named.append(name)
                files[name] = root / picture
                if box is not None:
                    files[name] = root / CROPS / f"{name}.png"
                    boxes[name] = (root / picture, box)
            asked.append((task, row["condition"], named[0], named[1], named[1:]))
    if check_images:
        require_images([boxes[name][0] if name in boxes else path for name, path in files.items()], "genecis")
        for name, (picture, box) in boxes.items():
            if not files[name].is_file():
                _write_crop(picture, box, files[name])
    places = {name: place for place, name in enumerate(files)}
    triplets = tuple(
        Triplet(
            reference=places[reference],
            target=places[target],
            captions=(condition,),
            category=task,
            relevant=(places[target],),
            subset=tuple(sorted({places[name] for name in gallery})),
        )
        for task, condition, reference, target, gallery in asked
    )
    galleries = {
        task: np.unique([image for one in triplets if one.category == task for image in one.subset])
        for task in TASKS
    }
    return Benchmark("genecis", split, tuple(files), tuple(files.values()), galleries, triplets, False)


def _picture(entry: Any, where: str) -> tuple[str, Path, list[float] | None]:
    """Return the name of a picture or crop, the file it comes from, and the box of a crop (else None)."""
    if isinstance(entry, Mapping) and isinstance(entry.get("val_image_id"), int):
        name = f"{entry['val_image_id']:012d}"
        return name, COCO / f"{name}.jpg", None
    image = entry.get("image_id") if isinstance(entry, Mapping) else None
    box = entry.get("instance_bbox") if isinstance(entry, Mapping) else None
    is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)
    if not (is_box and isinstance(image, int | str) and str(image).isdecimal()):
        raise DataError(
            f"{where} needs val_image_id, or image_id and instance_bbox [x, y, w, h]: fetch it again"
        )
    assert isinstance(box, list)
    # 15 digits, because Python's 6 would give ids of seven digits, such as 2417997, one name.
    return "_".join(f"{part:.15g}" for part in (int(image), *box)), GENOME / f"{image}.jpg", box


def crop(picture: Image.Image, box: list[float]) -> Image.Image:
    """Cut ``box`` [x, y, w, h] (pixels) with a margin, and pad the result with black to a square.

    As in the published loader, the cut has 1 + :data:`DILATION` times the width and height of the box, and
    ends with the box on the right and below. At the left and upper edges of the picture it is moved inside;
    at the other edges it is cut off. Raises :class:`DataError` if nothing of the box is in the picture.
    """
    x, y, width, height = box
    left, top = max(0, x - DILATION * width), max(0, y - DILATION * height)
    right = min(picture.width, left + (1 + DILATION) * width)
    bottom = min(picture.height, top + (1 + DILATION) * height)
    edges = round(left), round(top), round(right), round(bottom)
    if edges[0] >= edges[2] or edges[1] >= edges[3]:
        raise DataError(
            f"the box {box} is empty or outside of its picture of {picture.width} x {picture.height} pixels: "
            "fetch annotations and pictures again"
        )
    cut = picture.crop(edges)
    side = max(cut.size)
    square = Image.new("RGB", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square


def _write_crop(picture: Path, box: list[float], path: Path) -> None:
    written, whole = BytesIO(), load_image(picture)
    try:
        crop(whole, box).save(written, format="PNG")
    except DataError as error:
        raise DataError(f"{picture}: {error}") from error
    write_bytes(path, written.getvalue())
