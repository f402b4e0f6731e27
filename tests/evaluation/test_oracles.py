"""Oracles: scores from true attributes, in a case by hand and in general properties."""

from pathlib import Path

import numpy as np
import pytest

from dqecir.data.cells import UNKNOWN
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError
from dqecir.evaluation.oracles import ORACLES, oracle_scores
from dqecir.questions.composing import catalogue_benchmark

TABLE = {
    #          0 ref  1 right  2 wrong neck  3 all wrong  4 like ref  5 unknown
    "color": ("red", "blue", "blue", "green", "red", UNKNOWN),
    "neck": ("v", "v", "round", "round", "v", "v"),
    "length": ("", "long", "", "short", "", ""),
}


def by_hand(attributes=TABLE, mask_reference=True) -> Benchmark:
    triplet = Triplet(0, 1, ("is blue",), "all", (1,), (5,), {"color": frozenset({"blue"})})
    ids = tuple("abcdef")
    galleries = {"all": np.arange(6)}
    return Benchmark(
        "hand", "val", ids, tuple(map(Path, ids)), galleries, (triplet,), mask_reference, attributes
    )


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        # length does not apply to the reference, so that every candidate has that point
        ("full", [2, 3, 2, 1, 2, 2]),
        ("text", [0, 1, 1, 0, 0, 0]),
        ("image", [3, 1, 1, 0, 3, 2]),
    ],
)
def test_points_by_hand(kind, points):
    ((category, numbers, scores),) = oracle_scores(by_hand(), kind)
    assert category == "all"
    assert numbers.tolist() == [0]
    assert scores.dtype == np.float32
    jitter = scores[0] - np.array(points)
    assert (jitter >= 0).all()
    assert (jitter < 1e-3).all()
    assert len(set(jitter.tolist())) == 6


def test_what_is_unknown_of_the_reference_costs_no_candidate_a_point():
    table = TABLE | {"length": (UNKNOWN, UNKNOWN, "long", UNKNOWN, "short", "")}
    ((_, _, scores),) = oracle_scores(by_hand(table), "full")
    assert np.floor(scores[0]).tolist() == [2, 3, 2, 1, 2, 2]


def test_right_answers_tie_at_the_top_and_nothing_else_does(garments):
    asked = catalogue_benchmark(garments, "train", seed=2, per_reference=2, gallery_column="garment")
    seen = 0
    for category, numbers, scores in oracle_scores(asked, "full"):
        gallery = asked.galleries[category]
        for number, row in zip(numbers, scores, strict=True):
            triplet = asked.triplets[number]
            top = set(gallery[row >= len(asked.attributes)].tolist()) - {triplet.reference}
            assert top == set(triplet.relevant)
            seen += 1
    assert seen == len(asked.triplets)


@pytest.mark.parametrize("kind", ORACLES)
def test_scores_do_not_depend_on_the_chunks_and_follow_from_the_seed(garments, kind):
    asked = catalogue_benchmark(garments, "val", per_reference=2)

    def scores(**options):
        return np.concatenate([scores for _, _, scores in oracle_scores(asked, kind, **options)])

    assert np.array_equal(scores(), scores(chunk=3))
    assert not np.array_equal(scores(), scores(seed=1))
    assert np.array_equal(np.floor(scores()), np.floor(scores(seed=1)))


def test_position_does_not_break_ties():
    """Over many seeds, each of two tied candidates ranks first about equally often."""
    wins = 0
    for seed in range(200):
        ((_, _, scores),) = oracle_scores(by_hand(), "text", seed=seed)
        wins += int(scores[0, 1] > scores[0, 2])
    assert 70 < wins < 130


def test_refusals():
    with pytest.raises(DataError, match="there is no oracle 'best': choose one of full, text, image"):
        next(oracle_scores(by_hand(), "best"))
    with pytest.raises(DataError, match="hand has no true attributes"):
        next(oracle_scores(by_hand({}), "full"))
