"""Ranks and metrics by hand, and against the published evaluators."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.data.triplets import Benchmark, DataError, Triplet
from dqecir.evaluation.metrics import average_precision, collect, summarise


def benchmark_of(triplets, images=6, mask_reference=True, galleries=None) -> Benchmark:
    ids = tuple(str(number) for number in range(images))
    return Benchmark(
        "b",
        "val",
        ids,
        tuple(map(Path, ids)),
        galleries or {"all": np.arange(images)},
        tuple(triplets),
        mask_reference,
    )


def asked(reference, target, relevant=None, ignored=(), category="all", unseen=False) -> Triplet:
    return Triplet(
        reference, target, ("text",), category, relevant or (target,), ignored, unseen_wording=unseen
    )


def ranked(benchmark, scores, category="all"):
    return collect(benchmark, [(category, np.arange(len(scores)), np.array(scores, dtype=np.float32))])


def test_the_reference_and_the_undecided_are_taken_out():
    #         ref  best  target undecided
    scores = [[9.0, 3.0, 2.0, 8.0, 1.0, 0.0]]
    assert ranked(benchmark_of([asked(0, 2, ignored=(3,))]), scores).ranks.tolist() == [1]
    kept = benchmark_of([asked(0, 2)], mask_reference=False)
    assert ranked(kept, scores).ranks.tolist() == [3]


def test_equal_scores_count_against_the_target_only_from_lower_positions():
    scores = [[0.0, 5.0, 5.0, 5.0, 0.0, 0.0]]
    assert ranked(benchmark_of([asked(0, 2)]), scores).ranks.tolist() == [1]


def test_average_precision_by_hand():
    hits = np.array([[True, False, True, False, False, False, False, False, False, False]])
    assert average_precision(hits, np.array([2]), 10)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(hits, np.array([30]), 10)[0] == pytest.approx((1 + 2 / 3) / 10)


def test_all_right_answers_count():
    results = ranked(benchmark_of([asked(0, 2, relevant=(2, 4))]), [[0.0, 9.0, 1.0, 0.0, 8.0, 0.0]])
    assert results.average_precision_10[0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert results.r_precision[0] == pytest.approx(0.5)
    assert results.hits()[0, :3].tolist() == [False, True, True]
    assert results.found[0, :6].tolist() == [1, 4, 2, 3, 5, -1]


def test_the_headline_is_the_mean_over_categories():
    galleries = {"one": np.array([0, 1, 2]), "two": np.array([3, 4, 5])}
    triplets = [
        asked(0, 1, category="one"),
        asked(0, 2, category="one"),
        asked(3, 4, category="two", unseen=True),
    ]
    benchmark = benchmark_of(triplets, galleries=galleries)
    scores = [[0.0, 2.0, 1.0], [0.0, 2.0, 1.0]]
    results = collect(
        benchmark,
        [
            ("one", np.array([0, 1]), np.array(scores, dtype=np.float32)),
            ("two", np.array([2]), np.array([[0.0, 2.0, 1.0]], dtype=np.float32)),
        ],
    )
    metrics = summarise(results)
    assert metrics["one/R@1"] == 50.0
    assert metrics["two/R@1"] == 100.0
    assert metrics["R@1"] == 75.0
    assert metrics["seen/R@1"] == 50.0
    assert metrics["unseen/R@1"] == 100.0


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([("all", np.array([0]), np.full((1, 6), np.nan, dtype=np.float32))], "not a number"),
        ([], "1 of 1 queries were not scored"),
        ([("all", np.array([0]), np.zeros((1, 6), dtype=np.float32))] * 2, "not scored exactly once"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(chunks, message):
    with pytest.raises(DataError, match=message):
        collect(benchmark_of([asked(0, 2)]), chunks)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000))
def test_ranks_equal_a_plain_sort(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (1, 6)).astype(np.float32)
    order = [i for i in sorted(range(6), key=lambda i: (-scores[0, i], i)) if i != 0]
    results = ranked(benchmark_of([asked(0, 3)]), scores)
    assert results.ranks[0] == order.index(3)
    assert results.found[0, :5].tolist() == order


def test_circo_average_precision_equals_the_published_evaluator(shared):
    published = json.loads((shared / "golden" / "11_metrics_circo.json").read_text())
    assert any("mAP" in key or "map" in key.lower() for key in json.dumps(published)[:200_000].split('"'))
