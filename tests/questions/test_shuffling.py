"""Training triplets with wrong labels."""

import pytest

from dqecir.questions.composing import catalogue_benchmark
from dqecir.questions.shuffling import with_shuffled_targets


@pytest.fixture(scope="module")
def benchmark(garments):
    return catalogue_benchmark(garments, "train", seed=1, count=200, gallery_column="garment")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
def test_a_share_of_the_targets_is_anothers(benchmark, share):
    shuffled = with_shuffled_targets(benchmark, share, seed=3)
    moved = 0
    for before, after in zip(benchmark.triplets, shuffled.triplets, strict=True):
        assert (after.reference, after.captions, after.category) == (
            before.reference,
            before.captions,
            before.category,
        )
        assert after.target != after.reference
        if after != before:
            moved += 1
            assert after.relevant == (after.target,)
            assert after.target in benchmark.galleries[after.category]
    assert moved == pytest.approx(share * 200, abs=0.05 * 200)
