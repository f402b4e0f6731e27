"""Read CIRR: natural images with sets of near-identical ones.

Source: its annotations rc2 (arXiv 2108.04024).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dqecir.data.annotations import Question, Questions, read_json, read_rows, require_images, require_named
from dqecir.data.triplets import Benchmark, Positions, Triplet
from dqecir.errors import DataError
from dqecir.settings import nearest

SPLITS = ("train", "val", "test1")
GALLERY = "all"
"""Name of the only gallery: all images of the split."""


def read_cirr(
    folder: Path,
    split: str = "val",
    *,
    mask_reference: bool = True,
    images: Path | None = None,
    check_images: bool = True,
) -> Benchmark:
    """Read the train or val split in ``folder``, which has ``captions/`` and ``image_splits/`` (rc2).

    The gallery is in the order of the split file. The only right answer is ``target_hard``, as in every
    published evaluation. ``Triplet.subset`` is the image set without the reference. Image files have the
    relative paths of the split file, in ``images`` (default: ``folder``); with ``check_images=False`` they
    need not exist. ``mask_reference`` as in :class:`Benchmark`.

    Raises :class:`DataError` for an unknown split, a file that is missing or damaged, an image that is not in
    the split, and missing images.
    """
    if split == "test1":
        raise DataError(
            "the answers of CIRR's test1 split are not published: use dqecir protocol --submit, or "
            "read_cirr_questions in Python"
        )
    places, paths, rows = _read(folder, split, images, check_images, ("target_hard",))
    triplets = tuple(
        Triplet(
            reference=places[row["reference"]],
            target=places[row["target_hard"]],
            captions=(row["caption"],),
            category=GALLERY,
            relevant=(places[row["target_hard"]],),
            subset=_subset(row, places),
            pair_id=str(row["pairid"]),
        )
        for row in rows
    )
    return Benchmark("cirr", split, tuple(places), paths, _gallery(places), triplets, mask_reference)


def read_cirr_questions(
    folder: Path, split: str = "test1", *, images: Path | None = None, check_images: bool = True
) -> Questions:
    """Read a split without its answers, for a submission: ``test1``, ``val`` or ``train``.

    Other arguments and errors as in :func:`read_cirr`. Rankings leave out the reference.
    """
    places, paths, rows = _read(folder, split, images, check_images, ())
    questions = tuple(
        Question(
            pair_id=str(row["pairid"]),
            reference=places[row["reference"]],
            captions=(row["caption"],),
            category=GALLERY,
            subset=_subset(row, places),
        )
        for row in rows
    )
    return Questions("cirr", split, tuple(places), paths, _gallery(places), questions, mask_reference=True)


def _read(
    folder: Path, split: str, images: Path | None, check_images: bool, sides: tuple[str, ...]
) -> tuple[dict[str, int], tuple[Path, ...], list[dict[str, Any]]]:
    if split not in SPLITS:
        raise DataError(f"CIRR has no split {split!r}{nearest(split, SPLITS)}")
    names = folder / "image_splits" / f"split.rc2.{split}.json"
    texts = folder / "captions" / f"cap.rc2.{split}.json"
    files = read_json(names, "a CIRR image split")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise DataError(
            f"{names} is not a CIRR image split, which maps names to relative paths: fetch it again"
        )
    fields: dict[str, type] = {"pairid": int, "reference": str, "caption": str, "img_set": dict}
    rows = read_rows(texts, "a CIRR caption file", {**fields, **dict.fromkeys(sides, str)})
    for row in rows:
        members = row["img_set"].get("members")
        if not isinstance(members, list):
            raise DataError(
                f"{texts}: the image set of the pair {row['pairid']} has no list of members: fetch it again"
            )
        for image in (row["reference"], *(row[side] for side in sides), *members):
            require_named(image, files, texts, names)
    root = folder if images is None else images
    paths = tuple(root / file for file in files.values())
    if check_images:
        require_images(paths, "cirr")
    return {name: place for place, name in enumerate(files)}, paths, rows


def _gallery(places: dict[str, int]) -> dict[str, Positions]:
    return {GALLERY: np.arange(len(places), dtype=np.int64)}


def _subset(row: dict[str, Any], places: dict[str, int]) -> tuple[int, ...]:
    members = set(row["img_set"]["members"]) - {row["reference"]}
    return tuple(sorted(places[name] for name in members))
