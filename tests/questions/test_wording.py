"""Captions of changes: every change is mentioned, and the right answers fit the words."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.errors import DataError
from dqecir.language.vocabulary import load_vocabulary, shipped_vocabularies
from dqecir.questions.wording import CaptionGenerator, Change
from dqecir.synthetic.garment_vectors import GARMENT_ATTRIBUTES
from dqecir.synthetic.scene_vectors import SCENE_ATTRIBUTES

VALUES = {**GARMENT_ATTRIBUTES, "maker": ("acme", "bolt", "core_line")}
WORDING = CaptionGenerator(shipped_vocabularies(), VALUES)


def said(change: Change, held_out: bool = False) -> dict[str, set[frozenset[str]]]:
    """Return what a few hundred draws say about a change: caption -> requested values."""
    found: dict[str, set[frozenset[str]]] = {}
    for seed in range(400):
        worded = WORDING.describe([change], random.Random(seed), held_out)
        for caption in worded.captions:
            found.setdefault(caption, set()).add(worded.asked[change.column])
    return found


def asked_by_both(first: str, second: str, change: Change) -> frozenset[str]:
    for seed in range(30_000):
        worded = WORDING.describe([change], random.Random(seed), held_out=False)
        if worded.captions == (first, second):
            return worded.asked[change.column]
    raise AssertionError(f"{first!r} and {second!r} were never drawn together")


def test_a_comparison_asks_for_everything_beyond_the_reference():
    up = Change("sleeves", "sleeveless", "short")
    assert asked_by_both("longer sleeves", "has longer sleeves", up) == {"short", "long"}
    down = Change("fit", "loose", "regular")
    assert asked_by_both("is tighter", "has a tighter fit", down) == {"regular", "tight"}


def test_a_denial_asks_for_every_other_value():
    change = Change("sleeves", "long", "short")
    assert asked_by_both("the sleeves are not long", "has no long sleeves", change) == {"sleeveless", "short"}


def test_two_mentions_of_one_attribute_are_intersected():
    change = Change("sleeves", "sleeveless", "short")
    assert asked_by_both("longer sleeves", "short sleeves", change) == {"short"}


def test_colours_of_one_step_are_not_compared():
    texts = " ".join(said(Change("color", "blue", "red")))
    assert "darker" not in texts
    assert "lighter" not in texts
    assert "is lighter" in said(Change("color", "black", "white"))


def test_print_has_phrases_of_its_own():
    found = said(Change("print", "yes", "no"))
    assert {"without a print", "no logo"} <= set(found)
    assert {values for asked in found.values() for values in asked} == {frozenset({"no"})}


def test_garments_are_named_with_their_articles_and_never_denied():
    found = " | ".join(said(Change("garment", "top", "shirt")))
    assert "is a shirt" in found
    assert " not " not in found


def test_a_column_that_no_vocabulary_knows():
    found = said(Change("maker", "acme", "core_line"))
    assert "maker is core line" in found
    assert "the maker is not acme" in found


def test_an_alias_and_another_case_are_understood():
    wording = CaptionGenerator(shipped_vocabularies(), {"Colour": ("Red", "Black", "White")})
    drawn = [
        wording.describe([Change("Colour", "Black", "White")], random.Random(seed), False)
        for seed in range(99)
    ]
    assert any("is white" in worded.captions for worded in drawn)
    compared = next(worded for worded in drawn if all("lighter" in caption for caption in worded.captions))
    assert compared.asked == {"Colour": frozenset({"Red", "White"})}


def test_articles_fit():
    texts = " | ".join(said(Change("color", "red", "orange")))
    assert "is an orange one" in texts
    assert "a orange" not in texts


CHANGES = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True).flatmap(
    lambda columns: st.tuples(
        *(
            st.permutations(VALUES[column]).map(lambda v, c=column: Change(c, v[0], v[1]))
            for column in columns
        )
    )
)


@given(CHANGES, st.integers(0, 10**6), st.booleans())
@settings(max_examples=300)
def test_every_change_is_asked_for_and_the_new_value_is_right(changes, seed, held_out):
    worded = WORDING.describe(changes, random.Random(seed), held_out)
    assert set(worded.asked) == {change.column for change in changes}
    for change in changes:
        admissible = worded.asked[change.column]
        assert change.after in admissible
        assert change.before not in admissible
        assert admissible <= set(VALUES[change.column])
    assert worded.unseen == held_out
    assert all(caption and "{" not in caption for caption in worded.captions)
    assert worded == WORDING.describe(changes, random.Random(seed), held_out)


def test_without_held_out_phrases_nothing_counts_as_unseen(tmp_path):
    path = tmp_path / "material.yaml"
    path.write_text(
        "name: material\ncolumns:\n  material:\n    values: [wool, silk]\n"
        "    statements: ['made of {value}']\n"
    )
    material = load_vocabulary(path)
    assert material.lexicon == {"wool", "silk"}
    wording = CaptionGenerator([*shipped_vocabularies(), material], {"material": ("wool", "silk")})
    worded = wording.describe([Change("material", "wool", "silk")], random.Random(1), held_out=True)
    assert all("made of silk" in caption for caption in worded.captions)
    assert not worded.unseen


def test_one_column_has_one_vocabulary():
    colour = load_vocabulary("colour")
    with pytest.raises(DataError, match="the vocabularies colour and colour both know the column 'color'"):
        CaptionGenerator([colour, colour], {"color": ("red", "blue")})


def test_a_portrait_states_every_attribute():
    text = WORDING.portray({"color": "red", "maker": "acme"}, random.Random(0))
    assert "red" in text
    assert "acme" in text


SCENES = CaptionGenerator(shipped_vocabularies(), SCENE_ATTRIBUTES)
STARS = {"figure": "star", "figure_count": "3", "other": "circle", "other_colour": "red"}


def told(change: Change, reference: dict[str, str] | None = None) -> str:
    """Return what a few hundred draws say about a change in a scene."""
    found = set()
    for seed in range(300):
        found.update(SCENES.describe([change], random.Random(seed), False, reference).captions)
    return " | ".join(sorted(found))


def test_things_of_a_scene_are_told_apart_by_name():
    assert "make the stars blue" in told(Change("figure_colour", "red", "blue"), STARS)
    assert "circle" not in told(Change("figure_colour", "red", "blue"), STARS)
    assert "make the circle blue" in told(Change("other_colour", "red", "blue"), STARS)
    assert "star" not in told(Change("other_colour", "red", "blue"), STARS)


def test_one_thing_is_singular_and_several_are_plural():
    one = STARS | {"figure_count": "1"}
    assert "make the star blue" in told(Change("figure_colour", "red", "blue"), one)
    assert "stars" not in told(Change("figure_colour", "red", "blue"), one)
    assert "turn the star into a heart" in told(Change("figure", "star", "heart"), one)
    assert "turn the stars into hearts" in told(Change("figure", "star", "heart"), STARS)
    # A number is said of what will be there, and "more" and "fewer" of several.
    more = told(Change("figure_count", "1", "2"), STARS)
    assert "two stars" in more and "more stars" in more and "two star " not in more
    fewer = told(Change("figure_count", "3", "1"), STARS)
    assert "one star" in fewer and "one stars" not in fewer and "fewer stars" in fewer


def test_a_thing_is_named_as_the_reference_shows_it_even_where_it_changes():
    changes = [Change("figure", "star", "heart"), Change("figure_colour", "red", "blue")]
    for seed in range(200):
        captions = SCENES.describe(changes, random.Random(seed), True, STARS | {"figure": "heart"}).captions
        assert not any("hearts should be blue" in caption for caption in captions)


def test_what_is_not_there_is_not_named():
    alone = STARS | {"other": "none", "other_colour": ""}
    found = told(Change("other", "none", "heart"), alone)
    assert "also a heart" in found
    assert "swap" not in found and "none" not in found
    gone = told(Change("other", "circle", "none"), STARS)
    assert "remove the circle" in gone or "remove the disc" in gone
    assert "nothing else" in gone


def test_a_thing_that_is_not_known_has_a_name_too():
    assert "make the main shapes blue" in told(Change("figure_colour", "red", "blue"))
    text = SCENES.portray({"figure_colour": "blue"}, random.Random(1))
    assert "blue" in text and "main shapes" in text


def test_a_portrait_of_a_scene_turns_nothing_into_itself():
    for seed in range(100):
        text = SCENES.portray({"figure": "star", "figure_count": "1", "other": "none"}, random.Random(seed))
        assert "turn" not in text and "swap" not in text and "replace" not in text
        assert "a star" in text and "one star" in text


@given(
    st.lists(st.sampled_from(sorted(SCENE_ATTRIBUTES)), min_size=1, max_size=3, unique=True),
    st.integers(0, 10**6),
    st.booleans(),
)
@settings(max_examples=200)
def test_every_change_of_a_scene_is_asked_for(columns, seed, held_out):
    rng = random.Random(seed)
    changes = [Change(column, *rng.sample(SCENE_ATTRIBUTES[column], 2)) for column in columns]
    worded = SCENES.describe(changes, rng, held_out, STARS)
    assert set(worded.asked) == set(columns)
    for change in changes:
        assert change.after in worded.asked[change.column]
        assert change.before not in worded.asked[change.column]
    assert worded.unseen == held_out
    assert all(caption and "{" not in caption for caption in worded.captions)
