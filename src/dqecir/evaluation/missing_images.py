"""Find the images of a split that are missing, and leave out the questions that need them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from dqecir.data.annotations import SUFFIXES, Questions
from dqecir.data.hp_fashioniq import Preferences
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError
from dqecir.io.files import write_text

Missing = Literal["refuse", "skip"]
"""What to do if images are missing: refuse to measure, or skip the questions that need them."""

LIST, FALLEN = "missing-images.txt", "fallen-questions.txt"
"""Names of the files that list missing images and skipped questions; a line is a split and a name."""


@dataclass(frozen=True)
class Inventory:
    """How many images a split needs, which are missing, and which questions need them."""

    split: str
    images: int
    missing: tuple[str, ...]
    """Names of the missing files, in the order of the data set."""
    questions: int
    fallen: tuple[str, ...]
    """The questions that were left out because they need a missing image: number in the data set, from 0, and
    ids of reference and target."""

    def sentence(self) -> str:
        """Return a sentence for a paper that says what is missing and left out; empty if nothing is."""
        if not self.missing:
            return ""
        share = 100 * len(self.fallen) / self.questions if self.questions else 0.0
        return (
            f"{self.split}: {len(self.fallen):,} of {self.questions:,} questions ({share:.2f} %) are left "
            f"out, because {len(self.missing):,} of {self.images:,} images are missing."
        )


def existing(path: Path) -> Path:
    """Return ``path``, or the same path with another suffix of :data:`SUFFIXES` if only that file exists."""
    others = (path.with_suffix(suffix) for suffix in SUFFIXES)
    return path if path.is_file() else next((other for other in others if other.is_file()), path)


def checked_benchmark(benchmark: Benchmark) -> tuple[Benchmark, Inventory]:
    """Return a split without its missing images, and an inventory.

    A question is left out if its reference, that of an earlier turn, a right answer or an image of its
    ``subset`` is missing.
    """
    paths, gone = _present(benchmark.image_paths)
    whole = replace(benchmark, image_paths=paths)
    left = without(whole, gone) if gone else whole
    ids, place = benchmark.image_ids, _places(len(paths), gone)
    fallen = tuple(
        f"{number}\t{ids[one.reference]}\t{ids[one.target]}"
        for number, one in enumerate(benchmark.triplets if gone else ())
        if _moved(one, place) is None
    )
    return left, _inventory(benchmark.split, paths, gone, len(benchmark.triplets), fallen)


def checked_questions(questions: Questions) -> tuple[Questions, Inventory]:
    """Return a test split whose paths have the suffixes of the files on disk, and an inventory.

    No question is left out, because the evaluation server needs answers to all.
    """
    paths, gone = _present(questions.image_paths)
    asked = len(questions.questions)
    return replace(questions, image_paths=paths), _inventory(questions.split, paths, gone, asked, ())


def checked_preferences(preferences: Preferences) -> tuple[Preferences, Inventory]:
    """Return only the judgements whose images all exist, with only the existing images, and an inventory."""
    paths, gone = _present(preferences.image_paths)
    place = _places(len(paths), gone)
    names = preferences.image_ids
    judgements, fallen = [], []
    for number, one in enumerate(preferences.judgements):
        if gone.isdisjoint((one.reference, one.target, *one.sets[0], *one.sets[1])):
            sets = (tuple(place[i] for i in one.sets[0]), tuple(place[i] for i in one.sets[1]))
            judgements.append(
                replace(one, reference=place[one.reference], target=place[one.target], sets=sets)
            )
        else:
            fallen.append(f"{number}\t{names[one.reference]}\t{names[one.target]}")
    left = Preferences(
        tuple(names[old] for old in place), tuple(paths[old] for old in place), tuple(judgements)
    )
    return left, _inventory("all", paths, gone, len(preferences.judgements), tuple(fallen))


def training_split(benchmark: Benchmark, *, galleries: bool) -> Benchmark:
    """Return a train split of questions that have words, with only the images that training needs.

    These are references and targets; with ``galleries`` (negatives from the whole gallery) all images. Image
    sets and earlier turns are removed, because no loss uses them.
    """
    triplets = tuple(
        replace(triplet, subset=(), earlier=())
        for triplet in benchmark.triplets
        if any(caption.strip(" .?,") for caption in triplet.captions)
    )
    plain = replace(benchmark, triplets=triplets)
    if galleries:
        return plain
    used = {image for triplet in triplets for image in (triplet.reference, triplet.target)}
    return without(plain, set(range(len(benchmark.image_ids))) - used)


def without(benchmark: Benchmark, gone: Collection[int]) -> Benchmark:
    """Return the benchmark without the images at positions ``gone``, and without questions that need them."""
    place = _places(len(benchmark.image_ids), gone)
    galleries = {
        name: np.array([place[i] for i in positions.tolist() if i in place], dtype=np.int64)
        for name, positions in benchmark.galleries.items()
    }
    moved = (_moved(triplet, place) for triplet in benchmark.triplets)
    return replace(
        benchmark,
        image_ids=tuple(benchmark.image_ids[old] for old in place),
        image_paths=tuple(benchmark.image_paths[old] for old in place),
        galleries={name: positions for name, positions in galleries.items() if positions.size},
        triplets=tuple(triplet for triplet in moved if triplet is not None),
        attributes={c: tuple(values[old] for old in place) for c, values in benchmark.attributes.items()},
    )


def settle(data: str, inventories: Sequence[Inventory], missing: Missing, out: Path) -> None:
    """Write lists of missing images and of the questions that need them into the folder ``out``.

    If none is missing, lists of an earlier run are deleted. ``data`` is the data set's name, for the error.
    Raises :class:`DataError`, which counts the images, if some are missing and ``missing`` is ``refuse``, or
    if a split has no question left.
    """
    lines = [f"{one.split}\t{name}\n" for one in inventories for name in one.missing]
    if not lines:
        for name in (LIST, FALLEN):
            (out / name).unlink(missing_ok=True)
        return
    write_text(out / LIST, "".join(lines))
    write_text(out / FALLEN, "".join(f"{one.split}\t{name}\n" for one in inventories for name in one.fallen))
    counts = ", ".join(
        f"{len(one.missing):,} of {one.images:,} in {one.split}" for one in inventories if one.missing
    )
    first = next(name for one in inventories for name in one.missing)
    if missing == "refuse":
        raise DataError(
            f"{data}: images are missing ({counts}; the first is {first}; {out / LIST} names all): add these "
            "files, or skip the questions that need them with --missing skip"
        )
    empty = [one.split for one in inventories if one.questions and len(one.fallen) == one.questions]
    if empty:
        raise DataError(
            f"{data}: without its missing images ({counts}) no question of {', '.join(empty)} is left: name "
            "the folder of the pictures with --images"
        )


def _present(paths: Sequence[Path]) -> tuple[tuple[Path, ...], set[int]]:
    """Return the paths, with the suffixes of the files on disk, and the positions of the missing files."""
    found = tuple(existing(path) for path in paths)
    return found, {place for place, path in enumerate(found) if not path.is_file()}


def _inventory(
    split: str, paths: Sequence[Path], gone: set[int], asked: int, fallen: tuple[str, ...]
) -> Inventory:
    missing = tuple(str(paths[place]) for place in sorted(gone))
    return Inventory(split, len(paths), missing, asked, fallen)


def _places(count: int, gone: Collection[int]) -> dict[int, int]:
    """Return old position -> new position of those of ``count`` images that are not in ``gone``."""
    return {old: new for new, old in enumerate(i for i in range(count) if i not in gone)}


def _moved(triplet: Triplet, place: Mapping[int, int]) -> Triplet | None:
    """Return the triplet with new positions; None if it needs an image that was removed.

    ``place``: old position -> new position.
    """
    turns = [turn.reference for turn in triplet.earlier]
    named = (triplet.reference, triplet.target, *triplet.relevant, *triplet.subset, *turns)
    if any(image not in place for image in named):
        return None
    return replace(
        triplet,
        reference=place[triplet.reference],
        target=place[triplet.target],
        relevant=tuple(place[image] for image in triplet.relevant),
        subset=tuple(place[image] for image in triplet.subset),
        ignored=tuple(place[image] for image in triplet.ignored if image in place),
        earlier=tuple(replace(turn, reference=place[turn.reference]) for turn in triplet.earlier),
    )
