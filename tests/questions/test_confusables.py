"""Pairs of questions that differ in one value: checked against the true attributes."""

from dataclasses import replace

import pytest

from dqecir.errors import DataError
from dqecir.questions.composing import catalogue_benchmark
from dqecir.questions.confusables import confusable_pairs


@pytest.fixture(scope="module")
def benchmark(garments):
    return catalogue_benchmark(garments, "train", seed=1, count=300)


def test_targets_differ_in_the_named_attribute_alone_and_from_the_reference(benchmark):
    pairs = confusable_pairs(benchmark, 40)
    assert pairs
    for pair in pairs:
        first, second = pair.first, pair.second
        assert first.reference == second.reference
        values = benchmark.attributes
        differing = [c for c, row in values.items() if row[first.target] != row[second.target]]
        assert differing == [pair.column]
        own = values[pair.column]
        assert own[first.reference] not in (own[first.target], own[second.target])


def test_no_question_admits_the_others_target(benchmark):
    for pair in confusable_pairs(benchmark, 40):
        own = benchmark.attributes[pair.column]
        assert own[pair.first.target] in pair.first.asked[pair.column]
        assert own[pair.second.target] in pair.second.asked[pair.column]
        assert own[pair.second.target] not in pair.first.asked[pair.column]
        assert own[pair.first.target] not in pair.second.asked[pair.column]
        assert pair.first.captions != pair.second.captions


def test_the_seed_decides(benchmark):
    assert confusable_pairs(benchmark, 20, seed=1) == confusable_pairs(benchmark, 20, seed=1)
    assert confusable_pairs(benchmark, 20, seed=1) != confusable_pairs(benchmark, 20, seed=2)


def test_a_benchmark_without_attributes_is_refused(benchmark):
    with pytest.raises(DataError, match="no true attributes"):
        confusable_pairs(replace(benchmark, attributes={}), 5)
