"""Columns of numbers that no picture shows (price, year): said as comparisons, kept as filters.

"Cheaper" asks nothing of a picture. Training hears such clauses, so that a model learns to pass over
them; a search takes them out of the text (``bounds.py``) and keeps what is cheaper than the reference.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dqecir.data.triplets import Benchmark

Numbers = NDArray[np.float64]
"""One number an image; NaN where it is not known."""
Direction = Literal["less", "more"]

_DIRECTIONS: tuple[tuple[Direction, str], ...] = (("less", "lower"), ("more", "higher"))
_NUMBER = re.compile(r"[€$£¥]?\s*(-?\d[\d.,  ]*)\s*(?:[€$£¥]|[A-Za-z]{2,3}\.?)?")
MONEY = frozenset({"price", "cost", "rrp"})
YEARS = frozenset({"year", "season", "date"})
"""Words of a column's name that say what its numbers are."""
SEEN = r"[\s-]+(?:looks?|looking|styles?|designs?|fashion)\b"
"""What makes a comparison one of looks: "an older look" is no year."""
_FAMILIES: tuple[tuple[frozenset[str], dict[Direction, tuple[str, ...]]], ...] = (
    (
        MONEY,
        {"less": ("cheaper", "less expensive"), "more": ("more expensive", "pricier")},
    ),
    (YEARS, {"less": ("older",), "more": ("newer", "more recent")}),
)


@dataclass(frozen=True)
class Intent:
    """That a column's number should be less or more than the reference's."""

    column: str
    direction: Direction

    def admits(self, numbers: Numbers, reference: int) -> NDArray[np.bool_]:
        """[N] which images fit, by position; none where either number is not known."""
        own = numbers[reference]
        return numbers < own if self.direction == "less" else numbers > own


def number_in(cell: str) -> float | None:
    """The number that a cell holds, with a currency or a unit perhaps; ``None`` for anything else.

    >>> number_in("1,299.50 EUR"), number_in("€ 12,5"), number_in("XL")
    (1299.5, 12.5, None)
    """
    found = _NUMBER.fullmatch(cell.strip())
    if not found:
        return None
    digits = re.sub(r"\s", "", found[1])
    if digits.rfind(",") > digits.rfind(".") > -1:  # 1.299,50
        digits = digits.replace(".", "")
    elif re.search(r",\d{3}(?:\D|$)", digits):
        digits = digits.replace(",", "")
    try:
        return float(digits.replace(",", "."))
    except ValueError:
        return None


def names_a_number(column: str) -> bool:
    """Whether a column's name says that it is compared and not seen: ``price``, ``sale_year``."""
    return any(set(column_words(column)) & names for names, _ in _FAMILIES)


def by_name(columns: Iterable[str]) -> list[str]:
    """Columns in the order in which words about money or time are meant of them: short names first."""
    return sorted(columns, key=lambda column: (len(column_words(column)), column.casefold()))


def comparisons(column: str) -> tuple[str, ...]:
    """How a column is compared in words of its own: "cheaper" for a price; none for most columns."""
    words = set(column_words(column))
    return tuple(
        phrase
        for names, said in _FAMILIES
        if words & names
        for phrases in said.values()
        for phrase in phrases
    )


class Comparatives:
    """How the number columns of a catalogue are spoken of.

    ``phrases`` are the words for each intent. Of two prices, "cheaper" is said of the one that
    :func:`by_name` puts first; of two columns with one name ("price", "Price") the second has no words and
    is never spoken of.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.phrases: dict[Intent, tuple[str, ...]] = {}
        taken: set[str] = set()
        for column in by_name(columns):
            plain = " ".join(column_words(column))
            for direction, word in _DIRECTIONS:
                said = [f"of a {word} {plain}"]
                for names, phrases in _FAMILIES:
                    if set(column_words(column)) & names:
                        said = [*phrases[direction], *said]
                own = tuple(phrase for phrase in said if phrase not in taken)
                taken |= set(own)
                if own:
                    self.phrases[Intent(column, direction)] = own


def with_comparatives(
    benchmark: Benchmark,
    numbers: Mapping[str, Numbers],
    comparatives: Comparatives,
    share: float,
    seed: int,
    answered: bool,
) -> Benchmark:
    """A seeded ``share`` of the questions also say how one number of the target differs.

    ``answered`` parts the right answers by it, for a search that filters: images whose number is not
    known are left out of the ranking. Without it they stay, for training, as pictures cannot tell.
    """
    rng = random.Random(f"{seed} comparatives")
    triplets = []
    for triplet in benchmark.triplets:
        fitting = [
            intent
            for intent in comparatives.phrases
            if intent.admits(numbers[intent.column], triplet.reference)[triplet.target]
        ]
        if fitting and rng.random() < share:
            intent = rng.choice(fitting)
            phrase = rng.choice(comparatives.phrases[intent])
            *first, last = triplet.captions
            triplet = replace(triplet, captions=(*first, f"{last} and is {phrase}"))
            if answered:
                own = numbers[intent.column]
                admitted = intent.admits(own, triplet.reference)
                known = ~np.isnan(own)
                gallery = benchmark.galleries[triplet.category]
                ignored = {*triplet.ignored, *gallery[~known[gallery]].tolist()}
                triplet = replace(
                    triplet,
                    relevant=tuple(image for image in triplet.relevant if admitted[image]),
                    ignored=tuple(sorted(ignored)),
                )
        triplets.append(triplet)
    return replace(benchmark, triplets=tuple(triplets))


def column_words(column: str) -> list[str]:
    """The words of a column's name, in small letters."""
    return re.findall(r"[^\W_]+", column.casefold())
