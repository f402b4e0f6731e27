"""Word the same questions in several ways, to test whether the results stay the same."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from dqecir.data.triplets import Benchmark, Triplet
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.questions.answers import CodedAttributes
from dqecir.questions.confusables import description
from dqecir.questions.wording import CaptionGenerator

WORDINGS = 4
"""Number of wordings of each question, including its own."""
QUESTIONS = 200
"""Number of questions that are worded in several ways."""
_ATTEMPTS = 24


def paraphrases(benchmark: Benchmark, questions: int = QUESTIONS, *, seed: int = 0) -> Benchmark:
    """Return up to ``questions`` questions of a benchmark, each in :data:`WORDINGS` wordings in a row.

    All wordings of a question request the same values, so that its right answers stay. Besides its own, they
    are drawn in turn from phrases that are held out of training and from the others. A question without
    enough wordings is left out; a benchmark without true attributes gives no questions. ``seed`` draws
    questions and wordings.
    """
    if not benchmark.attributes:
        return replace(benchmark, triplets=())
    coded = CodedAttributes.of(benchmark.attributes)
    words = CaptionGenerator(shipped_vocabularies(), dict(zip(coded.columns, coded.values, strict=True)))
    triplets: list[Triplet] = []
    for number in np.random.default_rng(seed).permutation(len(benchmark.triplets)):
        if len(triplets) >= questions * WORDINGS:
            break
        triplet = benchmark.triplets[number]
        captions = {triplet.captions: None}
        rng = random.Random(f"{seed} {number}")
        for attempt in range(_ATTEMPTS):
            held_out = attempt % 2 == 0
            worded = description(coded, words, triplet.reference, triplet.target, rng, held_out)
            if worded is not None and worded.asked == triplet.asked:
                captions[worded.captions] = None
            if len(captions) == WORDINGS:
                triplets += [replace(triplet, captions=caption, subset=()) for caption in captions]
                break
    return replace(benchmark, triplets=tuple(triplets))
