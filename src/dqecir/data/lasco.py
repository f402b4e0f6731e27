"""Read LaSCo: questions made from VQA 2.0, over COCO's pictures of 2014.

Source: the published annotations (arXiv 2303.09429, levymsn/LaSCo).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dqecir.data.annotations import read_rows, require_images
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError

GALLERY = "all"
"""Name of the only gallery: all pictures of the split's corpus."""


def read_lasco(
    folder: Path, split: str = "val", *, images: Path | None = None, check_images: bool = True
) -> Benchmark:
    """Read ``lasco_val.json`` and ``lasco_val_corpus.json`` in ``folder``, or in ``folder/downloads``.

    Pictures are ``val2014/COCO_val2014_….jpg`` in ``images`` (default: ``folder``). Image ids are COCO's
    numbers. With ``check_images=False`` pictures need not exist.

    Raises :class:`DataError` for another split, a file that is missing or damaged, a picture that is not in
    the corpus, and missing pictures.
    """
    if split != "val":
        raise DataError(f"LaSCo's split {split!r} has no known gallery: read its split 'val'")
    notes = folder if (folder / "lasco_val.json").is_file() else folder / "downloads"
    corpus_file, questions_file = notes / "lasco_val_corpus.json", notes / "lasco_val.json"
    corpus = read_rows(corpus_file, "LaSCo's corpus", {"id": int, "path": str})
    fields: dict[str, type] = {"query-image": list, "query-text": str, "target-image": list}
    rows = read_rows(questions_file, "LaSCo's questions", fields)
    # The corpus says val/val2014/FILE where the questions say val2014/FILE.
    files = {entry["id"]: Path(*Path(entry["path"]).parts[-2:]) for entry in corpus}
    places = {image: place for place, image in enumerate(files)}
    root = folder if images is None else images
    paths = tuple(root / file for file in files.values())
    if check_images:
        require_images(paths, "lasco")
    triplets = []
    for number, row in enumerate(rows):
        reference, target = (
            _place(row[side], places, f"{questions_file}, entry {number}")
            for side in ("query-image", "target-image")
        )
        pair_id = str(row.get("qid", number))
        triplets.append(Triplet(reference, target, (row["query-text"],), GALLERY, (target,), pair_id=pair_id))
    galleries = {GALLERY: np.arange(len(places), dtype=np.int64)}
    return Benchmark("lasco", split, tuple(map(str, places)), paths, galleries, tuple(triplets), False)


def _place(image: list[Any], places: dict[int, int], where: str) -> int:
    """Return the position of a picture that an annotation names by number and path."""
    if not image or image[0] not in places:
        raise DataError(
            f"{where} names the picture {image}, which is not in the corpus: fetch both files again"
        )
    return places[image[0]]
