"""Add comparisons of numbers (price, year) to the texts of questions.

No picture shows whether something is cheaper. Training texts have such clauses, so that a model learns to
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
    """A request that a column's number be smaller or larger than the reference's."""

    column: str
    direction: Direction

    def admits(self, numbers: Numbers, reference: int) -> NDArray[np.bool_]:
        """Return a mask [N] of the images that fulfil the request; those with an unknown number do not.

        ``reference`` is the position of the reference; if its number is unknown, no image fulfils the
        request.
        """
        own = numbers[reference]
        return numbers < own if self.direction == "less" else numbers > own


class Comparatives:
    """The words with which texts compare the number columns of a catalogue.

    ``phrases``: intent -> its phrases. If there are two columns of prices, "cheaper" means the one that
    :func:`by_name` puts first; if two names differ only in case ("price", "Price"), the second column has no
    words.
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
    """Add a clause such as "and is cheaper" to texts of questions; return the new benchmark.

    The clause says truly whether the target's number in one column is smaller or larger than the
    reference's. A question for which this can be said gets a clause with the probability ``share`` (0 to 1);
    ``seed`` draws. ``numbers``: column -> numbers of the images; ``comparatives`` has the phrases.
    ``answered``: also remove right answers that do not fulfil the clause, and leave images with an unknown
    number out of the ranking, for testing searches that filter. Training sets it to False, because pictures
    do not show numbers.
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
