"""One question in several wordings."""

from dataclasses import replace

import pytest

from dqecir.questions.composing import catalogue_benchmark
from dqecir.questions.paraphrases import WORDINGS, paraphrases


@pytest.fixture(scope="module")
def benchmark(garments):
    return catalogue_benchmark(garments, "train", seed=1, count=200)


def test_every_wording_of_a_question_asks_for_the_same(benchmark):
    reworded = paraphrases(benchmark, 30)
    assert len(reworded.triplets) == 30 * WORDINGS
    originals = {triplet.captions for triplet in benchmark.triplets}
    for start in range(0, len(reworded.triplets), WORDINGS):
        group = reworded.triplets[start : start + WORDINGS]
        assert len({triplet.captions for triplet in group}) == WORDINGS
        assert group[0].captions in originals
        for triplet in group[1:]:
            assert replace(triplet, captions=group[0].captions) == group[0]


def test_the_seed_decides(benchmark):
    assert paraphrases(benchmark, 10).triplets == paraphrases(benchmark, 10).triplets
    assert paraphrases(benchmark, 10).triplets != paraphrases(benchmark, 10, seed=1).triplets
