"""Read FashionIQ: captions, splits and galleries. Source: the published annotations (arXiv 1905.12794)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dqecir.data.annotations import (
    Question,
    Questions,
    found_images,
    read_json,
    read_rows,
    require_images,
    require_named,
    strings,
)
from dqecir.data.triplets import Benchmark, Positions, Triplet
from dqecir.errors import DataError
from dqecir.settings import nearest

CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("train", "val", "test")
JOINT = "all"
"""Name of the category if all categories share one gallery (``joint``)."""

Gallery = Literal["original", "val_split", "joint"]
"""Candidates of a category. ``original``: the images of its split file. ``val_split``: only references and
targets of its questions, as in MGUR and the VAL protocol. ``joint``: the images of all categories together,
as in ComposeAE."""
GALLERIES: tuple[str, ...] = get_args(Gallery)


def read_captions(path: Path) -> list[str]:
    """Return all captions in one ``cap.<category>.<split>.json``, in order and unchanged.

    Raises :class:`DataError` if the file is missing or has another form, ``OSError`` if it cannot be read.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [str(caption) for row in rows for caption in row["captions"]]
    except FileNotFoundError:
        raise DataError(f"there is no file {path}: name a cap.*.json of FashionIQ") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a FashionIQ caption file ({error!r}): name a cap.*.json") from None


def read_fashioniq(
    folder: Path,
    split: str = "val",
    *,
    categories: Sequence[str] = CATEGORIES,
    gallery: Gallery = "original",
    mask_reference: bool = False,
    both_orders: bool = False,
    images: Path | None = None,
    check_images: bool = True,
) -> Benchmark:
    """Read the train or val split in ``folder``, which has ``captions/``, ``image_splits/`` and ``images/``.

    Images are in the order of the split files, category by category; an image that shirt and toptee share is
    listed once. Captions are not changed. ``both_orders``: ask every question twice, the second time with its
    captions in reverse order, as CoSMo and MGUR do. With the gallery ``joint`` the category of a question is
    among its ``aspects``. The file of an image id is looked for in ``images`` (default: ``folder/images``),
    first as ``.jpg``, then as ``.png``; with ``check_images=False`` it need not exist. ``gallery`` is one of
    ``GALLERIES``; ``mask_reference`` as in :class:`Benchmark`.

    ``categories`` are those to read. Raises :class:`DataError` for an unknown category, split or gallery, for
    no category, a file that is missing or damaged, an image that is not in its split, and missing images.
    """
    if split == "test":
        raise DataError(
            "the answers of FashionIQ's test split are not published: read its questions with "
            "read_fashioniq_questions"
        )
    if gallery not in GALLERIES:
        raise DataError(f"FashionIQ has no gallery {gallery!r}{nearest(gallery, GALLERIES)}")
    parts = _parts(folder, split, categories, ("candidate", "target"))
    if gallery == "val_split":
        parts = [part.asked_alone() for part in parts]
    places, paths = _images(parts, folder, images, check_images)
    galleries, triplets = _galleries(parts, places, joint=gallery == "joint"), []
    for part in parts:
        for number, row in enumerate(part.rows):
            captions = tuple(row["captions"])
            triplets += [
                Triplet(
                    reference=places[row["candidate"]],
                    target=places[row["target"]],
                    captions=order,
                    category=JOINT if gallery == "joint" else part.category,
                    relevant=(places[row["target"]],),
                    aspects=(part.category,) if gallery == "joint" else (),
                    pair_id=f"{part.category}-{number}",
                )
                for order in ((captions, captions[::-1]) if both_orders else (captions,))
            ]
    return Benchmark("fashioniq", split, tuple(places), paths, galleries, tuple(triplets), mask_reference)


def read_fashioniq_questions(
    folder: Path,
    split: str = "test",
    *,
    categories: Sequence[str] = CATEGORIES,
    images: Path | None = None,
    check_images: bool = True,
) -> Questions:
    """Read a split without its answers, for a submission; each gallery has the images of a split file.

    Arguments and errors as in :func:`read_fashioniq`.
    """
    parts = _parts(folder, split, categories, ("candidate",))
    places, paths = _images(parts, folder, images, check_images)
    questions = tuple(
        Question(f"{part.category}-{number}", places[row["candidate"]], tuple(row["captions"]), part.category)
        for part in parts
        for number, row in enumerate(part.rows)
    )
    galleries = _galleries(parts, places, joint=False)
    return Questions("fashioniq", split, tuple(places), paths, galleries, questions, mask_reference=False)


@dataclass(frozen=True)
class _Part:
    """One category: the ids of its images in order, and its questions as in the file."""

    category: str
    ids: list[str]
    rows: list[dict[str, Any]]

    def asked_alone(self) -> _Part:
        """Return the category with only the images that its questions name."""
        named = {row[side] for row in self.rows for side in ("candidate", "target")}
        return _Part(self.category, [image for image in self.ids if image in named], self.rows)


def _parts(folder: Path, split: str, categories: Sequence[str], sides: Sequence[str]) -> list[_Part]:
    if split not in SPLITS:
        raise DataError(f"FashionIQ has no split {split!r}{nearest(split, SPLITS)}")
    if not categories:
        raise DataError("no category of FashionIQ is given: name one or more")
    parts = []
    for category in categories:
        if category not in CATEGORIES:
            raise DataError(f"FashionIQ has no category {category!r}{nearest(category, CATEGORIES)}")
        images = folder / "image_splits" / f"split.{category}.{split}.json"
        texts = folder / "captions" / f"cap.{category}.{split}.json"
        ids = strings(read_json(images, "a FashionIQ image split"), images, "a FashionIQ image split")
        fields = {**dict.fromkeys(sides, str), "captions": list}
        rows = read_rows(texts, "a FashionIQ caption file", fields)
        known = set(ids)
        for number, row in enumerate(rows):
            for side in sides:
                require_named(row[side], known, texts, images)
            if not row["captions"] or not all(isinstance(caption, str) for caption in row["captions"]):
                raise DataError(
                    f"{texts}: the captions of entry {number} are not a list of texts: fetch it again"
                )
        parts.append(_Part(category, ids, rows))
    return parts


def _images(
    parts: Sequence[_Part], folder: Path, images: Path | None, check: bool
) -> tuple[dict[str, int], tuple[Path, ...]]:
    """Return the position of every image id, and the path of every image, in the order of the split files."""
    ids = dict.fromkeys(image for part in parts for image in part.ids)
    paths = found_images(folder / "images" if images is None else images, list(ids))
    if check:
        require_images(paths, "fashioniq")
    return {image: place for place, image in enumerate(ids)}, paths


def _galleries(parts: Sequence[_Part], places: dict[str, int], joint: bool) -> dict[str, Positions]:
    if joint:
        return {JOINT: np.arange(len(places), dtype=np.int64)}
    return {
        part.category: np.array(sorted(places[image] for image in part.ids), dtype=np.int64) for part in parts
    }
