"""Triplet and benchmark: the form in which all data sets are read.

Everything else (stores, training, evaluation, search) refers to images by their position in
``Benchmark.image_ids``, and does not depend on the data set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dqecir.data.cells import UNKNOWN
from dqecir.errors import DataError

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a dialogue: a reference image (a position in ``Benchmark.image_ids``) and its captions."""

    reference: int
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Triplet:
    """One question: a reference image, what should change, and the images that are right answers.

    Images are positions in ``Benchmark.image_ids``. Raises :class:`DataError` if the target is not among the
    right answers or not in ``subset``, or if there is no caption.
    """

    reference: int
    target: int
    """The annotated right answer."""
    captions: tuple[str, ...]
    """The modification texts in the data set's order (FashionIQ has two for each question)."""
    category: str
    """Name of the gallery that is searched."""
    relevant: tuple[int, ...]
    """All right answers in the gallery, ascending, with the target."""
    ignored: tuple[int, ...] = ()
    """Images that may or may not be right answers; the ranking leaves them out."""
    asked: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Attribute -> requested values; empty if they are not known."""
    subset: tuple[int, ...] = ()
    """A small gallery of the question's own, ascending, with the target: CIRR's near-identical images without
    the reference, or GeneCIS's gallery. Empty if the data set has none."""
    unseen_wording: bool = False
    """Whether the captions have only phrases that training never has."""
    aspects: tuple[str, ...] = ()
    """Tags by which results are also reported (CIRCO's semantic aspects)."""
    pair_id: str = ""
    """Id of the question in its split: the data set's number, or one made from the question's position in the
    file; empty if there is none."""
    earlier: tuple[Turn, ...] = ()
    """Earlier turns of the dialogue, oldest first; ``reference`` and ``captions`` are those of the last turn.
    Evaluation asks by all turns together, training by the last alone."""

    def __post_init__(self) -> None:
        if self.target not in self.relevant:
            raise DataError(
                f"the target {self.target} of a triplet is not among its right answers {self.relevant}: add "
                "it"
            )
        if self.subset and self.target not in self.subset:
            raise DataError(
                f"the target {self.target} of a triplet is not in its own subset {self.subset}: add it"
            )
        if not self.captions:
            raise DataError("a triplet has no caption: give it at least one")


@dataclass(frozen=True)
class Benchmark:
    """One split of one data set: images, galleries and triplets.

    ``galleries``: category -> positions of its candidates, ascending. Raises :class:`DataError` if a gallery
    is empty or not ascending, if a triplet's category has no gallery, or if paths, attributes or products
    have not one entry for each image.
    """

    name: str
    split: str
    image_ids: tuple[str, ...]
    image_paths: tuple[Path, ...]
    galleries: Mapping[str, Positions]
    triplets: tuple[Triplet, ...]
    mask_reference: bool
    """Whether rankings leave out the reference image."""
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """True attributes: attribute -> one value for each image (empty if it does not apply, ``UNKNOWN`` if it
    is unknown). Empty if the data set has none."""
    products: tuple[int, ...] = ()
    """For each image, the number of the product that it shows; empty if every image shows another product."""

    def __post_init__(self) -> None:
        count = len(self.image_ids)
        if len(self.image_paths) != count:
            raise DataError(
                f"{self.name}: {count} image ids but {len(self.image_paths)} image paths: give one for each"
            )
        for category, gallery in self.galleries.items():
            if gallery.size == 0:
                raise DataError(
                    f"{self.name}: the gallery {category!r} of split {self.split!r} is empty: add images or "
                    "leave it out"
                )
            if gallery.min() < 0 or gallery.max() >= count or np.any(np.diff(gallery) <= 0):
                raise DataError(
                    f"{self.name}: the gallery {category!r} is not an ascending list of positions: sort it"
                )
        for column, values in self.attributes.items():
            if len(values) != count:
                raise DataError(
                    f"{self.name}: attribute {column!r} has {len(values)} values for {count} images: give "
                    "one for each"
                )
        if self.products and len(self.products) != count:
            raise DataError(
                f"{self.name}: {len(self.products)} products for {count} images: give one for each"
            )
        missing = {triplet.category for triplet in self.triplets} - set(self.galleries)
        if missing:
            raise DataError(f"{self.name}: triplets name galleries that do not exist: {sorted(missing)}")

    @property
    def checksum(self) -> str:
        """SHA-256, as hex, of image ids, attributes, products, galleries, questions and ``mask_reference``.

        The contents of image files do not count, nor ``pair_id``, ``aspects`` and ``unseen_wording``.
        """
        content = {
            "images": self.image_ids,
            "attributes": {column: self.attributes[column] for column in sorted(self.attributes)},
            "galleries": {name: positions.tolist() for name, positions in self.galleries.items()},
            "mask_reference": self.mask_reference,
            **({"products": self.products} if self.products else {}),
            "questions": [
                [
                    triplet.reference,
                    triplet.target,
                    triplet.captions,
                    triplet.category,
                    triplet.relevant,
                    triplet.ignored,
                    {column: sorted(values) for column, values in sorted(triplet.asked.items())},
                    triplet.subset,
                    *([[turn.reference, turn.captions] for turn in triplet.earlier]),
                ]
                for triplet in self.triplets
            ],
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def join_benchmarks(parts: Sequence[Benchmark]) -> Benchmark:
    """Join several benchmarks to one; the name of a part is put before its categories and image ids.

    A single benchmark is returned unchanged. ``split`` and ``mask_reference`` are those of the first. An
    attribute that a part does not have is ``UNKNOWN`` for all its images.
    """
    if len(parts) == 1:
        return parts[0]
    galleries: dict[str, Positions] = {}
    triplets: list[Triplet] = []
    start = 0
    for part in parts:
        for category, gallery in part.galleries.items():
            galleries[f"{part.name}/{category}"] = gallery + start
        triplets.extend(_moved(triplet, start, part.name) for triplet in part.triplets)
        start += len(part.image_ids)
    columns = sorted({column for part in parts for column in part.attributes})
    attributes = {
        column: tuple(
            value for part in parts for value in part.attributes.get(column, (UNKNOWN,) * len(part.image_ids))
        )
        for column in columns
    }
    return Benchmark(
        name=" + ".join(part.name for part in parts),
        split=parts[0].split,
        image_ids=tuple(f"{part.name}/{image}" for part in parts for image in part.image_ids),
        image_paths=tuple(path for part in parts for path in part.image_paths),
        galleries=galleries,
        triplets=tuple(triplets),
        mask_reference=parts[0].mask_reference,
        attributes=attributes,
        products=_joined_products(parts) if any(part.products for part in parts) else (),
    )


def _joined_products(parts: Sequence[Benchmark]) -> tuple[int, ...]:
    """Return the product of each image, numbered consecutively over all parts."""
    joined: list[int] = []
    for part in parts:
        start = max(joined, default=-1) + 1
        joined += (start + number for number in part.products or range(len(part.image_ids)))
    return tuple(joined)


def _moved(triplet: Triplet, start: int, name: str) -> Triplet:
    return replace(
        triplet,
        reference=triplet.reference + start,
        target=triplet.target + start,
        category=f"{name}/{triplet.category}",
        relevant=tuple(position + start for position in triplet.relevant),
        ignored=tuple(position + start for position in triplet.ignored),
        subset=tuple(position + start for position in triplet.subset),
        earlier=tuple(replace(turn, reference=turn.reference + start) for turn in triplet.earlier),
    )
