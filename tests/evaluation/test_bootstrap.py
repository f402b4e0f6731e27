"""Paired intervals: drawn by reference, certain if all questions agree, wide for few references."""

from dataclasses import replace

import numpy as np
import pytest

from dqecir.errors import DataError
from dqecir.evaluation.bootstrap import FEWEST_REFERENCES, paired_gain
from tests.evaluation.test_metrics import asked, benchmark_of, ranked


def results(references, found, images=60, products=(), ahead=1):
    """Return questions whose only target is ranked first, or else second."""
    triplets = [asked(reference, (reference + ahead) % images) for reference in references]
    scores = np.zeros((len(triplets), images))
    for row, (triplet, first) in enumerate(zip(triplets, found, strict=True)):
        scores[row, (triplet.target + 1) % images] = 1
        scores[row, triplet.target] = 2 if first else 0.5
    return ranked(replace(benchmark_of(triplets, images), products=tuple(products)), scores)


def pair(references, after, before, **options):
    found = results(references, after, **options)
    other = results(references, before, **options)
    return found, replace(other, benchmark=found.benchmark)


def test_a_gain_on_every_question_is_certain():
    gain = paired_gain(*pair(range(30), [True] * 30, [False] * 30))
    assert (gain.difference, gain.low, gain.high, gain.questions) == (50, 50, 50, 30)
    assert gain.is_certain


def test_a_loss_is_certain_too_and_a_draw_is_not():
    assert paired_gain(*pair(range(40), [False] * 40, [True] * 30 + [False] * 10)).high < 0
    even = paired_gain(*pair(range(40), [True, False] * 20, [False, True] * 20))
    assert even.difference == 0
    assert even.low < 0 < even.high
    assert not even.is_certain


def test_the_interval_is_that_of_the_normal_law_where_questions_are_many():
    after = np.arange(400) % 4 == 0  # every fourth question gains 50 points
    gain = paired_gain(*pair(range(400), after, [False] * 400, images=500))
    spread = 1.96 * 50 * np.sqrt(0.25 * 0.75 / 400)
    assert gain.low == pytest.approx(12.5 - spread, abs=0.25)
    assert gain.high == pytest.approx(12.5 + spread, abs=0.25)


def test_questions_of_one_reference_or_product_count_together():
    after = [number % 12 % 3 == 0 for number in range(120)]
    alone = paired_gain(*pair(range(120), after, [False] * 120, images=130))
    repeated = [number % 12 for number in range(120)]
    together = paired_gain(*pair(repeated, after, [False] * 120, images=130))
    assert together.high - together.low > 2 * (alone.high - alone.low)
    # Ten pictures of each of twelve products, and some products that are only found.
    products = [number % 12 for number in range(120)] + [12 + number for number in range(120)]
    views = paired_gain(*pair(range(120), after, [False] * 120, images=240, products=products, ahead=120))
    assert (views.low, views.high) == (together.low, together.high)


def test_few_references_tell_nothing():
    few = FEWEST_REFERENCES - 1
    gain = paired_gain(*pair(range(few), [True] * few, [False] * few))
    assert (gain.difference, gain.low, gain.high) == (50, -100, 100)
    assert not gain.is_certain


def test_results_of_other_questions_are_refused():
    with pytest.raises(DataError, match="same questions"):
        paired_gain(results(range(20), [True] * 20), results(range(20), [True] * 20))
