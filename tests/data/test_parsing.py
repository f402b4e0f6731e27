"""The rule-based parser: phrases, words, denials, comparisons and owners."""

import pytest

from dqecir.data.composing import catalogue_benchmark
from dqecir.data.parsing import Parser
from dqecir.data.vocabulary import Vocabulary, shipped_vocabularies
from dqecir.evaluation.parsing_accuracy import parsing_accuracy

VALUES = {
    "color": ["red", "blue", "navy", "black", "white"],
    "sleeves": ["sleeveless", "short", "long"],
    "length": ["short", "knee", "long"],
    "pattern": ["plain", "striped"],
}
SHORT = {"sleeves": {"short": 0.9, "long": 0.1}, "color": {"navy": 1.0}}


@pytest.fixture(scope="module")
def parser():
    return Parser(shipped_vocabularies(VALUES), VALUES)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Is red and has long sleeves", {"color": {"red"}, "sleeves": {"long"}}),
        ("is dark blue", {"color": {"navy"}}),
        ("has longer sleeves", {"sleeves": {"long"}}),
        ("has shorter sleeves", {"sleeves": {"sleeveless"}}),
        (
            "is not red, with no sleeves",
            {"color": {"blue", "navy", "black", "white"}, "sleeves": {"sleeveless"}},
        ),
        ("similar but is knee length", {"length": {"knee"}}),
        # No phrase of any vocabulary:
        ("we would love the very same item with sleeves, long ones please, in red", {"color": {"red"}}),
        ("nothing that anybody knows", {}),
    ],
)
def test_what_a_text_asks_for(parser, text, wanted):
    found = parser.asked(text, SHORT)
    assert {column: set(values) for column, values in wanted.items()}.items() <= {
        column: set(values) for column, values in found.items()
    }.items()
    if not wanted:
        assert found == {}


def test_a_comparison_starts_from_what_the_reference_most_probably_shows(parser):
    lighter = parser.asked("is lighter", {"color": {"black": 0.4, "navy": 0.6}})
    assert lighter == {"color": frozenset({"red", "blue", "white"})}
    assert parser.asked("is lighter", {"color": {"white": 1.0}}) == {}


def test_two_mentions_of_a_column_are_intersected_unless_nothing_is_left(parser):
    assert parser.asked("is not red and is red", {})["color"]
    both = parser.asked("is not red and is not blue", {})
    assert both == {"color": frozenset({"navy", "black", "white"})}


def test_things_are_told_apart_by_what_the_reference_shows():
    values = {
        "figure": ["star", "heart"],
        "figure_colour": ["red", "blue"],
        "figure_count": ["1", "2"],
        "other": ["star", "heart", "none"],
        "other_colour": ["red", "blue"],
    }
    parser = Parser(shipped_vocabularies(values), values)
    stars = {"figure": {"star": 0.9, "heart": 0.1}, "other": {"heart": 0.9, "star": 0.1}}
    assert parser.asked("make the stars red", stars) == {"figure_colour": frozenset({"red"})}
    hearts = {"figure": {"heart": 0.9, "star": 0.1}, "other": {"star": 0.9, "heart": 0.1}}
    assert parser.asked("make the star red", hearts) == {"other_colour": frozenset({"red"})}


def test_a_column_that_no_vocabulary_knows_is_read_by_its_values():
    parser = Parser((), {"material": ["wool", "linen"]})
    assert parser.asked("is linen", {}) == {"material": frozenset({"linen"})}
    assert parser.asked("without wool please", {}) == {"material": frozenset({"linen"})}


def test_a_users_own_vocabulary_is_known():
    own = Vocabulary.model_validate(
        {
            "name": "material",
            "columns": {"material": {"values": {"wool": ["wool", "woollen"]}, "statements": ["in {value}"]}},
        }
    )
    parser = Parser([own], {"material": ["wool", "linen"]})
    assert parser.asked("in woollen", {}) == {"material": frozenset({"wool"})}


def test_every_wording_of_training_is_read_and_unseen_ones_less_often(garments):
    benchmark = catalogue_benchmark(garments, "train", seed=2, count=300, wording="evaluation")
    values = {column: sorted(set(row) - {"", "?"}) for column, row in garments.attributes.items()}
    accuracy = parsing_accuracy(Parser(shipped_vocabularies(values), values), benchmark)
    assert accuracy["seen"] == 100
    assert 50 < accuracy["unseen"] < 100
    assert accuracy["unseen"] < accuracy["all"] < accuracy["seen"]
