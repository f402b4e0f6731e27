"""Procedural scenes: valid vectors, sets of six, splits, and the same bytes for the same seed."""

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqecir.data.catalogue import check_catalogue, read_catalogue
from dqecir.errors import DataError
from dqecir.questions.composing import catalogue_benchmark
from dqecir.synthetic.attribute_vectors import edits_between
from dqecir.synthetic.scene_drawing import PAINTS, render_scene
from dqecir.synthetic.scene_vectors import (
    COLOURS,
    SCENE_ATTRIBUTES,
    SET_SIZE,
    check_vector,
    random_vector,
    scene_sets,
)
from dqecir.synthetic.scenes import SCENES
from tests.synthetic.folders import folder_bytes

STARS = {
    "figure": "star",
    "figure_colour": "yellow",
    "figure_count": "1",
    "figure_size": "big",
    "figure_texture": "plain",
    "figure_place": "centre",
    "other": "none",
    "other_colour": "",
    "background": "night",
}
WITH_CIRCLE = STARS | {"other": "circle", "other_colour": "red"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels(vector: dict[str, str], size: int = 96, seed: int = 0) -> np.ndarray:
    return np.asarray(render_scene(vector, rng(seed), size), dtype=np.float64)


def test_random_vectors_are_valid_and_reach_every_value():
    draw = rng()
    vectors = [random_vector(draw) for _ in range(400)]
    for vector in vectors:
        check_vector(vector)
        assert list(vector) == list(SCENE_ATTRIBUTES)
    for column, values in SCENE_ATTRIBUTES.items():
        assert {vector[column] for vector in vectors} - {""} == set(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figure": "starr"}, "did you mean 'star'"),
        ({"other": "circle"}, "leave other_colour empty for 'none', and only for it"),
        ({"other_colour": "red"}, "leave other_colour empty for 'none', and only for it"),
        ({"other": "star", "other_colour": "red"}, "both 'star'"),
    ],
)
def test_invalid_vectors_are_refused(change: dict[str, str], message: str):
    with pytest.raises(DataError, match=message):
        render_scene(STARS | change, rng())


def test_a_missing_attribute_is_refused():
    with pytest.raises(DataError, match="'background'"):
        check_vector({column: value for column, value in STARS.items() if column != "background"})


def test_a_set_holds_six_scenes_any_two_of_which_differ_in_one_to_three_attributes():
    sets = defaultdict(list)
    for scene, _ in scene_sets(2400, rng()):
        check_vector(scene)
        sets[int(scene.pop("set"))].append(scene)
    assert sorted(sets) == list(range(400))
    found = Counter()
    for members in sets.values():
        assert len(members) == SET_SIZE == 6
        found.update(edits_between(one, other) for one, other in combinations(members, 2))
    assert set(found) == {1, 2, 3}
    assert min(found.values()) > 0.1 * found.total()


def test_scenes_recur_in_other_sets():
    sets_of = defaultdict(set)
    for scene, _ in scene_sets(2400, rng()):
        sets_of[tuple(scene[column] for column in SCENE_ATTRIBUTES)].add(scene["set"])
    assert np.mean([len(sets) > 1 for sets in sets_of.values()]) > 0.4


def test_the_last_set_is_cut_short():
    counts = Counter(scene["set"] for scene, _ in scene_sets(14, rng()))
    assert counts == {"000000": 6, "000001": 6, "000002": 2}


def test_a_set_lies_in_one_split_and_no_scene_in_two():
    rows = SCENES.rows(3000, seed=3)
    assert rows == SCENES.rows(3000, seed=3)
    assert rows != SCENES.rows(3000, seed=4)
    splits, vectors = defaultdict(set), defaultdict(set)
    for row in rows:
        splits[row["set"]].add(row["split"])
        vectors[tuple(row[column] for column in SCENE_ATTRIBUTES)].add(row["split"])
    assert {len(found) for found in splits.values()} == {1}
    assert sum(len(found) > 1 for found in vectors.values()) <= 0.01 * len(vectors)
    shares = Counter(row["split"] for row in rows)
    assert set(shares) == {"train", "val", "test"}
    assert 0.7 < shares["train"] / 3000 < 0.9


def test_a_named_split_and_independent_scenes():
    rows = SCENES.rows(400, seed=1, arrangement="independent", split="val")
    assert {row["split"] for row in rows} == {"val"}
    assert list(rows[0]) == ["split", *SCENE_ATTRIBUTES]
    assert len({tuple(row.values()) for row in rows}) > 380


def test_pixels_depend_on_the_seed_and_the_number_alone():
    one = SCENES.image(WITH_CIRCLE, seed=5, number=17)
    assert one.mode == "RGB" and one.size == (96, 96)
    assert one.tobytes() == SCENES.image(WITH_CIRCLE, seed=5, number=17).tobytes()
    assert one.tobytes() != SCENES.image(WITH_CIRCLE, seed=5, number=18).tobytes()
    assert one.tobytes() != SCENES.image(WITH_CIRCLE, seed=6, number=17).tobytes()


