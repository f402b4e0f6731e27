"""Describe pictures: the values that a model's attribute heads predict, with probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from dqecir.data.images import load_batches
from dqecir.data.picture_files import Refusal, list_pictures
from dqecir.errors import DataError
from dqecir.io.files import write_text
from dqecir.io.progress import track
from dqecir.model.describer import Describer

ColumnSet = Literal["photos", "products"]
"""Which columns a description has: those of the labelled photos, or those of a shop's product table."""

_PHOTOS = ("garment", "color", "pattern", "print", "sleeves", "length", "neck")
_PRODUCTS = ("kind", "article", "usage", "gender")
COLUMN_SETS: dict[ColumnSet, Mapping[str, str]] = {
    "photos": {name: name for name in _PHOTOS},
    "products": {**{name: name for name in _PRODUCTS}, "color": "product_color"},
}
"""For each set: column in the description -> column of the model, whose name may differ."""

_WORDS = {
    "garment": "blazer blouse body dress hat hoodie longsleeve outwear pants polo shirt shoes shorts skirt "
    "t-shirt top undershirt",
    "color": "beige black blue brown green grey multicolor navy orange pink purple red teal white yellow",
}
_SPELLINGS: dict[ColumnSet, Mapping[str, frozenset[str]]] = {
    "photos": {column: frozenset(words.split()) for column, words in _WORDS.items()},
    "products": {},
}
"""For each set: column -> the only values that a description may have. A column without an entry has no
limit."""


def describe_pictures(
    pictures: Sequence[Path],
    describer: Describer,
    out: Path,
    columns: ColumnSet | None = None,
    quiet: bool = False,
) -> tuple[int, tuple[Refusal, ...]]:
    """Predict the attributes of pictures (files and folders), and write one line of JSON for each to ``out``.

    A line is ``{"path", "attributes": {column: {"value", "probability"}}}``, or ``{"path", "error"}`` for a
    picture that cannot be used. ``out`` is written completely or not at all. ``columns`` chooses the set of
    columns. Default: ``photos``, or all columns of the model if it does not predict those.

    Returns the number of described pictures, and the refusals: pictures with an error, and files in the
    folders that are not pictures. ``describer`` predicts the attributes; ``quiet`` hides the progress. Raises
    :class:`DataError` if there is no picture, if a path or the folder of ``out`` does not exist, or if the
    model does not predict ``columns``.
    """
    if not out.parent.is_dir():
        raise DataError(f"the folder {out.parent} does not exist: create it, or choose another --out")
    told = _columns(describer, columns)
    within = _SPELLINGS[columns or "photos"]
    paths, left_out = _found(pictures)
    refusals: list[Refusal] = []
    lines: dict[Path, Any] = {}
    described = _described(paths, describer, told, within, refusals)
    for position, attributes in track(described, "describing", len(paths), quiet):
        lines[paths[position]] = {"path": str(paths[position]), "attributes": attributes}
    for refusal in refusals:
        lines[refusal.path] = {"path": str(refusal.path), "error": refusal.reason}
    write_text(out, "".join(json.dumps(lines[path]) + "\n" for path in paths))
    return len(paths) - len(refusals), (*left_out, *refusals)


def _columns(describer: Describer, columns: ColumnSet | None) -> Mapping[str, str]:
    own = describer.heads.config.columns
    told = COLUMN_SETS[columns or "photos"]
    missing = [name for name in told.values() if name not in own]
    if not missing:
        return told
    if columns is None:
        return {name: name for name in own}
    raise DataError(
        f"this model does not predict the columns of {columns} ({', '.join(missing)}): choose another "
        f"--model, or leave --columns out to get its own columns ({', '.join(own)})"
    )


def _found(pictures: Sequence[Path]) -> tuple[list[Path], list[Refusal]]:
    """Return the pictures among files and in folders, each once, and the other files of the folders.

    Raises :class:`DataError` if a path does not exist, or if there is no picture.
    """
    paths: dict[Path, None] = {}
    left_out: list[Refusal] = []
    for place in pictures:
        if place.is_dir():
            found = list_pictures(place)
            paths |= dict.fromkeys(found.pictures)
            left_out += found.left_out
        elif place.exists():
            paths[place] = None
        else:
            raise DataError(f"there is no file or folder {place}: check the path")
    if not paths:
        named = ", ".join(map(str, pictures))
        raise DataError(f"there is no picture in {named}: name a folder with pictures")
    return list(paths), left_out


def _described(
    paths: Sequence[Path],
    describer: Describer,
    told: Mapping[str, str],
    within: Mapping[str, frozenset[str]],
    refusals: list[Refusal],
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the position in ``paths`` and the predicted attributes of each picture that can be read.

    ``told``: column in the description -> column of the model. ``within``: column -> allowed values. Pictures
    that cannot be used are added to ``refusals``.
    """
    known = describer.heads.config.columns
    for batch in load_batches(paths, describer.preprocessing, refusals):
        probabilities = describer.probabilities(batch.pixels)
        best = {}
        for column, name in told.items():
            shares = probabilities[name]
            allowed = torch.tensor([value in within.get(column, known[name]) for value in known[name]])
            if bool(allowed.any()):
                shares = shares * allowed.to(shares.device)
                shares = shares / shares.sum(dim=1, keepdim=True)
            best[column] = shares.max(dim=1)
        for row, position in enumerate(batch.positions):
            yield (
                position,
                {
                    column: {
                        "value": known[told[column]][int(found.indices[row])],
                        "probability": round(float(found.values[row]), 4),
                    }
                    for column, found in best.items()
                },
            )
