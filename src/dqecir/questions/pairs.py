"""Draw pairs of a reference and a target that differ in a few attributes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dqecir.data.cells import UNKNOWN_CODE
from dqecir.data.triplets import Positions
from dqecir.errors import DataError
from dqecir.questions.answers import FIRST_CODE, Bools, CodedAttributes, Codes

Drawing = Literal["balanced", "natural"]

_MOST_COLUMNS = 62
"""Largest number of columns, because a set of columns is stored as the bits of one 64-bit integer."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A reference and a target (positions), their gallery's number, and the columns in which they differ."""

    reference: int
    target: int
    gallery: int
    changed: tuple[int, ...]


@dataclass(frozen=True)
class PairDraw:
    """Settings for drawing pairs.

    ``balanced``: for a reference, draw the number of changes with ``change_weights`` (the first entry is for
    one change), then which attributes change, then their new values, then the target; each uniformly among
    what the gallery offers, so that rare values are requested as often as possible. ``natural``: draw
    uniformly among all images of the gallery that differ in one to ``len(change_weights)`` attributes.
    """

    drawing: Drawing
    change_weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.drawing not in ("balanced", "natural"):
            raise DataError(f"the drawing {self.drawing!r} is unknown: choose 'balanced' or 'natural'")
        if not self.change_weights or min(self.change_weights) < 0 or sum(self.change_weights) <= 0:
            raise DataError(
                f"change weights {self.change_weights} are wrong: give numbers of 0 or more, not all 0"
            )


def draw_pairs(
    coded: CodedAttributes,
    galleries: Sequence[Positions],
    groups: NDArray[np.int64],
    draw: PairDraw,
    count: int,
    rng: np.random.Generator,
    products: NDArray[np.int64] | None = None,
) -> Iterator[Pair]:
    """Yield ``count`` different pairs (or all that exist); references take turns.

    ``galleries`` are positions of images; both images of a pair are in one gallery. ``groups`` has a number
    for each image: both images of a pair have the same number, and images with a negative number are in no
    pair. ``products``: the number of each image's product; then products take turns as references, each time
    with another image, and the images of a pair show two products.

    An attribute counts as changed if both images have a value, and not the same. No target has an unknown
    value in an attribute that the reference has. ``coded`` are the true attributes; ``draw`` says how to
    draw. Raises :class:`DataError` if there are too many columns.
    """
    if len(coded.columns) > _MOST_COLUMNS:
        raise DataError(
            f"{len(coded.columns)} attribute columns are more than the {_MOST_COLUMNS} that fit: use fewer "
            "columns"
        )
    pools = [_Pool.of(coded, number, gallery, groups, products) for number, gallery in enumerate(galleries)]
    turns = [[(pool, int(place)) for place in own] for pool in pools for own in pool.by_product()]
    taken: set[tuple[int, int]] = set()
    round_, fruitless, most = 0, 0, max(map(len, turns), default=0)
    while len(taken) < count and fruitless < most:
        found = len(taken)
        for turn in rng.permutation(len(turns)):
            pool, place = turns[turn][round_ % len(turns[turn])]
            pair = pool.draw(place, draw, rng)
            if pair and (pair.reference, pair.target) not in taken:
                taken.add((pair.reference, pair.target))
                yield pair
                if len(taken) == count:
                    return
        fruitless = 0 if len(taken) > found else fruitless + 1
        round_ += 1
    rest = [pair for pool in pools for pair in pool.every(draw) if (pair.reference, pair.target) not in taken]
    yield from (rest[place] for place in rng.permutation(len(rest))[: count - len(taken)])


