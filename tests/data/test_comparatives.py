"""Numbers that no picture shows: how they are read, said, taken out of a text, and answered."""

import numpy as np
import pytest

from dqecir.data.comparatives import Comparatives, Intent, number_in, with_comparatives
from dqecir.data.composing import catalogue_benchmark


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


@pytest.mark.parametrize(
    ("text", "rest", "intents"),
    [
        ("is red and is cheaper", "is red", [("price", "less")]),
        ("Cheaper, and with long sleeves", "and with long sleeves", [("price", "less")]),
        ("is blue, more expensive and newer", "is blue", [("price", "more"), ("year", "more")]),
        ("is red and of a higher heel height", "is red", [("heel_height", "more")]),
        ("is not cheaper but red", "is not cheaper but red", []),
        ("is red, cheaper than this one", "is red", [("price", "less")]),
        ("with an older look", "with an older look", []),
    ],
)
def test_comparisons_leave_the_text(text, rest, intents):
    said = Comparatives(["price", "year", "heel_height"]).parted(text)
    assert said == (rest, tuple(Intent(*intent) for intent in intents))


def test_of_two_prices_the_first_is_what_cheaper_speaks_of():
    said = Comparatives(["price", "old_price"])
    assert said.parted("is red and cheaper")[1] == (Intent("price", "less"),)
    assert said.parted("is red and of a lower old price")[1] == (Intent("old_price", "less"),)


def test_a_text_of_many_blanks_is_parted_at_once():
    blanks = " " * 100_000  # an hour, where each of them is tried
    assert Comparatives(["price"]).parted(f"is red{blanks}and cheaper")[0] == "is red"


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
        intents = spoken.parted(" and ".join(after.captions))[1]
        if not intents:
            assert np.isnan(numbers[[before.reference, before.target]]).any()
            continue
        changed += 1
        own = numbers[before.reference]
        fits = {i for i in before.relevant if (numbers[i] < own) == (intents[0].direction == "less")}
        assert set(after.relevant) == {i for i in fits if not np.isnan(numbers[i])}
        assert set(np.flatnonzero(np.isnan(numbers))) <= set(after.ignored)
    assert changed > 20
