"""Zones, drops and pools, compared with cases by hand and QuRe's published sets."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dqecir.methods.negatives import (
    NegativePool,
    NegativeSampling,
    around_target,
    mid_zone,
    quantile_bounds,
    steepest_drop_members,
    target_relative_scores,
    zone_bounds,
    zone_or_fallback,
)

CASES = json.loads((Path(__file__).parents[1] / "golden" / "02_qure_hard_negatives.json").read_text())

#                        target  near  band  band  easy
SCORES = torch.tensor([[0.60, 0.58, 0.55, 0.45, 0.10]])
ELIGIBLE = torch.tensor([[False, True, True, True, True]])
DELTA = target_relative_scores(SCORES, SCORES[:, 0])


def zone(options: NegativeSampling, delta=DELTA, eligible=ELIGIBLE) -> tuple[list[int], bool]:
    bounds = zone_bounds(delta, eligible, options, temperature=0.1)
    members, empty = zone_or_fallback(delta, eligible, options, bounds)
    return members[0].nonzero().flatten().tolist(), bool(empty[0])


def test_delta_is_target_minus_candidate():
    assert DELTA[0].tolist() == pytest.approx([0.0, 0.02, 0.05, 0.15, 0.5], abs=1e-6)


def test_absolute_bounds_are_inclusive():
    exact = torch.tensor([[0.0, 0.25, 0.5, 0.75]])
    members = mid_zone(exact, torch.ones(1, 4, dtype=torch.bool), (torch.tensor([0.25]), torch.tensor([0.5])))
    assert members[0].tolist() == [False, True, True, False]


def test_candidates_around_the_target():
    # Δ: -0.3, -0.1, 0.05, 0.2, and one that may not be drawn between the last two.
    delta = torch.tensor([[0.2, -0.3, 0.1, -0.1, 0.05]])
    eligible = torch.tensor([[True, True, False, True, True]])
    assert around_target(delta, eligible, 1)[0].tolist() == [False, False, False, True, True]
    assert around_target(delta, eligible, 9)[0].tolist() == [True, True, False, True, True]


def test_absolute_zone():
    assert zone(NegativeSampling(low=0.04, high=0.16)) == ([2, 3], False)


def test_temperature_scales_the_bounds():
    assert zone(NegativeSampling(bounds="temperature", low=0.4, high=1.6)) == ([2, 3], False)


def test_quantiles_are_shares_of_the_ranking():
    low, high = quantile_bounds(DELTA, ELIGIBLE, 0.3, 0.7)
    assert (low.item(), high.item()) == pytest.approx((0.05, 0.15))


def test_empty_zone_takes_what_lies_nearest_and_below_the_target():
    options = NegativeSampling(low=0.2, high=0.3, fallback_size=2)
    assert zone(options) == ([2, 3], True)  # distances .18 .15 .05 .20


def test_empty_zone_at_random_takes_all_that_are_eligible():
    assert zone(NegativeSampling(low=0.2, high=0.3, empty="random")) == ([1, 2, 3, 4], True)


def test_fallback_never_returns_the_target_even_when_all_outrank_it():
    scores = torch.tensor([[0.1, 0.5, 0.6, 0.7, 0.8]])
    delta = target_relative_scores(scores, scores[:, 0])
    assert zone(NegativeSampling(), delta) == ([1, 2, 3, 4], True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.2, "high": 0.1}, "must be below"),
        ({"bounds": "quantile", "low": 0.2, "high": 1.5}, "shares of the ranking"),
        ({"lowest": 0.1}, "lowest"),
        ({"empty": "widen"}, "the value 'widen' of 'empty' was removed in version 0.2.0"),
        ({"bounds": "calibrated"}, "the value 'calibrated' of 'bounds' was removed in version 0.2.0"),
        ({"pool_size": 64}, "the option 'pool_size' was removed in version 0.2.0; leave it out to get 256"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        NegativeSampling(**options)


@pytest.mark.parametrize("case", CASES["single_query_cases"], ids=lambda case: case["label"])
def test_steepest_drops_equal_the_published_sets(case):
    scores = torch.tensor(case["scores"], dtype=torch.float32)
    names = case["names"]
    published = case["fashioniq_result"]
    target, threshold = torch.tensor([names.index(case["target"])]), case["consecutive_threshold"]
    everything = torch.ones(1, len(names), dtype=torch.bool)
    members, empty = steepest_drop_members(scores[None], target, everything, threshold=threshold)
    assert empty.item() == ("names" not in published)
    if not empty:
        chosen = {names[i] for i in members[0].nonzero().flatten().tolist()}
        assert sorted(chosen - {case["target"]}) == published["names"]


def test_drop_members_fall_back_to_everything_eligible():
    scores = torch.tensor(CASES["leak_case"]["scores"])
    eligible = torch.ones(2, 8, dtype=torch.bool)
    eligible[0, 0] = eligible[1, 7] = False
    members, empty = steepest_drop_members(scores, torch.tensor([0, 7]), eligible)
    assert members[0].nonzero().flatten().tolist() == [2, 3, 4]
    assert members[1].tolist() == eligible[1].tolist()
    assert empty.tolist() == [False, True]


def drawn(pool, rows, count):
    found = pool.upcoming(rows, count)
    assert torch.equal(pool.upcoming(rows, count), found)
    pool.advance(rows, count)
    return found


def test_pool_draws_without_repeat_until_exhausted():
    pool = NegativePool(queries=3, size=4)
    members = torch.tensor([[True, False, True, True, False]])
    order = torch.tensor([[0.3, 0.0, 0.1, 0.2, 0.0]])
    pool.fill(torch.tensor([1]), order, members, torch.tensor([10, 11, 12, 13, 14]))
    rows = torch.tensor([1])
    assert [drawn(pool, rows, 1).item() for _ in range(4)] == [12, 13, 10, 12]
    assert drawn(pool, rows, 2).tolist() == [[13, 10]]


def test_pool_keeps_at_most_its_size():
    pool = NegativePool(queries=1, size=2)
    everything = torch.ones(1, 5, dtype=torch.bool)
    pool.fill(torch.tensor([0]), torch.arange(5.0)[None], everything, torch.arange(5))
    assert pool.counts.tolist() == [2]
    assert pool.members.tolist() == [[0, 1]]


def test_empty_pool_is_an_error():
    with pytest.raises(ValueError, match="no candidate"):
        NegativePool(1, 2).upcoming(torch.tensor([0]), 1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    bounds=st.sampled_from(["absolute", "quantile", "temperature"]),
    empty=st.sampled_from(["nearest", "random"]),
)
def test_negatives_are_always_eligible_and_never_missing(seed, bounds, empty):
    random = np.random.default_rng(seed)
    scores = torch.tensor(random.normal(size=(6, 20)), dtype=torch.float32)
    targets = torch.tensor(random.integers(0, 20, 6))
    eligible = torch.tensor(random.random((6, 20)) < 0.7)
    eligible[torch.arange(6), targets] = False
    eligible[:, 0] |= ~eligible.any(dim=1) & (targets != 0)
    options = NegativeSampling(bounds=bounds, empty=empty, low=0.05, high=0.3)
    delta = target_relative_scores(scores, scores[torch.arange(6), targets])
    members, _ = zone_or_fallback(delta, eligible, options, zone_bounds(delta, eligible, options, 0.1))
    assert not (members & ~eligible).any()
    assert (members.any(dim=1) == eligible.any(dim=1)).all()


def test_pool_larger_than_the_corpus():
    pool = NegativePool(queries=1, size=9)
    pool.fill(torch.tensor([0]), torch.rand(1, 3), torch.ones(1, 3, dtype=torch.bool), torch.arange(3))
    assert sorted(pool.upcoming(torch.tensor([0]), 3)[0].tolist()) == [0, 1, 2]
