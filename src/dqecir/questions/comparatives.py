"""Put columns of numbers (price, year) into questions as comparisons.

No picture shows whether something is cheaper. Training includes such clauses, so that a model learns to
ignore them; a search removes them from the text (``language/numeric_constraints.py``) and filters by them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dqecir.data.triplets import Benchmark
from dqecir.language.number_words import Direction, by_name, column_words, comparisons

Numbers = NDArray[np.float64]
"""A number for each image; NaN if it is unknown."""

_DIRECTIONS: tuple[tuple[Direction, str], ...] = (("less", "lower"), ("more", "higher"))


@dataclass(frozen=True)
class Intent:
    """A request that a column's number be less or more than the reference's."""

    column: str
    direction: Direction

    def admits(self, numbers: Numbers, reference: int) -> NDArray[np.bool_]:
        """Return [N] which images fit, by position; none fits if either number is unknown."""
        own = numbers[reference]
        return numbers < own if self.direction == "less" else numbers > own


class Comparatives:
    """The words for the number columns of a catalogue.

    ``phrases`` holds the words for each intent. Of two prices, "cheaper" means the one that :func:`by_name`
    puts first; of two columns with one name ("price", "Price") the second has no words.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.phrases: dict[Intent, tuple[str, ...]] = {}
        taken: set[str] = set()
        for column in by_name(columns):
            plain = " ".join(column_words(column))
            for direction, word in _DIRECTIONS:
                said = (*comparisons(column, direction), f"of a {word} {plain}")
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
    """Add to a seeded ``share`` of the questions how one number of the target differs.

    ``answered`` removes right answers that do not fit, for a search that filters; the ranking then leaves
    out images whose number is unknown. Training does not use it, because pictures do not show numbers.
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
