"""Numbers that no picture shows: read, worded, removed from a text, and answered."""

import numpy as np
import pytest

from dqecir.data.cells import number_in
from dqecir.language.numeric_constraints import ConstraintReader, NumericConstraint
from dqecir.questions.comparatives import Comparatives, with_comparatives
from dqecir.questions.composing import catalogue_benchmark


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("12", 12.0),
        ("-3.5", -3.5),
        ("€ 1,299.50", 1299.5),
        ("1,299", 1299.0),
        ("12,50 €", 12.5),
        ("1.299,50 €", 1299.5),
        ("1 250 EUR", 1250.0),
        ("1.2.3", None),
        ("XL", None),
        ("30 by 40", None),
    ],
)
def test_numbers_are_read_as_shops_write_them(cell, number):
    assert number_in(cell) == number


@pytest.mark.parametrize("columns", [["price", "year", "heel_height"], ["old_price", "price"]])
def test_what_training_hears_is_what_a_search_reads(columns):
    reader = ConstraintReader(columns)
    for intent, phrases in Comparatives(columns).phrases.items():
        for phrase in phrases:
            read = (NumericConstraint(intent.column, intent.direction),)
            assert reader.parted(f"is red and is {phrase}") == ("is red", read)


def test_of_two_columns_of_one_name_the_second_is_never_spoken_of():
    said = Comparatives(["price", "Price"]).phrases
    assert {intent.column for intent in said} == {"price"}


def test_a_question_about_a_number_has_the_answers_that_its_number_admits(garments):
    plain = catalogue_benchmark(garments, "train", count=60)
    numbers = np.random.default_rng(0).permutation(len(plain.image_ids)).astype(float)
    numbers[::7] = np.nan
    spoken = Comparatives(["price"])
    asked = with_comparatives(plain, {"price": numbers}, spoken, 1.0, 0, answered=True)
    heard = with_comparatives(plain, {"price": numbers}, spoken, 1.0, 0, answered=False)
    changed = 0
    for before, after, trained in zip(plain.triplets, asked.triplets, heard.triplets, strict=True):
        assert trained.captions == after.captions
        assert trained.relevant == before.relevant
        bounds = ConstraintReader(["price"]).parted(" and ".join(after.captions))[1]
        if not bounds:
            assert np.isnan(numbers[[before.reference, before.target]]).any()
            continue
        changed += 1
        own = numbers[before.reference]
        fits = {i for i in before.relevant if (numbers[i] < own) == (bounds[0].direction == "less")}
        assert set(after.relevant) == {i for i in fits if not np.isnan(numbers[i])}
        assert set(np.flatnonzero(np.isnan(numbers))) <= set(after.ignored)
    assert changed > 20
