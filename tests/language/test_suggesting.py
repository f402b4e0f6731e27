"""Suggestions: each completion is understood, fits the reference, and is always the same."""

import pytest

from dqecir.language.parsing import Parser
from dqecir.language.suggesting import Suggester
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.synthetic.garment_vectors import GARMENT_ATTRIBUTES
from dqecir.synthetic.scene_vectors import SCENE_ATTRIBUTES

KNOWN = {"garment": "t-shirt", "color": "black", "pattern": "plain", "sleeves": "short", "neck": "round"}
VOCABULARIES = shipped_vocabularies(GARMENT_ATTRIBUTES)


@pytest.fixture(scope="module")
def suggester() -> Suggester:
    return Suggester(VOCABULARIES, GARMENT_ATTRIBUTES)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("is bl", "is blue"),
        ("Is  Bl", "is blue"),
        ("blu", "is blue"),
        ("long sl", "has long sleeves"),
        ("is blue and", "is blue and has long sleeves"),
        ("is blue and ", "is blue and has long sleeves"),
        ("is blue, has lo", "is blue, has long sleeves"),
        ("is blue", "is blue and has long sleeves"),
        ("is the same but is str", "is the same but is striped"),
    ],
)
def test_what_is_begun_is_completed(suggester, text, wanted):
    assert wanted in suggester.suggest(text, KNOWN, limit=30)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("is tops and t", "is tops and tees"),
        ("is red and is tops, bags and b", "is red and is tops, bags and belts"),
        ("is tops and tees", "is tops and tees and is red"),
        ("is red and is tops and", "is red and is tops and tees"),
    ],
)
def test_a_name_with_a_connecting_word_is_completed(text, wanted):
    found = Suggester((), {"kind": ["tops and tees", "tops, bags and belts"], "color": ["red"]}).suggest(text)
    assert wanted in found[:3]


@pytest.mark.parametrize("text", ["", "i", "has ", "is blue and ", "the neck"])
def test_what_is_suggested_is_read_by_the_parser(suggester, text):
    parser = Parser(VOCABULARIES, GARMENT_ATTRIBUTES)
    found = suggester.suggest(text, KNOWN, limit=50)
    assert len(found) > 5
    for words in found:
        assert all(clause.readings for clause in parser.clauses(words)), words


def test_columns_take_turns(suggester):
    parser = Parser(VOCABULARIES, GARMENT_ATTRIBUTES)
    columns = [next(iter(parser.asked(words, {}))) for words in suggester.suggest("", KNOWN, limit=8)]
    assert len(set(columns)) == 8
    assert columns[0] == "color"


def test_nothing_is_suggested_that_the_reference_has_or_cannot_become(suggester):
    every = suggester.suggest("", KNOWN, limit=10_000)
    assert "is black" not in every and "is a t-shirt" not in every
    assert "is not black" in every and "is not red" not in every
    assert "is lighter" in every and "is darker" not in every  # nothing is darker than black
    assert "is black" in suggester.suggest("", limit=10_000)


def test_a_price_that_the_reference_has_is_compared_with(suggester):
    known = KNOWN | {"price": "€ 20", "year": "unknown", "size": "38"}
    assert "is cheaper" in suggester.suggest("ch", known)
    assert suggester.suggest("is blue and is chea", known) == ["is blue and is cheaper"]
    assert not {text for text in suggester.suggest("is cheaper and ", known, 50) if "expens" in text}
    assert not {text for text in suggester.suggest("", known, 50) if "newer" in text}
    assert not {text for text in suggester.suggest("", KNOWN, 50) if "cheaper" in text}


def test_a_column_is_asked_of_once(suggester):
    found = suggester.suggest("is blue and ", KNOWN, limit=10_000)
    assert "is blue and is red" not in found
    assert len(found) > 100


def test_it_is_bounded_and_always_the_same(suggester):
    again = Suggester(VOCABULARIES, GARMENT_ATTRIBUTES)
    for text in ("", "is ", "the "):
        assert suggester.suggest(text, KNOWN) == again.suggest(text, KNOWN)
        assert len(suggester.suggest(text, KNOWN, limit=3)) == 3
    assert suggester.suggest("frobnitz", KNOWN) == []
    assert suggester.suggest("is ", KNOWN, limit=0) == []


def test_a_column_that_no_vocabulary_knows_is_suggested_too():
    suggester = Suggester(VOCABULARIES, {"color": ["red"], "brand": ["acme", ""]})
    assert suggester.suggest("is ac") == ["is acme", "the brand is acme"]


def test_things_that_are_not_in_the_picture_are_not_named():
    known = {"figure": "star", "figure_count": "2", "other": "heart"}
    suggester = Suggester(shipped_vocabularies(SCENE_ATTRIBUTES), SCENE_ATTRIBUTES)
    found = suggester.suggest("make the ", known, limit=400)
    assert "make the stars red" in found
    assert "make the heart red" in found
    assert not [words for words in found if "make the crosses" in words or "make the circles" in words]
