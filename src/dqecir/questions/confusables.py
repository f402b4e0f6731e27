"""Pairs of questions about the same reference that request different values of one attribute.

Semantic confusion means that queries with different intents are alike (arXiv 2603.04037): then a query ranks
the other question's target as high as its own. The pairs are made from true attributes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from dqecir.data.triplets import Benchmark, Positions, Triplet
from dqecir.errors import DataError
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.questions.answers import FIRST_CODE, CodedAttributes
from dqecir.questions.wording import CaptionGenerator, Change, Worded

_ATTEMPTS = 4
"""Largest number of tries to word a pair so that neither text admits the other question's target."""


@dataclass(frozen=True)
class ConfusablePair:
    """Two questions about one reference; their targets differ only in the attribute ``column``."""

    column: str
    first: Triplet
    second: Triplet


def confusable_pairs(benchmark: Benchmark, count: int, *, seed: int = 0) -> list[ConfusablePair]:
    """Draw up to ``count`` pairs of questions from the triplets of a benchmark with true attributes.

    For a triplet, a second target is drawn that differs from the first in one changed attribute and in
    nothing else, and whose value there is not the reference's. Both texts are worded with the same random
    numbers, so that they differ only in the value if the vocabulary's phrases allow it. A pair is kept only
    if each text excludes the other target's value. Raises ``DataError`` if the benchmark has no true
    attributes or no such pair.
    """
    if not benchmark.attributes:
        raise DataError(
            f"{benchmark.name} has no true attributes to make confusable questions from: use a catalogue"
        )
    coded = CodedAttributes.of(benchmark.attributes)
    words = CaptionGenerator(shipped_vocabularies(), dict(zip(coded.columns, coded.values, strict=True)))
    random_order = np.random.default_rng(seed)
    pairs: list[ConfusablePair] = []
    for number in random_order.permutation(len(benchmark.triplets)):
        if len(pairs) == count:
            break
        triplet = benchmark.triplets[number]
        others = _other_targets(coded, benchmark.galleries[triplet.category], triplet)
        if others:
            # Draw an attribute first, then a target; otherwise most pairs would be about colours.
            column = random_order.choice(sorted({place for _, place in others}))
            other = random_order.choice([image for image, place in others if place == column])
            pair = _worded(coded, words, triplet, int(other), int(column), random.Random(f"{seed} {number}"))
            if pair is not None:
                pairs.append(pair)
    if not pairs:
        raise DataError(
            f"{benchmark.name} has no two questions that differ in one value: add images or leave out columns"
        )
    return pairs


def _other_targets(coded: CodedAttributes, gallery: Positions, triplet: Triplet) -> list[tuple[int, int]]:
    """Return (image, column) of all images that differ from the target in one changed attribute only."""
    codes = coded.codes[:, gallery]
    own = coded.codes[:, triplet.target]
    reference = coded.codes[:, triplet.reference]
    differs = codes != own[:, None]  # [columns, candidates]
    single = np.flatnonzero(differs.sum(axis=0) == 1)
    columns = differs[:, single].argmax(axis=0)
    found = []
    for candidate, column in zip(single, columns, strict=True):
        value = codes[column, candidate]
        changed = own[column] >= FIRST_CODE and own[column] != reference[column]
        if changed and value >= FIRST_CODE and value != reference[column]:
            found.append((int(gallery[candidate]), int(column)))
    return [(image, column) for image, column in found if image != triplet.reference]


def _worded(
    coded: CodedAttributes,
    words: CaptionGenerator,
    triplet: Triplet,
    other: int,
    column: int,
    rng: random.Random,
) -> ConfusablePair | None:
    name = coded.columns[column]
    for _ in range(_ATTEMPTS):
        draw = rng.random()
        first = description(coded, words, triplet.reference, triplet.target, random.Random(draw))
        second = description(coded, words, triplet.reference, other, random.Random(draw))
        if first is None or second is None or name not in first.asked or name not in second.asked:
            return None
        values = [coded.value(column, coded.codes[column, image]) for image in (triplet.target, other)]
        if values[1] not in first.asked[name] and values[0] not in second.asked[name]:
            return ConfusablePair(
                name,
                _question(triplet, triplet.target, first),
                _question(triplet, other, second),
            )
    return None


def description(
    coded: CodedAttributes,
    words: CaptionGenerator,
    reference: int,
    target: int,
    rng: random.Random,
    held_out: bool = False,
) -> Worded | None:
    """Word the change from ``reference`` to ``target`` (positions); None if no known value differs.

    ``held_out``: use phrases that are held out of training, where there are some. ``coded`` are the true
    attributes; ``rng`` draws the phrases.
    """
    changes = []
    for place, column in enumerate(coded.columns):
        before, after = coded.codes[place, reference], coded.codes[place, target]
        if before >= FIRST_CODE and after >= FIRST_CODE and before != after:
            changes.append(Change(column, coded.value(place, before), coded.value(place, after)))
    if not changes:
        return None
    known = {
        column: coded.value(place, coded.codes[place, reference])
        for place, column in enumerate(coded.columns)
        if coded.codes[place, reference] >= FIRST_CODE
    }
    return words.describe(changes, rng, held_out, known)


def _question(triplet: Triplet, target: int, worded: Worded) -> Triplet:
    return Triplet(
        reference=triplet.reference,
        target=target,
        captions=worded.captions,
        category=triplet.category,
        relevant=(target,),
        asked=worded.asked,
    )
