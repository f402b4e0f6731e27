"""The rule-based parser: phrases, words, denials, comparisons and owners."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqecir.data.cells import values_of
from dqecir.evaluation.parsing_accuracy import parsing_accuracy
from dqecir.language.parsing import Parser
from dqecir.language.vocabulary import Vocabulary, shipped_vocabularies
from dqecir.questions.composing import catalogue_benchmark

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
        (
            "we would love the very same item with sleeves, long ones please, in red",
            {"color": {"red"}, "sleeves": {"long"}},
        ),
        ("nothing that anybody knows", {}),
    ],
)
def test_what_a_text_asks_for(parser, text, wanted):
    found = parser.asked(text, SHORT)
    assert {column: set(values) for column, values in found.items()} == wanted


def test_a_comparison_starts_from_what_the_reference_most_probably_shows(parser):
    lighter = parser.asked("is lighter", {"color": {"black": 0.4, "navy": 0.6}})
    assert lighter == {"color": frozenset({"red", "blue", "white"})}
    assert parser.asked("is lighter", {"color": {"white": 1.0}}) == {}


def test_two_mentions_of_a_column_are_intersected_unless_nothing_is_left(parser):
    assert parser.asked("is not red and is red", {}) == {"color": frozenset({"red"})}
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


JOINED = {
    "kind": ["Tops", "Loungewear and Nightwear", "Bags & Luggage"],
    "color": ["red", "black", "white", "Black and White"],
    "brand": ["Puma", "U.S. Polo", "Red, Hot and Blue"],
    "size": ["2", "2.5", "Plus Size"],
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("is loungewear and nightwear", {"kind": "Loungewear and Nightwear"}),
        ("is loungewear and nightwear, and is red", {"kind": "Loungewear and Nightwear", "color": "red"}),
        ("is red, hot and blue and is black", {"brand": "Red, Hot and Blue", "color": "black"}),
        ("the kind should be loungewear and nightwear", {"kind": "Loungewear and Nightwear"}),
        (
            "we want bags & luggage, in black and white please",
            {"kind": "Bags & Luggage", "color": "Black and White"},
        ),
        ("the brand should be U.S. Polo and the color red", {"brand": "U.S. Polo", "color": "red"}),
        ("the size should be 2.5", {"size": "2.5"}),
        ("I want tops in plus size", {"kind": "Tops", "size": "Plus Size"}),
        ("is red. is tops", {"color": "red", "kind": "Tops"}),
    ],
)
def test_a_name_with_a_connecting_word_or_a_comma_is_one_value(text, wanted):
    found = Parser(shipped_vocabularies(JOINED), JOINED).asked(text, {})
    assert found == {column: frozenset({value}) for column, value in wanted.items()}


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
    values = values_of(garments.attributes)
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
    ("same thing except in black", {"color": {"black"}}),
    ("lose the sleeves", {"sleeves": {"sleeveless"}}),
    ("get rid of the logo", {"print": {"no"}}),
]
"""Wordings that are in no vocabulary."""


@pytest.mark.parametrize(("text", "wanted"), STRANGE)
def test_strange_wordings_are_read(text, wanted):
    found = Parser(shipped_vocabularies(ALL), ALL).asked(text, GREY)
    assert {column: set(values) for column, values in found.items()} == wanted


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


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("neither red nor blue", {"color": set(ALL["color"]) - {"red", "blue"}}),
        ("no stripes no print", {"pattern": set(ALL["pattern"]) - {"striped"}, "print": {"no"}}),
        ("remove the print and the collar", {"print": {"no"}, "neck": {"round", "v", "hood"}}),
        ("remove the print and make it red", {"print": {"no"}, "color": {"red"}}),
        ("no print and long sleeves", {"print": {"no"}, "sleeves": {"long"}}),
    ],
)
def test_denials_of_several_things_deny_each(text, wanted):
    found = Parser(shipped_vocabularies(ALL), ALL).asked(text, GREY)
    assert {column: set(values) for column, values in found.items()} == wanted


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
    assert set(parser.asked("has a darker red", {})) == {"color"}
    found = parser.asked("anything but red stripes", {})
    assert found
    assert all(value not in values for column, values in found.items() for value in ("red", "striped"))


FREE = {
    "what is left is no wish": [
        ("swap the shirt for a hoodie", {"garment": {"hoodie"}}),
        ("trade those long sleeves for short ones", {"sleeves": {"short"}}),
        ("I'd take blue over grey any day", {"color": {"blue"}}),
        ("i prefer green to red", {"color": {"green"}}),
        ("go from checks to stripes", {"pattern": {"striped"}}),
        ("not a skirt but a dress", {"garment": {"dress"}}),
        ("this one is red and I need it white", {"color": {"white"}}),
        ("the sleeves are short, I want them long", {"sleeves": {"long"}}),
        ("instead of the collar I'd like a hood", {"neck": {"hood"}}),
        ("grey is boring, yellow please", {"color": {"yellow"}}),
        ("red doesn't suit me, blue does", {"color": {"blue"}}),
        ("why a shirt? show me a t-shirt", {"garment": {"t-shirt"}}),
        ("tired of the stripes", {"pattern": set(ALL["pattern"]) - {"striped"}}),
    ],
    "presence and absence": [
        ("give me one that has a print", {"print": {"yes"}}),
        ("minus the logo", {"print": {"no"}}),
        ("nothing printed on it", {"print": {"no"}}),
        ("this is missing a hood", {"neck": {"hood"}}),
        ("bare arms please", {"sleeves": {"sleeveless"}}),
        ("take the sleeves off", {"sleeves": {"sleeveless"}}),
        ("the print has to go", {"print": {"no"}}),
        ("no pattern", {"pattern": {"plain"}}),
        ("add a pattern", {"pattern": set(ALL["pattern"]) - {"plain"}}),
        ("print-free", {"print": {"no"}}),
    ],
    "openings and politeness ask for nothing": [
        ("Hi! could you maybe find the same thing in navy? thanks", {"color": {"navy"}}),
        ("I really like this, just not so dark", {"color": {"white", "yellow"}}),
        ("something like the picture, only with a collar", {"neck": {"collar"}}),
        ("keep the short sleeves, make it red", {"color": {"red"}}),
        ("love the red, but in white", {"color": {"white"}}),
        ("the same dress, dotted", {"pattern": {"dotted"}}),
        ("no worries if not, green would do", {"color": {"green"}}),
    ],
    "comparisons": [
        ("can you make the sleeves longer?", {"sleeves": {"long"}}),
        ("the sleeves are too short", {"sleeves": {"long"}}),
        ("it's not long enough", {"length": {"long"}}),
        ("it isn't red enough", {"color": {"red"}}),
        ("a little less long", {"length": {"short"}}),
    ],
    "several changes, and words of several columns": [
        ("a long dress with short sleeves", {"length": {"long"}, "sleeves": {"short"}, "garment": {"dress"}}),
        ("red + no print", {"color": {"red"}, "print": {"no"}}),
        ("hem: long, sleeves: short", {"length": {"long"}, "sleeves": {"short"}}),
        ("long sleeves, not short", {"sleeves": {"long"}}),
        ("red or blue", {"color": {"red", "blue"}}),
    ],
    "spellings, endings, slips": [
        ("in gray", {"color": {"grey"}}),
        ("knee-length", {"length": {"knee"}}),
        ("make it stripey", {"pattern": {"striped"}}),
        ("a yelow one", {"color": {"yellow"}}),
        ("show me hoodies", {"garment": {"hoodie"}}),
        ("w/o a print, pls", {"print": {"no"}}),
        ("emerald", {"color": {"green"}}),
        ("a dollar mellow drss", {}),
    ],
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [case for cases in FREE.values() for case in cases],
    ids=lambda case: case[:40] if isinstance(case, str) else "",
)
def test_what_people_write_is_read(text, wanted):
    found = Parser(shipped_vocabularies(ALL), ALL).asked(text, GREY)
    assert {column: set(values) for column, values in found.items()} == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "a white dress with red dots",
            {"color": {"white"}, "pattern_color": {"red"}, "pattern": {"dotted"}},
        ),
        ("the pattern is red here, I'd want that blue", {"pattern_color": {"blue"}}),
        ("make the pattern red, and the cloth white", {"pattern_color": {"red"}, "color": {"white"}}),
    ],
)
def test_a_colour_is_that_of_what_it_stands_by(text, wanted):
    values = {"color": ALL["color"], "pattern_color": ALL["color"], "pattern": ALL["pattern"]}
    found = Parser(shipped_vocabularies(values), values).asked(text, {})
    assert {column: set(values) for column, values in found.items() if column in wanted} == wanted


OWN = {
    "material": ["faux leather", "wool", "linen"],
    "pockets": ["yes", "no"],
    "zip_colour": ["gold", "silver"],
    "buttons": ["2", "3"],
    "heel": ["flat", "high"],
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("linen rather than wool, please", {"material": {"linen"}}),
        ("the same in pleather", {"material": {"faux leather"}}),
        ("not woolly, get me linen", {"material": {"linen"}}),
        ("one without pockets", {"pockets": {"no"}}),
        ("the zip should be golden", {"zip_colour": {"gold"}}),
        ("with 3 buttons instead of 2", {"buttons": {"3"}}),
        ("this is no use to me, one of my friends has it", {}),
        ("no heel", {"heel": {"flat"}}),
    ],
)
def test_columns_that_no_vocabulary_knows_are_read_in_free_words(text, wanted):
    found = Parser((), OWN).asked(text, {"material": {"wool": 1.0}})
    assert {column: set(values) for column, values in found.items()} == wanted


STEADY = Parser(shipped_vocabularies(VALUES), VALUES)


@given(
    st.lists(st.sampled_from([*" ,.:;!?-+'", "not ", "red ", "long ", "the ", "solid ", "or ", "too "])).map(
        "".join
    )
)
def test_no_text_is_too_strange_to_be_read(text):
    for values in STEADY.asked(text, SHORT).values():
        assert values
