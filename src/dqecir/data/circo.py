"""Read CIRCO: open-domain questions with all their right answers, over the unlabelled images of COCO.

Source: the published annotations (arXiv 2303.15247).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dqecir.data.annotations import Question, Questions, read_json, read_rows, require_images
from dqecir.data.triplets import Benchmark, Positions, Triplet
from dqecir.errors import DataError
from dqecir.settings import nearest

SPLITS = ("val", "test")
GALLERY = "all"
"""Name of the only gallery: all unlabelled images of COCO 2017."""
ASPECTS = (
    "cardinality",
    "addition",
    "negation",
    "direct_addressing",
    "compare_change",
    "comparative_statement",
    "statement_with_conjunction",
    "spatial_relations_background",
    "viewpoint",
)
"""The semantic aspects with which questions are tagged."""
COCO = Path("COCO2017_unlabeled")


def read_circo(
    folder: Path,
    split: str = "val",
    *,
    mask_reference: bool = False,
    gallery: Sequence[int] | None = None,
    images: Path | None = None,
    check_images: bool = True,
) -> Benchmark:
    """Read the val split in ``folder``, which has ``annotations/`` and ``COCO2017_unlabeled/``.

    Candidates are the images in ``COCO2017_unlabeled/annotations/image_info_unlabeled2017.json``, in its
    order; ``gallery`` gives other COCO numbers instead, for a smaller test. An image id is the COCO number
    without leading zeros. Files are in ``images`` (default: ``COCO2017_unlabeled/unlabeled2017``); with
    ``check_images=False`` they need not exist. ``mask_reference`` as in :class:`Benchmark`.

    Raises :class:`DataError` for an unknown split, a file that is missing or damaged, an image that is not in
    the gallery, an unknown aspect, and missing images.
    """
    if split == "test":
        raise DataError(
            "the answers of CIRCO's test split are not published: use dqecir protocol --submit, or "
            "read_circo_questions in Python"
        )
    fields: dict[str, type] = {"target_img_id": int, "gt_img_ids": list, "semantic_aspects": list}
    path, rows = _rows(folder, split, fields)
    places, paths = _candidates(folder, gallery, images, check_images)
    triplets = []
    for row in rows:
        unknown = [aspect for aspect in row["semantic_aspects"] if aspect not in ASPECTS]
        if unknown:
            raise DataError(
                f"{path}: question {row['id']} has an unknown aspect {unknown[0]!r}: fetch the file again"
            )
        triplets.append(
            Triplet(
                reference=_place(row["reference_img_id"], places, path),
                target=_place(row["target_img_id"], places, path),
                captions=(row["relative_caption"],),
                category=GALLERY,
                relevant=tuple(sorted(_place(image, places, path) for image in row["gt_img_ids"])),
                aspects=tuple(row["semantic_aspects"]),
                pair_id=str(row["id"]),
            )
        )
    return Benchmark(
        "circo", split, tuple(map(str, places)), paths, _gallery(places), tuple(triplets), mask_reference
    )


def read_circo_questions(
    folder: Path,
    split: str = "test",
    *,
    gallery: Sequence[int] | None = None,
    images: Path | None = None,
    check_images: bool = True,
) -> Questions:
    """Read a split without its answers, for a submission: ``test`` or ``val``.

    Other arguments and errors as in :func:`read_circo`.
    """
    path, rows = _rows(folder, split, {})
    places, paths = _candidates(folder, gallery, images, check_images)
    questions = tuple(
        Question(
            str(row["id"]),
            _place(row["reference_img_id"], places, path),
            (row["relative_caption"],),
            GALLERY,
        )
        for row in rows
    )
    return Questions(
        "circo", split, tuple(map(str, places)), paths, _gallery(places), questions, mask_reference=False
    )


def _rows(folder: Path, split: str, fields: dict[str, type]) -> tuple[Path, list[dict[str, Any]]]:
    if split not in SPLITS:
        raise DataError(f"CIRCO has no split {split!r}{nearest(split, SPLITS)}")
    path = folder / "annotations" / f"{split}.json"
    needed: dict[str, type] = {"id": int, "reference_img_id": int, "relative_caption": str, **fields}
    return path, read_rows(path, "a CIRCO annotation file", needed)


def _candidates(
    folder: Path, gallery: Sequence[int] | None, images: Path | None, check: bool
) -> tuple[dict[int, int], tuple[Path, ...]]:
    if gallery is None:
        what = "the list of COCO's unlabelled images"
        path = folder / COCO / "annotations" / "image_info_unlabeled2017.json"
        info = read_json(path, what)
        try:
            files = {int(entry["id"]): str(entry["file_name"]) for entry in info["images"]}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not {what} ({error!r}): fetch it again") from None
    else:
        files = {int(image): f"{image:012d}.jpg" for image in gallery}
    root = folder / COCO / "unlabeled2017" if images is None else images
    paths = tuple(root / file for file in files.values())
    if check:
        require_images(paths, "circo")
    return {image: place for place, image in enumerate(files)}, paths


def _place(image: Any, places: dict[int, int], path: Path) -> int:
    if not isinstance(image, int) or image not in places:
        raise DataError(f"{path} names the image {image}, which is not in the gallery: fetch it again")
    return places[image]


def _gallery(places: dict[int, int]) -> dict[str, Positions]:
    return {GALLERY: np.arange(len(places), dtype=np.int64)}