@pytest.mark.parametrize("column", SCENE_ATTRIBUTES)
def test_every_value_shows(column: str):
    images = []
    for value in SCENE_ATTRIBUTES[column]:
        vector = WITH_CIRCLE | {column: value}
        if vector["figure"] == vector["other"]:
            vector["figure" if column == "other" else "other"] = "heart"
        if vector["other"] == "none":
            vector["other_colour"] = ""
        images.append(pixels(vector))
    for i, one in enumerate(images):
        for other in images[:i]:
            assert (np.abs(one - other).max(axis=2) > 25).mean() > 0.004


def test_colours_keep_their_names():
    assert set(PAINTS) == set(COLOURS)
    names = list(PAINTS)
    paints = np.array([PAINTS[name] for name in names], dtype=np.float64)
    for name in names:
        for seed in range(12):
            paint = pixels(STARS | {"figure_colour": name, "figure": "square"}, seed=seed)[44:52, 44:52]
            nearest = np.square(paints - paint.mean(axis=(0, 1))).sum(axis=1).argmin()
            assert names[int(nearest)] == name


def ink(count: str, place: str, seed: int) -> np.ndarray:
    """Return where red figures show on a background without red: [96, 96]."""
    red, green, blue = pixels(
        STARS
        | {"figure": "circle", "figure_colour": "red", "figure_size": "small", "background": "paper"}
        | {"figure_count": count, "figure_place": place},
        seed=seed,
    ).transpose(2, 0, 1)
    return (red > 150) & (green < 90) & (blue < 100)


def blobs(mask: np.ndarray) -> int:
    """Return the number of connected regions of a mask."""
    left, found = set(zip(*np.nonzero(mask), strict=True)), 0
    while left:
        found += 1
        heap = [left.pop()]
        while heap:
            y, x = heap.pop()
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            heap.extend(near)
    return found


@pytest.mark.parametrize("place", SCENE_ATTRIBUTES["figure_place"])
def test_as_many_figures_as_said_stand_where_said(place: str):
    middle = {"left": (0.28, 0.5), "right": (0.72, 0.5), "top": (0.5, 0.28), "bottom": (0.5, 0.72)}
    x, y = middle.get(place, (0.5, 0.5))
    for count in SCENE_ATTRIBUTES["figure_count"]:
        for seed in range(4):
            mask = ink(count, place, seed)
            assert blobs(mask) == int(count)
            rows, columns = np.nonzero(mask)
            assert columns.mean() / 96 == pytest.approx(x, abs=0.06)
            assert rows.mean() / 96 == pytest.approx(y, abs=0.06)


@pytest.mark.parametrize("size", [64, 97, 224, 512])
def test_any_size_in_range(size: int):
    image = render_scene(WITH_CIRCLE | {"figure_count": "5", "figure_texture": "dotted"}, rng(), size)
    assert image.size == (size, size)


@pytest.mark.parametrize("size", [63, 513])
def test_sizes_out_of_range_are_refused(size: int, tmp_path: Path):
    with pytest.raises(DataError, match="64 to 512"):
        render_scene(STARS, rng(), size)
    with pytest.raises(DataError, match="64 to 512"):
        SCENES.write(tmp_path / "scenes", 6, 0, size=size, quiet=True)


def test_a_written_catalogue_is_read_back_and_asked(tmp_path: Path):
    folder = SCENES.write(tmp_path / "scenes", 300, seed=2, size=64, quiet=True)
    report = check_catalogue(folder, decode=lambda path: Image.open(path).load())
    assert report.problems == () and report.warnings == ()
    catalogue = read_catalogue(folder)
    rows = SCENES.rows(300, seed=2)
    assert list(catalogue.attributes) == list(SCENE_ATTRIBUTES)
    assert catalogue.sets == tuple(row["set"] for row in rows)
    train, dev = ({catalogue.sets[i] for i in catalogue.split(split).tolist()} for split in ("train", "dev"))
    assert not train & dev
    asked = catalogue_benchmark(catalogue, "val")
    members = Counter(catalogue.sets[i] for i in catalogue.split("val").tolist())
    for triplet in asked.triplets:
        name = catalogue.sets[int(catalogue.split("val")[triplet.reference])]
        assert len(triplet.subset) == members[name] - 1


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path):
    once = SCENES.write(tmp_path / "a", 60, seed=9, quiet=True)
    again = SCENES.write(tmp_path / "b", 60, seed=9, quiet=True)
    other = SCENES.write(tmp_path / "c", 60, seed=10, quiet=True)
    assert folder_bytes(once) == folder_bytes(again)
    assert folder_bytes(once) != folder_bytes(other)


def test_an_existing_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="new or an empty folder"):
        SCENES.write(tmp_path, 6, seed=0, quiet=True)
    assert folder_bytes(tmp_path) == {"mine.txt": b"mine"}


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
        SCENES.write(**({"folder": tmp_path / "new", "items": 6, "seed": 0, "quiet": True} | wrong))
    assert not (tmp_path / "new").exists()
