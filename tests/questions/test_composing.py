"""From a catalogue to triplets: all right answers, by cases worked by hand and by properties."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dqecir.data.catalogue import Catalogue
from dqecir.data.cells import UNKNOWN
from dqecir.data.triplets import join_benchmarks
from dqecir.errors import DataError
from dqecir.language.vocabulary import load_vocabulary, shipped_vocabularies
from dqecir.questions.answers import CodedAttributes, right_answers
from dqecir.questions.composing import catalogue_benchmark


def catalogue_of(attributes: dict[str, list[str]]) -> Catalogue:
    count = len(next(iter(attributes.values())))
    ids = tuple(f"{number}.jpg" for number in range(count))
    everything = np.arange(count)
    splits = dict.fromkeys(("train", "dev", "train_all", "val", "test"), everything)
    return Catalogue(
        Path("shop"), ids, tuple(map(Path, ids)), {k: tuple(v) for k, v in attributes.items()}, splits
    )


def answers(attributes: dict[str, list[str]], asked: dict[str, set[str]], reference: int = 0):
    coded = CodedAttributes.of(attributes)
    gallery = np.arange(coded.codes.shape[1])
    wanted = [{column: frozenset(values) for column, values in asked.items()}]
    ((right, undecided),) = right_answers(coded, gallery, np.array([reference]), wanted)
    return right.tolist(), undecided.tolist()


def test_mentioned_must_be_admissible_and_the_rest_must_equal_the_reference():
    table = {
        #           ref    right  wrong colour, wrong sleeves
        "color": ["red", "blue", "red", "blue"],
        "sleeves": ["long", "long", "long", "short"],
    }
    assert answers(table, {"color": {"blue"}}) == ([1], [])


def test_what_is_empty_on_either_side_is_not_compared():
    table = {"color": ["red", "blue", "blue"], "sleeves": ["long", "", "short"], "neck": ["", "v", "v"]}
    assert answers(table, {"color": {"blue"}}) == ([1], [])


def test_a_mentioned_attribute_that_does_not_apply_is_wrong():
    table = {"color": ["red", "red", "red"], "sleeves": ["long", "", "short"]}
    assert answers(table, {"sleeves": {"short"}}) == ([2], [])


def test_unknown_leaves_undecided_unless_already_wrong():
    table = {
        #          ref     ? asked  ? kept  ? kept, but wrong colour
        "color": ["red", UNKNOWN, "blue", "green"],
        "neck": ["v", "v", UNKNOWN, UNKNOWN],
    }
    assert answers(table, {"color": {"blue"}}) == ([], [1, 2])


def test_unknown_of_the_reference_is_not_compared():
    table = {"color": ["red", "blue", "blue"], "neck": [UNKNOWN, "v", "round"]}
    assert answers(table, {"color": {"blue"}}) == ([1, 2], [])


def test_a_comparison_admits_everything_beyond():
    table = {"length": ["short", "knee", "long", "short"]}
    assert answers(table, {"length": {"knee", "long"}}) == ([1, 2], [])


@pytest.fixture(scope="module")
def benchmark(garments):
    return catalogue_benchmark(
        garments, "train", seed=1, per_reference=3, wording="evaluation", gallery_column="garment"
    )


def test_the_target_is_right_and_the_reference_never(benchmark):
    assert len(benchmark.triplets) > 100
    for triplet in benchmark.triplets:
        assert triplet.target in triplet.relevant
        assert triplet.reference not in triplet.relevant
        assert set(triplet.relevant) <= set(benchmark.galleries[triplet.category].tolist())
        for column, values in triplet.asked.items():
            assert all(benchmark.attributes[column][image] in values for image in triplet.relevant)


def test_pairs_differ_in_what_is_asked_and_in_nothing_else(benchmark):
    for triplet in benchmark.triplets:
        changed = {
            column
            for column, values in benchmark.attributes.items()
            if "" not in (values[triplet.reference], values[triplet.target])
            and values[triplet.reference] != values[triplet.target]
        }
        assert changed <= set(triplet.asked)
        assert 1 <= len(triplet.asked) <= 3
        assert "garment" not in triplet.asked


def test_at_least_a_third_is_in_wordings_that_training_never_shows(garments, benchmark):
    unseen = [triplet.unseen_wording for triplet in benchmark.triplets]
    assert sum(unseen) >= len(unseen) / 3
    trained = catalogue_benchmark(garments, "train", seed=1, per_reference=3)
    assert not any(triplet.unseen_wording for triplet in trained.triplets)
    shown = {caption for triplet in trained.triplets for caption in triplet.captions}
    held_out = {c for triplet in benchmark.triplets if triplet.unseen_wording for c in triplet.captions}
    assert not shown & held_out


def test_everything_follows_from_the_seed(garments, benchmark):
    again = catalogue_benchmark(
        garments, "train", seed=1, per_reference=3, wording="evaluation", gallery_column="garment"
    )
    other = catalogue_benchmark(
        garments, "train", seed=2, per_reference=3, wording="evaluation", gallery_column="garment"
    )
    assert again.triplets == benchmark.triplets
    assert other.triplets != benchmark.triplets


def test_an_unknown_value_is_never_mentioned():
    shop = catalogue_of(
        {"color": ["red", "blue", UNKNOWN, "green"] * 4, "neck": ["v", "v", UNKNOWN, "round"] * 4}
    )
    asked = catalogue_benchmark(shop, "val", per_reference=4)
    for triplet in asked.triplets:
        assert not any(UNKNOWN in caption for caption in triplet.captions)
        assert UNKNOWN not in {value for values in triplet.asked.values() for value in values}


def test_an_attribute_that_no_vocabulary_knows_is_spoken_of_plainly():
    shop = catalogue_of({"maker": ["acme", "bolt"] * 3, "color": ["red"] * 6})
    captions = [c for t in catalogue_benchmark(shop, "val", per_reference=2).triplets for c in t.captions]
    assert captions
    assert all("acme" in caption or "bolt" in caption for caption in captions)


def test_pairs_stay_within_a_group_of_garments():
    shop = catalogue_of({"garment": ["shoes", "dress", "shirt", "hat"] * 3, "color": ["red", "blue"] * 6})
    kinds = shop.attributes["garment"]
    for triplet in catalogue_benchmark(shop, "val", per_reference=4).triplets:
        one, other = kinds[triplet.reference], kinds[triplet.target]
        assert one == other or {one, other} == {"dress", "shirt"}


def test_nothing_to_ask_is_an_error():
    with pytest.raises(DataError, match="holds no two images"):
        catalogue_benchmark(catalogue_of({"color": ["red"] * 3}), "val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "vla"}, "did you mean 'val'"),
        ({"wording": "test"}, "the wording 'test' is unknown"),
        ({"drawing": "even"}, "the drawing 'even' is unknown"),
        ({"gallery_column": "colour"}, "did you mean 'color'"),
        ({"max_changes": 0}, "max_changes is 0: set it to 1 or more"),
        ({"change_weights": (1.0, 1.0)}, "2 change weights do not fit max_changes = 3"),
        ({"count": 0}, "0 questions is empty"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(options, message):
    shop = catalogue_of({"color": ["red", "blue", "green"]})
    with pytest.raises(DataError, match=message):
        catalogue_benchmark(shop, **({"split": "val"} | options))


def test_a_split_without_the_gallery_column_is_refused():
    shop = catalogue_of({"color": ["red", "blue"], "garment": ["", UNKNOWN]})
    with pytest.raises(DataError, match="'garment' has no value in this split"):
        catalogue_benchmark(shop, "val", gallery_column="garment")


def test_a_user_adds_an_attribute_with_a_file(tmp_path):
    path = tmp_path / "material.yaml"
    path.write_text(
        "name: material\ncolumns: {material: {values: [wool], statements: ['made of {value}']}}\n"
    )
    known = [*shipped_vocabularies(), load_vocabulary(path)]
    shop = catalogue_of({"material": ["wool", "silk"] * 3})
    asked = catalogue_benchmark(shop, "val", per_reference=3, vocabularies=known, drawing="natural")
    assert {frozenset(triplet.asked) for triplet in asked.triplets} == {frozenset({"material"})}
    assert any("made of silk" in caption for triplet in asked.triplets for caption in triplet.captions)


SETS = ("a", "a", "a", "b", "b", "b", "", "")
IN_SETS = replace(
    catalogue_of(
        {
            "color": ["red", "blue", "green", "red", "blue", "green", "blue", "red"],
            "sleeves": ["long", "long", "long", "long", "long", "short", "long", "short"],
        }
    ),
    sets=SETS,
)


def test_pairs_stay_within_their_set_and_answers_do_not():
    asked = catalogue_benchmark(IN_SETS, "val", per_reference=2)
    assert 8 <= len(asked.triplets) <= 12
    for triplet in asked.triplets:
        assert SETS[triplet.reference] == SETS[triplet.target] != ""
        near = {i for i, name in enumerate(SETS) if name == SETS[triplet.reference]}
        assert triplet.subset == tuple(sorted(near - {triplet.reference}))
    elsewhere = [{SETS[i] for i in t.relevant} - {SETS[t.reference]} for t in asked.triplets]
    assert any("" in names for names in elsewhere)
    assert any(names & {"a", "b"} for names in elsewhere)


def test_pairs_need_not_stay_within_their_set():
    asked = catalogue_benchmark(IN_SETS, "val", per_reference=5, within_sets=False)
    for triplet in asked.triplets:
        own = SETS[triplet.reference]
        assert bool(triplet.subset) == (own != "" and own == SETS[triplet.target])
    assert {bool(triplet.subset) for triplet in asked.triplets} == {True, False}


def test_a_subset_keeps_to_the_gallery():
    asked = catalogue_benchmark(IN_SETS, "val", per_reference=2, gallery_column="sleeves")
    assert {triplet.category for triplet in asked.triplets} == {"long"}
    assert {triplet.subset for triplet in asked.triplets if triplet.reference == 3} == {(4,)}


def test_sets_are_asked_for_in_vain():
    shop = replace(IN_SETS, sets=None)
    with pytest.raises(DataError, match="no column named set"):
        catalogue_benchmark(shop, "val", within_sets=True)
    assert all(triplet.subset == () for triplet in catalogue_benchmark(shop, "val").triplets)
    alone = replace(IN_SETS, sets=tuple("abcdefgh"))
    with pytest.raises(DataError, match="holds no set with two images"):
        catalogue_benchmark(alone, "val")


def test_joined_benchmarks_keep_their_questions(benchmark, garments):
    other = catalogue_benchmark(garments, "val", seed=5, per_reference=2, name="second")
    joined = join_benchmarks([benchmark, other])
    assert len(joined.triplets) == len(benchmark.triplets) + len(other.triplets)
    start = len(benchmark.image_ids)
    moved, original = joined.triplets[len(benchmark.triplets)], other.triplets[0]
    assert moved.target == original.target + start
    assert moved.relevant == tuple(image + start for image in original.relevant)
    assert joined.image_paths[moved.target] == other.image_paths[original.target]


def test_a_question_is_not_paid_for_with_a_look_at_every_image():
    rng = np.random.default_rng(0)
    sizes = (12, 5, 3, 5, 3, 3, 2)
    table = {f"c{n}": rng.integers(0, size, 12_000).astype(str).tolist() for n, size in enumerate(sizes)}
    shop, calls = catalogue_of(table), itertools.count()
    # Functions called and left, those of C among them: no machine changes their number.
    sys.setprofile(lambda *_: next(calls))
    try:
        drawn = catalogue_benchmark(shop, "train", count=3_000)
    finally:
        sys.setprofile(None)
    assert len(drawn.triplets) == 3_000
    assert next(calls) < 3_000 * 2_000


def test_a_question_of_products_has_all_views_of_every_right_product():
    table = {
        "color": ["red", "red", "blue", "blue", "blue", "green", UNKNOWN],
        "sleeves": ["long"] * 7,
    }
    products = ("a", "a", "a", "b", "c", "b", "d")
    catalogue = replace(catalogue_of(table), products=products)
    benchmark = catalogue_benchmark(catalogue, "val", count=60, max_changes=1)
    assert benchmark.products == (0, 0, 0, 1, 2, 1, 3)
    for triplet in benchmark.triplets:
        assert products[triplet.reference] != products[triplet.target]
    found = {t.relevant for t in benchmark.triplets if t.reference == 0 and t.asked.get("color") == {"blue"}}
    # The reference's own blue view is right but not ranked; the green view is of a right product.
    assert found == {(2, 3, 4, 5)}
    assert {t.ignored for t in benchmark.triplets} == {(6,)}
    assert len(catalogue_benchmark(catalogue, "val", wording="evaluation", max_changes=1).triplets) == 4


def test_pictures_that_differ_in_nothing_else_are_no_pair():
    catalogue = replace(catalogue_of({"color": ["red", "red", "red"]}), products=("a", "a", "a"))
    with pytest.raises(DataError, match="differ in 1 to 1 attributes"):
        catalogue_benchmark(catalogue, "val", max_changes=1)


def test_a_product_of_many_pictures_is_no_more_often_a_reference_than_others():
    count = 40
    colors = ["red"] * count + ["blue", "green", "white"]
    products = ("large",) * count + ("b", "c", "d")
    catalogue = replace(catalogue_of({"color": colors}), products=products)
    benchmark = catalogue_benchmark(catalogue, "val", count=8, max_changes=1)
    references = [products[triplet.reference] for triplet in benchmark.triplets]
    assert [references.count(name) for name in ("large", "b", "c", "d")] == [2, 2, 2, 2]
    # All of its views have their turn.
    many = catalogue_benchmark(catalogue, "val", count=500, max_changes=1)
    assert {triplet.reference for triplet in many.triplets} == set(range(count + 3))


def test_several_values_of_a_product_are_not_compared():
    table = {"color": ["red", "blue", "red, blue"], "price": ["5", "6", "7"]}
    catalogue = replace(
        catalogue_of(table),
        several={"color": {2: ("red", "blue")}, "price": {2: ("7", "9")}},
        roles={"color": "attribute", "price": "price"},
    )
    assert catalogue.comparable == {"color": ("red", "blue", UNKNOWN), "price": ("5", "6", "7")}


def test_products_stay_apart_where_benchmarks_are_joined():
    table = {"color": ["red", "blue", "red"]}
    viewed = catalogue_benchmark(
        replace(catalogue_of(table), products=("a", "b", "a")), "val", max_changes=1, name="v"
    )
    plain = catalogue_benchmark(catalogue_of(table), "val", max_changes=1, name="p")
    assert join_benchmarks([plain, viewed, viewed]).products == (0, 1, 2, 3, 4, 3, 5, 6, 5)
    assert join_benchmarks([plain, plain]).products == ()
    assert viewed.checksum != plain.checksum
