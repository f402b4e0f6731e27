"""Read HP-FashionIQ: which of two sets of results people prefer for a query.

Source: QuRe's annotations (arXiv 2507.12416).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqecir.data.annotations import found_images, read_json, require_images
from dqecir.errors import DataError

WHAT = "the HP-FashionIQ file"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A person's choice between two sets of results; images are positions in ``Preferences.image_ids``."""

    user: str
    category: str
    reference: int
    target: int
    text: str
    """The modification text as published: punctuation is partly spelled out ("dotmark")."""
    sets: tuple[tuple[int, ...], tuple[int, ...]]
    """The results of set 1 and of set 2, in the order of the file."""
    user_scores: tuple[int, int]
    """The score from 1 to 5 that the person gave to each set."""
    preferred: int
    """Number of the set that the person prefers: 1 or 2."""


@dataclass(frozen=True)
class Preferences:
    """All judgements, and all images that they refer to, each once."""

    image_ids: tuple[str, ...]
    image_paths: tuple[Path, ...]
    judgements: tuple[Judgement, ...]


def read_hp_fashioniq(path: Path, images: Path | None = None, *, check_images: bool = True) -> Preferences:
    """Read ``hpfiq.json``: 50 judgements each of 61 people.

    ``images`` is the folder with FashionIQ's images (default: ``images`` next to the file); with
    ``check_images=False`` they need not exist. Raises :class:`DataError` if the file is missing or has
    another form, or if images are missing.
    """
    people = read_json(path, WHAT)
    if not isinstance(people, Mapping):
        raise DataError(f"{path} is not {WHAT}: it should map people to their answers; fetch it again")
    places: dict[str, int] = {}
    judgements = []
    try:
        for user, sheets in people.items():
            for sheet in sheets.values():
                judgements += [
                    _judgement(str(user), sheet, number, places) for number in range(len(sheet["sentences"]))
                ]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not {WHAT} ({error!r}): fetch it again") from None
    paths = found_images(path.parent / "images" if images is None else images, list(places))
    if check_images:
        require_images(paths, "hp_fashioniq")
    return Preferences(tuple(places), paths, tuple(judgements))


def _judgement(user: str, sheet: Mapping[str, Any], number: int, places: dict[str, int]) -> Judgement:
    """Return judgement ``number`` in a person's ``sheet``, and add its images to ``places``.

    ``places``: image id -> position.
    """

    def place(name: str) -> int:
        return places.setdefault(Path(name).stem, len(places))

    reference = str(sheet["ref_img_paths"][number])
    one, two = (sheet[f"retrieved_set{side}"][number] for side in (1, 2))
    preferred = int(sheet["preferred set"][number])
    if preferred not in (1, 2):
        raise ValueError(f"the preferred set of an answer is {preferred}, neither 1 nor 2")
    return Judgement(
        user=user,
        category=Path(reference).parent.name,
        reference=place(reference),
        target=place(sheet["targ_img_paths"][number]),
        text=str(sheet["sentences"][number]),
        sets=(tuple(map(place, one["img_path"])), tuple(map(place, two["img_path"]))),
        user_scores=(int(one["user_score"]), int(two["user_score"])),
        preferred=preferred,
    )
