"""Procedural garments: valid vectors, families, splits, and the same bytes for the same seed."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqecir.data.catalogue import check_catalogue, read_catalogue
from dqecir.errors import DataError
from dqecir.synthetic.attribute_vectors import edits_between
from dqecir.synthetic.garment_drawing import PAINTS, render_garment
from dqecir.synthetic.garment_vectors import (
    GARMENT_ATTRIBUTES,
    MEMBERS,
    check_vector,
    edited,
    garment_families,
    random_vector,
)
from dqecir.synthetic.garments import GARMENTS
from tests.synthetic.folders import folder_bytes

PLAIN = {
    "garment": "shirt",
    "color": "white",
    "pattern": "plain",
    "pattern_color": "",
    "sleeves": "short",
    "neck": "round",
    "length": "knee",
    "fit": "regular",
    "print": "no",
}
STRIPED = PLAIN | {"pattern": "striped", "pattern_color": "red"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels(vector: dict[str, str], size: int = 64, seed: int = 0) -> np.ndarray:
    return np.asarray(render_garment(vector, rng(seed), size), dtype=np.float64)


def test_random_vectors_are_valid_and_reach_every_value():
    draw = rng()
    vectors = [random_vector(garment, draw) for garment in GARMENT_ATTRIBUTES["garment"] for _ in range(150)]
    for vector in vectors:
        check_vector(vector)
        assert list(vector) == list(GARMENT_ATTRIBUTES)
    for column, values in GARMENT_ATTRIBUTES.items():
        assert {vector[column] for vector in vectors} - {""} == set(values)


def test_an_edit_changes_exactly_as_many_attributes_as_asked():
    draw = rng()
    for edits in (1, 2, 3):
        for _ in range(100):
            vector = random_vector("dress", draw)
            child = edited(vector, edits, draw)
            check_vector(child)
            assert child["garment"] == "dress"
            assert edits_between(vector, child) == edits_between(child, vector) == edits


def test_a_pattern_colour_that_comes_with_its_pattern_is_no_edit_of_its_own():
    assert edits_between(PLAIN, STRIPED) == 1
    assert edits_between(STRIPED, STRIPED | {"pattern_color": "blue"}) == 1
    assert edits_between(PLAIN, STRIPED | {"color": "black"}) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "blak"}, "did you mean 'black'"),
        ({"pattern_color": "red"}, "for the pattern plain, and only for it"),
        ({"pattern": "dotted"}, "for the pattern plain, and only for it"),
        ({"pattern": "dotted", "pattern_color": "white"}, "both 'white'"),
    ],
)
def test_invalid_vectors_are_refused(change: dict[str, str], message: str):
    with pytest.raises(DataError, match=message):
        render_garment(PLAIN | change, rng())


def test_a_missing_attribute_is_refused():
    with pytest.raises(DataError, match="'neck'"):
        check_vector({column: value for column, value in PLAIN.items() if column != "neck"})


def test_families_hold_distinct_near_neighbours():
    items = garment_families(600, "top", rng())
    assert len(items) == 600
    families = defaultdict(list)
    for vector, family in items:
        families[family].append(tuple(vector.items()))
    assert sorted(families) == list(range(len(families)))
    *whole, _ = families.values()
    for family in whole:
        renders = Counter(family)
        assert len(renders) == MEMBERS
        assert set(renders.values()) <= {1, 2, 3, 4}
        members = [dict(member) for member in renders]
        for member in members:
            nearest = min(edits_between(member, other) for other in members if other is not member)
            assert 1 <= nearest <= 3


def test_items_are_even_over_garments_and_no_family_is_split():
    rows = GARMENTS.rows(1500, seed=3)
    assert rows == GARMENTS.rows(1500, seed=3)
    assert rows != GARMENTS.rows(1500, seed=4)
    assert Counter(row["garment"] for row in rows) == {"dress": 500, "shirt": 500, "top": 500}
    shares = Counter(row["split"] for row in rows)
    assert set(shares) == {"train", "val", "test"}
    assert 0.7 < shares["train"] / 1500 < 0.9
    splits = defaultdict(set)
    for row in rows:
        splits[tuple(row[column] for column in GARMENT_ATTRIBUTES)].add(row["split"])
    met_by_chance = sum(len(found) > 1 for found in splits.values())
    assert met_by_chance <= 0.01 * len(splits)


def test_every_split_of_a_small_catalogue_has_every_garment():
    found = {(row["garment"], row["split"]) for row in GARMENTS.rows(2400, seed=0)}
    assert len(found) == 9


def test_a_catalogue_of_a_few_families_has_all_three_splits():
    assert {row["split"] for row in GARMENTS.rows(240, seed=3)} == {"train", "val", "test"}


def test_a_named_split_and_independent_items():
    rows = GARMENTS.rows(400, seed=1, arrangement="independent", split="val")
    assert {row["split"] for row in rows} == {"val"}
    assert len({tuple(row.values()) for row in rows}) > 380


def test_pixels_depend_on_the_seed_and_the_number_alone():
    one = GARMENTS.image(STRIPED, seed=5, number=17)
    assert one.mode == "RGB" and one.size == (64, 64)
    assert one.tobytes() == GARMENTS.image(STRIPED, seed=5, number=17).tobytes()
    assert one.tobytes() != GARMENTS.image(STRIPED, seed=5, number=18).tobytes()
    assert one.tobytes() != GARMENTS.image(STRIPED, seed=6, number=17).tobytes()


@pytest.mark.parametrize("column", [c for c in GARMENT_ATTRIBUTES if c != "pattern_color"])
def test_every_value_shows(column: str):
    images = []
    for value in GARMENT_ATTRIBUTES[column]:
        vector = PLAIN | {column: value}
        if vector["pattern"] != "plain":
            vector["pattern_color"] = "red"
        images.append(pixels(vector))
    for i, one in enumerate(images):
        for other in images[:i]:
            assert (np.abs(one - other).max(axis=2) > 25).mean() > 0.01


def test_colours_keep_their_names():
    assert set(PAINTS) == set(GARMENT_ATTRIBUTES["color"])
    names = list(PAINTS)
    paints = np.array([PAINTS[name] for name in names], dtype=np.float64)
    for name in names:
        for seed in range(12):
            # Half way down and a little off the axis there is bare cloth on every garment of this cut.
            cloth = pixels(PLAIN | {"garment": "top", "color": name}, seed=seed)[32:40, 24:30].mean(
                axis=(0, 1)
            )
            assert names[int(np.square(paints - cloth).sum(axis=1).argmin())] == name


@pytest.mark.parametrize("size", [64, 97, 224, 512])
def test_any_size_in_range(size: int):
    for garment in GARMENT_ATTRIBUTES["garment"]:
        image = render_garment(STRIPED | {"garment": garment, "print": "yes", "neck": "high"}, rng(), size)
        assert image.size == (size, size)


@pytest.mark.parametrize("size", [63, 513])
def test_sizes_out_of_range_are_refused(size: int, tmp_path: Path):
    with pytest.raises(DataError, match="64 to 512"):
        render_garment(PLAIN, rng(), size)
    with pytest.raises(DataError, match="64 to 512"):
        GARMENTS.write(tmp_path / "garments", 3, 0, size=size, quiet=True)


def test_a_written_catalogue_is_read_back(tmp_path: Path):
    folder = GARMENTS.write(tmp_path / "garments", 240, seed=2, quiet=True)
    report = check_catalogue(folder, decode=lambda path: Image.open(path).load())
    assert report.problems == () and report.warnings == ()
    catalogue = read_catalogue(folder)
    rows = GARMENTS.rows(240, seed=2)
    assert list(catalogue.attributes) == list(GARMENT_ATTRIBUTES)
    assert catalogue.attributes["neck"] == tuple(row["neck"] for row in rows)
    wanted = tuple(number for number, row in enumerate(rows) if row["split"] == "val")
    assert tuple(catalogue.split("val").tolist()) == wanted
    stored = np.asarray(Image.open(catalogue.image_paths[3]), dtype=np.float64)
    drawn = np.asarray(GARMENTS.image(rows[3], 2, 3), dtype=np.float64)
    assert np.abs(stored - drawn).mean() < 6


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path):
    once = GARMENTS.write(tmp_path / "a", 60, seed=9, quiet=True)
    again = GARMENTS.write(tmp_path / "b", 60, seed=9, quiet=True)
    other = GARMENTS.write(tmp_path / "c", 60, seed=10, quiet=True)
    assert folder_bytes(once) == folder_bytes(again)
    assert folder_bytes(once) != folder_bytes(other)


def test_an_existing_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="new or an empty folder"):
        GARMENTS.write(tmp_path, 3, seed=0, quiet=True)
    assert folder_bytes(tmp_path) == {"mine.txt": b"mine"}
    empty = tmp_path / "empty"
    empty.mkdir()
    assert GARMENTS.write(empty, 3, seed=0, quiet=True) == empty


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"items": 0}, "1 or more"),
        ({"arrangement": "familys"}, "did you mean 'families'"),
        ({"split": "training"}, "'train'"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        GARMENTS.write(**({"folder": tmp_path / "new", "items": 3, "seed": 0, "quiet": True} | wrong))
    assert not (tmp_path / "new").exists()
