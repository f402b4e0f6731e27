"""The reading of a text in one line."""

from pathlib import Path

import pytest

from dqecir import ComposedRetriever
from dqecir.language.numeric_constraints import NumericConstraint
from dqecir.language.reader import Correction
from dqecir.search.response import RequestedValue, TextReading
from tests.conftest import MODEL_OF_0_1_0

YEAR = NumericConstraint("year", "more", number=2019.0, words="newer than 2019")


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        (TextReading(), ""),
        (TextReading(alike=True), ""),
        (
            TextReading(
                (RequestedValue("color", "red"), RequestedValue("length", None)), unread=("wedding",)
            ),
            "Read as color: red, length. Without effect: wedding.",
        ),
        (
            TextReading(constraints=(NumericConstraint("price", "less", number=40.0),), lacking=(YEAR,)),
            "Only price < 40. The index has no number for year: “newer than 2019” had no effect.",
        ),
        (
            TextReading(constraints=(NumericConstraint("price", "less", number=1234567.5),)),
            "Only price < 1234567.5.",
        ),
        (
            TextReading(constraints=(NumericConstraint("price", "less", words="cheaper"),)),
            "The index has no price of the reference, so “cheaper” had no effect: filter with --where.",
        ),
        (
            TextReading(
                unread=("leather", "wedding"),
                searched=("leather",),
                searched_in=("description", "notes", "title"),
            ),
            "Searched in descriptions and notes and titles: leather. Without effect: wedding.",
        ),
        (
            TextReading(unread=("leather",), no_text="no words are searched: build it again"),
            "Without effect: leather. No words are searched: build it again.",
        ),
        (TextReading(corrections=(Correction("gren", "green"),)), "“gren” was read as “green”."),
        (
            TextReading(unread=("asdf",), alike=True),
            "Without effect: asdf. The text was not understood, so the results are similar to the reference.",
        ),
        (
            TextReading(language="German"),
            "The text looks like German, in which only names of values are read.",
        ),
    ],
)
def test_what_was_read_is_said_in_one_line(reading, said):
    assert reading.sentence() == said


def test_words_without_effect_are_said_of_clauses_that_are_read_in_part():
    shop = Path(__file__).parents[1] / "index" / "of_0_1_0"
    retriever = ComposedRetriever.from_pretrained(MODEL_OF_0_1_0).open_index(shop / "index")
    assert retriever.search(shop / "000000.jpg", "is yellow for a wedding", k=1).reading.unread == (
        "wedding",
    )
    german = retriever.search(shop / "000000.jpg", "ein rotes Kleid mit langen Ärmeln", k=1).reading
    assert german.requested == () and german.alike and "kleid" in german.unread