@dataclass(frozen=True)
class _Pool:
    """The images of one gallery that may be in a pair; a place is an index among these images."""

    number: int
    positions: Positions
    codes: Codes  # [columns, images]
    groups: NDArray[np.int64]
    sizes: tuple[int, ...]
    products: NDArray[np.int64] | None

    @classmethod
    def of(
        cls,
        coded: CodedAttributes,
        number: int,
        gallery: Positions,
        groups: NDArray[np.int64],
        products: NDArray[np.int64] | None,
    ) -> _Pool:
        kept = gallery[groups[gallery] >= 0]
        sizes = tuple(FIRST_CODE + len(names) for names in coded.values)
        own = None if products is None else products[kept]
        return cls(number, kept, np.ascontiguousarray(coded.codes[:, kept]), groups[kept], sizes, own)

    def by_product(self) -> list[NDArray[np.int64]]:
        """Return the places of each product's images; without products, each place alone."""
        places = np.arange(self.positions.size)
        if self.products is None:
            return list(places[:, None])
        order = np.argsort(self.products, kind="stable")
        ends = np.flatnonzero(np.diff(self.products[order])) + 1
        return [own for own in np.split(places[order], ends) if own.size]

    def draw(self, place: int, draw: PairDraw, rng: np.random.Generator) -> Pair | None:
        numbers, sets = self._changes(place)
        fits = np.flatnonzero((numbers > 0) & (numbers <= len(draw.change_weights)) & (sets >= 0))
        if fits.size == 0:
            return None
        u = rng.random(4).tolist()
        if draw.drawing == "balanced":
            weights = np.array((0.0, *draw.change_weights))
            weights[np.bincount(numbers[fits], minlength=len(weights)) == 0] = 0
            if not weights.any():
                return None
            changes = np.searchsorted(np.cumsum(weights / weights.sum()), u[0], side="right")
            fits = fits[numbers[fits] == min(int(changes), len(weights) - 1)]
            fits = _evenly(fits, sets[fits], u[1])
            fits = _evenly(fits, self._values(fits, int(sets[fits[0]])), u[2])
        target = int(fits[int(u[3] * fits.size)])
        return self._pair(place, target, int(sets[target]))

    def every(self, draw: PairDraw) -> Iterator[Pair]:
        """Yield every pair that can be drawn."""
        weights = np.array((0.0, *draw.change_weights))
        offered = weights > 0 if draw.drawing == "balanced" else np.arange(len(weights)) > 0
        for place in range(self.positions.size):
            numbers, sets = self._changes(place)
            few = numbers < len(offered)
            fits = few & (sets >= 0) & offered[np.where(few, numbers, 0)]
            for target in np.flatnonzero(fits):
                yield self._pair(place, int(target), int(sets[target]))

    def _pair(self, place: int, target: int, changed: int) -> Pair:
        return Pair(int(self.positions[place]), int(self.positions[target]), self.number, _members(changed))

    def _changes(self, place: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """Return for each image in how many columns it differs from the one at ``place``, and in which.

        The columns are bits of one integer; -1 means that the two cannot be a pair.
        """
        numbers = np.zeros(self.positions.size, dtype=np.int8)
        sets = np.zeros(self.positions.size, dtype=np.int64)
        barred: Bools = self.groups != self.groups[place]
        if self.products is not None:
            barred |= self.products == self.products[place]
        for column, codes in enumerate(self.codes):
            own = codes[place]
            if own >= FIRST_CODE:
                differs = (codes != own) & (codes >= FIRST_CODE)
                numbers += differs
                sets |= differs.astype(np.int64) << column
                barred |= codes == UNKNOWN_CODE
        sets[barred] = -1
        return numbers, sets

    def _values(self, places: Positions, changed: int) -> NDArray[np.int64]:
        columns = _members(changed)
        keys = np.zeros(places.size, dtype=np.int64)
        for column in columns:
            keys = keys * self.sizes[column] + self.codes[column, places]
        return keys


def _members(bits: int) -> tuple[int, ...]:
    return tuple(i for i in range(bits.bit_length()) if bits >> i & 1)


def _evenly(places: Positions, keys: NDArray[np.int64], u: float) -> Positions:
    """Draw one of the different ``keys``, all with the same chance, and return the places that have it.

    ``keys`` are those of ``places``; the random number ``u`` (0 to 1) draws.
    """
    distinct = np.unique(keys)
    kept: Positions = places[keys == distinct[int(u * distinct.size)]]
    return kept
