"""Read Fashion200k: pictures with a product's description, and queries that replace one word of it.

Source: the descriptions of xthan/fashion-200k (arXiv 1708.01311), and queries and texts as TIRG's code reads
and makes them (arXiv 1812.07119).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from dqecir.data.annotations import read_text, require_images
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError

QUERIES = "test_queries.txt"
GALLERY = "all"
_MARKS = {".": "dotmark", "?": "questionmark", "&": "andmark", "*": "starmark"}
"""Character -> the word with which TIRG replaces it."""


def read_fashion200k(
    folder: Path, split: str = "test", *, images: Path | None = None, check_images: bool = True
) -> Benchmark:
    """Read ``labels/*test*.txt`` and ``test_queries.txt`` in ``folder``.

    A line of a label file has a picture, a detection score and a description, separated by tabs; a line of
    the queries has a reference and a target, separated by blanks. The text of a question is ``replace A with
    B``: A is the first word that only the reference's description has, B the first that only the target's
    has. Every picture with the target's description, except the reference, is a right answer. Pictures are in
    ``images`` (default: ``folder``). The only split is ``test``; ``val`` means the same. With
    ``check_images=False`` pictures need not exist.

    Raises :class:`DataError` for another split, for files that are missing or damaged, for a query about an
    unknown picture, and for missing pictures.
    """
    if split not in ("test", "val"):
        raise DataError(f"Fashion200k's split {split!r} has no queries: measure its split test")
    descriptions: dict[str, str] = {}
    files = sorted((folder / "labels").glob("*test*.txt"))
    if not files:
        raise DataError(f"{folder / 'labels'} has no file *test*.txt: name the folder of Fashion200k")
    for file in files:
        for number, line in enumerate(read_text(file, "Fashion200k's descriptions"), 1):
            cells = line.rstrip("\n").split("\t")
            if len(cells) != 3 or not cells[2].strip():
                raise DataError(
                    f"{file}, line {number}: a picture, a score and a description are expected, not "
                    f"{line!r}: fetch it again"
                )
            descriptions[cells[0]] = _plain(cells[2])
    names = list(descriptions)
    places = {name: place for place, name in enumerate(names)}
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for name, description in descriptions.items():
        alike[description].append(places[name])
    root = folder if images is None else images
    paths = tuple(root / name for name in names)
    if check_images:
        require_images(paths, "fashion200k")
    triplets = []
    for number, line in enumerate(read_text(folder / QUERIES, "Fashion200k's queries"), 1):
        pair = line.split()
        if len(pair) != 2 or not all(name in places for name in pair):
            raise DataError(
                f"{folder / QUERIES}, line {number}: two pictures that the files in labels/ list "
                f"are expected, not {line!r}: download this file and labels/ of the same release again"
            )
        before, after = (descriptions[name] for name in pair)
        reference, target = (places[name] for name in pair)
        right = tuple(place for place in alike[after] if place != reference)
        text = f"replace {_other(before, after)} with {_other(after, before)}"
        triplets.append(Triplet(reference, target, (text,), GALLERY, right, pair_id=str(number)))
    galleries = {GALLERY: np.arange(len(names), dtype=np.int64)}
    return Benchmark("fashion200k", split, tuple(names), paths, galleries, tuple(triplets), True)


def _plain(description: str) -> str:
    found = description.strip()
    for mark, word in _MARKS.items():
        found = found.replace(mark, word)
    return found


def _other(one: str, another: str) -> str:
    """Return the first word of the description ``one`` that ``another`` does not have; else its last word."""
    words, others = one.split(), set(another.split())
    return next((word for word in words if word not in others), words[-1])
