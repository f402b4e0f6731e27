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


def test_every_wording_of_training_is_read_and_unseen_ones_mostly(garments):
    benchmark = catalogue_benchmark(garments, "train", seed=2, count=300, wording="evaluation")
    values = {column: sorted(set(row) - {"", "?"}) for column, row in garments.attributes.items()}
    accuracy = parsing_accuracy(Parser(shipped_vocabularies(values), values), benchmark)
    assert accuracy["seen"] == 100
    assert accuracy["unseen"] > 90


ALL = {
    "color": ["red", "blue", "navy", "black", "white", "green", "grey", "yellow"],
    "sleeves": ["sleeveless", "short", "long"],
    "length": ["short", "knee", "long"],
    "pattern": ["plain", "striped", "checked", "dotted", "floral"],
    "print": ["yes", "no"],
    "neck": ["round", "v", "collar", "hood"],
    "garment": ["dress", "shirt", "t-shirt", "skirt", "pants", "hoodie"],
}
GREY = {"color": {"grey": 1.0}, "sleeves": {"short": 1.0}, "length": {"knee": 1.0}}
STRANGE = [
    ("could i get this in green please", {"color": {"green"}}),
    ("looking for a blue version", {"color": {"blue"}}),
    ("anything except red", {"color": set(ALL["color"]) - {"red"}}),
    ("the colour must be navy blue", {"color": {"navy"}}),
    ("i do not like the red", {"color": set(ALL["color"]) - {"red"}}),
    ("a bit darker please", {"color": {"black", "navy", "blue", "red", "green"}}),
    ("its sleeves ought to be long", {"sleeves": {"long"}}),
    ("long sleeves would be nicer", {"sleeves": {"long"}}),
    ("the sleeves could be longer", {"sleeves": {"long"}}),
    ("hem down to the knee", {"length": {"knee"}}),
    ("cut it shorter", {"length": {"short"}}),
    ("must have stripes", {"pattern": {"striped"}}),
    ("covered with flowers", {"pattern": {"floral"}}),
    ("put a logo on the chest", {"print": {"yes"}}),
    ("i would prefer a skirt", {"garment": {"skirt"}}),
    ("a hoodie is what i need", {"garment": {"hoodie"}}),
    ("trousers in place of this", {"garment": {"pants"}}),
    ("has to have a hood", {"neck": {"hood"}}),
    ("the neckline ought to be v-shaped", {"neck": {"v"}}),
    ("a yellow one, with checks", {"color": {"yellow"}, "pattern": {"checked"}}),
    ("no dots please and a collar", {"pattern": set(ALL["pattern"]) - {"dotted"}, "neck": {"collar"}}),
    # Ways to deny that the rules do not know:
    ("same thing except in black", {"color": {"black"}}),
    ("lose the sleeves", {"sleeves": {"sleeveless"}}),
    ("get rid of the logo", {"print": {"no"}}),
]
"""Wordings that are in no vocabulary, written after the rules and without a change to them."""


def test_most_strange_wordings_are_read():
    parser = Parser(shipped_vocabularies(ALL), ALL)
    right = [
        {column: set(values) for column, values in parser.asked(text, GREY).items()} == wanted
        for text, wanted in STRANGE
    ]
    assert sum(right) >= 21  # of 24


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a skirt rather than this", {"skirt"}),
        ("a skirt instead of the dress", {"skirt"}),
        ("surely not a skirt", set(ALL["garment"]) - {"skirt"}),
    ],
)
def test_a_denial_denies_what_follows_it(text, wanted):
    assert set(Parser(shipped_vocabularies(ALL), ALL).asked(text, {})["garment"]) == wanted


def test_two_denials_affirm():
    parser = Parser(shipped_vocabularies(ALL), ALL)
    assert parser.asked("it should no longer be without a print", {}) == {"print": frozenset({"yes"})}
    assert parser.asked("it should be without a print", {}) == {"print": frozenset({"no"})}


def test_no_longer_compares_nothing():
    assert Parser(shipped_vocabularies(ALL), ALL).asked("clearly no longer grey", GREY) == {
        "color": frozenset(ALL["color"]) - {"grey"}
    }


def test_what_is_replaced_is_told_from_what_replaces_it():
    values = {"figure": ["star", "heart", "cross"], "figure_count": ["1", "2"]}
    parser = Parser(shipped_vocabularies(values), values)
    stars = {"figure": {"star": 1.0}}
    for text in ("make hearts of the stars", "we want hearts in place of the stars"):
        assert parser.asked(text, stars) == {"figure": frozenset({"heart"})}
    assert parser.asked("it is like this one", stars) == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("is white with short sleeves", {"color": {"white"}, "sleeves": {"short"}}),
        ("a red striped dress", {"color": {"red"}, "pattern": {"striped"}, "garment": {"dress"}}),
        (
            "in blue with long sleeves and with a v neck",
            {"color": {"blue"}, "sleeves": {"long"}, "neck": {"v"}},
        ),
        ("is solid white now", {"color": {"white"}}),
        ("with a white pattern", {"pattern_color": {"white"}}),
    ],
)
def test_a_clause_may_name_values_of_several_columns(text, wanted):
    values = {
        **VALUES,
        "garment": ["dress", "shirt"],
        "neck": ["round", "v"],
        "pattern_color": ["white", "red"],
    }
    found = Parser(shipped_vocabularies(values), values).asked(text, {})
    assert {column: set(values) for column, values in found.items()} == wanted


def test_several_values_are_no_reading_of_a_denial_or_a_comparison(parser):
    assert set(parser.asked("has a darker red", {})) <= {"color"}
    found = parser.asked("anything but red stripes", {})
    assert all(value not in values for column, values in found.items() for value in ("red", "striped"))
