"""Read a user's own triplets: a folder of images with ``triplets.jsonl``, one question a line.

Fields: ``reference`` and ``target`` (image files, relative to the folder), ``texts`` (modification texts that
belong together), ``right_answers`` (all right images; default: only the target), ``split`` (default: train)
and ``category`` (which gallery is searched; default: all). A gallery has every image that its questions of
the split name, and the images in ``gallery.txt``, one a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dqecir.data.annotations import require_images
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError
from dqecir.settings import nearest

TRIPLETS, GALLERY = "triplets.jsonl", "gallery.txt"
ALL = "all"
"""Category of a question that names none."""
DEV_SHARE = 0.15
"""Share of train's references whose questions become dev, if no line has the split dev."""
_JOINED = {"train_all": {"train", "dev"}}
_FIELDS = ("reference", "texts", "target", "right_answers", "split", "category")


@dataclass(frozen=True)
class _Line:
    """A question as it is in the file; images are named."""

    reference: str
    texts: tuple[str, ...]
    target: str
    right_answers: tuple[str, ...]
    split: str
    category: str


def has_triplets(folder: Path) -> bool:
    """Return whether a folder has ``triplets.jsonl``, so that no questions are drawn from its table."""
    return (folder / TRIPLETS).is_file()


def read_triplets(
    folder: Path, split: str, count: int | None = None, seed: int = 0, name: str | None = None
) -> Benchmark:
    """Read the questions of a split of ``folder``; rankings leave out a question's reference.

    If no line has the split ``dev``, the questions about 15 % of the references of ``train`` become dev. They
    do not depend on ``seed``; ``train_all`` is both. ``seed`` draws ``count`` questions. Default: all, in
    order. Galleries have only the images of the questions drawn and of ``gallery.txt``. ``name`` is that of
    the benchmark. Default: that of the folder.

    Raises :class:`DataError` if ``triplets.jsonl`` cannot be read, for the first bad line, with its number,
    for a split without questions, and for missing images.
    """
    lines = _with_dev([_line(folder, number, text) for number, text in _written(folder / TRIPLETS)])
    chosen = [line for line in lines if line.split in _JOINED.get(split, {split})]
    if not chosen:
        splits = sorted({line.split for line in lines})
        raise DataError(
            f"{folder / TRIPLETS}: no line belongs to the split {split!r}{nearest(split, splits)}; its "
            f"splits are {', '.join(splits)}"
        )
    if count is not None and count < len(chosen):
        drawn = np.sort(np.random.default_rng(seed).permutation(len(chosen))[:count])
        chosen = [chosen[place] for place in drawn]
    further = _gallery_file(folder)
    names = sorted({*further, *(image for line in chosen for image in _images(line))})
    places = {image: place for place, image in enumerate(names)}
    paths = tuple(folder / image for image in names)
    require_images(paths, TRIPLETS)
    categories = dict.fromkeys(line.category for line in chosen)
    candidates = {
        category: {
            *further,
            *(image for line in chosen if line.category == category for image in _images(line)),
        }
        for category in categories
    }
    return Benchmark(
        name or folder.name,
        split,
        tuple(names),
        paths,
        {
            category: np.array(sorted(places[image] for image in images), dtype=np.int64)
            for category, images in candidates.items()
        },
        tuple(_triplet(line, places) for line in chosen),
        mask_reference=True,
    )


def _triplet(line: _Line, places: Mapping[str, int]) -> Triplet:
    return Triplet(
        reference=places[line.reference],
        target=places[line.target],
        captions=line.texts,
        category=line.category,
        relevant=tuple(sorted(places[image] for image in line.right_answers)),
    )


def _images(line: _Line) -> set[str]:
    return {line.reference, *line.right_answers}


def _with_dev(lines: list[_Line]) -> list[_Line]:
    """Move some lines of train to dev, if dev has none; all questions about a reference stay together.

    With fewer than two references in train, nothing is moved.
    """
    references = sorted({line.reference for line in lines if line.split == "train"})
    if any(line.split == "dev" for line in lines) or len(references) < 2:
        return lines
    held_out = max(1, round(DEV_SHARE * len(references)))
    dev = {references[place] for place in np.random.default_rng(0).permutation(len(references))[:held_out]}
    return [
        _Line(line.reference, line.texts, line.target, line.right_answers, "dev", line.category)
        if line.split == "train" and line.reference in dev
        else line
        for line in lines
    ]


def _written(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    # splitlines() would also split at characters that a JSON text may contain.
    found = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not found:
        raise DataError(f"{path} is empty: write one question a line")
    return found


def _gallery_file(folder: Path) -> list[str]:
    path = folder / GALLERY
    if not path.is_file():
        return []
    return [_image(line.strip(), "the line", f"{GALLERY}, line {number}") for number, line in _written(path)]


def _line(folder: Path, number: int, text: str) -> _Line:
    where = f"{TRIPLETS}, line {number}"
    try:
        row = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deep"
        raise DataError(f"{where}: not a JSON object ({reason}): correct the line") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object with the fields {', '.join(_FIELDS)}: correct the line")
    for field in row:
        if field not in _FIELDS:
            raise DataError(
                f"{where}: unknown field {field!r}{nearest(field, _FIELDS)}; fields: {', '.join(_FIELDS)}"
            )
    reference, target = (
        _image(row.get(field), f"the field {field!r}", where) for field in ("reference", "target")
    )
    texts = tuple(_text(text, where) for text in _list(row.get("texts"), "texts", where))
    right = row.get("right_answers")
    named = [] if right is None else _list(right, "right_answers", where)
    answers = dict.fromkeys([target, *(_image(image, "a right answer", where) for image in named)])
    if reference in answers:
        raise DataError(
            f"{where}: the reference {reference!r} is also an answer, but a ranking excludes its reference: "
            "remove it from the answers"
        )
    return _Line(
        reference,
        texts,
        target,
        tuple(answers),
        _word(row, "split", "train", where),
        _word(row, "category", ALL, where),
    )


def _list(value: Any, field: str, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise DataError(f'{where}: the field {field!r} must be a list with at least one entry, such as ["…"]')
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: a text is empty or is no string ({value!r}): write what should change")
    return _plain(value.strip(), where)


def _word(row: Mapping[str, Any], field: str, default: str, where: str) -> str:
    value = row.get(field, default)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the field {field!r} must be a name, not {value!r}")
    return _plain(value.strip(), where)


def _image(value: Any, what: str, where: str) -> str:
    """Return the name of an image file in one spelling.

    Raises :class:`DataError` if it is outside of the folder.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {what} must name an image file, not {value!r}")
    path = PurePosixPath(_plain(value, where))
    if path.is_absolute() or ".." in path.parts or "\0" in value:
        raise DataError(f"{where}: {what} must name a file in the folder, not {value!r}")
    return str(path)


def _plain(text: str, where: str) -> str:
    """Return the text.

    Raises :class:`DataError` if it has a lone surrogate, which JSON can encode but UTF-8 cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: {text!r} contains half of a character (an escape such as \\ud83d alone): write the "
            "character itself"
        ) from None
    return text
