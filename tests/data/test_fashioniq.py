"""FashionIQ: the real annotations, and small folders of the same form."""

import json
from pathlib import Path

import numpy as np
import pytest

from dqecir.data.fashioniq import read_captions, read_fashioniq, read_fashioniq_questions
from dqecir.errors import DataError

CATEGORIES = ("dress", "shirt", "toptee")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return two categories that share the image ``c``; ``a`` is a PNG, the others are JPEGs."""
    splits = {"dress": ["b", "a", "c"], "shirt": ["c", "d", "e"]}
    asked = {"dress": [("b", "a")], "shirt": [("d", "c"), ("c", "d")]}
    for category, ids in splits.items():
        rows = [
            {"candidate": one, "target": other, "captions": ["is Red.", f"{one} to {other}"]}
            for one, other in asked[category]
        ]
        write(tmp_path / "image_splits" / f"split.{category}.val.json", ids)
        write(tmp_path / "captions" / f"cap.{category}.val.json", rows)
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.jpg", "c.jpg", "c.png", "d.jpg", "e.jpg"):
        (tmp_path / "images" / name).touch()
    return tmp_path


def write(path: Path, value) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def read(folder, **changes):
    return read_fashioniq(folder, categories=("dress", "shirt"), **changes)


def test_a_small_folder(folder):
    benchmark = read(folder)
    assert benchmark.image_ids == ("b", "a", "c", "d", "e")
    assert [path.name for path in benchmark.image_paths] == ["b.jpg", "a.png", "c.jpg", "d.jpg", "e.jpg"]
    assert {name: gallery.tolist() for name, gallery in benchmark.galleries.items()} == {
        "dress": [0, 1, 2],
        "shirt": [2, 3, 4],
    }
    first, *_, last = benchmark.triplets
    assert (first.reference, first.target, first.relevant) == (0, 1, (1,))
    assert first.captions == ("is Red.", "b to a")
    assert (last.category, last.reference, last.target, last.pair_id) == ("shirt", 2, 3, "shirt-1")
    assert not benchmark.mask_reference
    assert read(folder, mask_reference=True).mask_reference


def test_galleries(folder):
    alone = read(folder, gallery="val_split")
    assert alone.image_ids == ("b", "a", "c", "d")
    assert {name: gallery.tolist() for name, gallery in alone.galleries.items()} == {
        "dress": [0, 1],
        "shirt": [2, 3],
    }
    joint = read(folder, gallery="joint")
    assert {name: gallery.tolist() for name, gallery in joint.galleries.items()} == {"all": [0, 1, 2, 3, 4]}
    assert [triplet.aspects for triplet in joint.triplets] == [("dress",), ("shirt",), ("shirt",)]
    twice = read(folder, both_orders=True)
    assert [triplet.captions for triplet in twice.triplets[:2]] == [
        ("is Red.", "b to a"),
        ("b to a", "is Red."),
    ]


def test_missing_images_are_counted(folder):
    (folder / "images" / "b.jpg").unlink()
    (folder / "images" / "a.png").unlink()
    with pytest.raises(DataError, match=r"fashioniq: 2 of 5 images are missing \(.*b\.jpg, .*a\.jpg\)"):
        read(folder)
    assert len(read(folder, check_images=False).image_paths) == 5
    with pytest.raises(DataError, match="5 of 5 images"):
        read(folder, images=folder / "elsewhere")
    with pytest.raises(DataError, match="…"):
        read(folder, images=folder / "elsewhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "vall"}, "no split 'vall'; did you mean 'val'"),
        ({"split": "test"}, "test split are not published"),
        ({"categories": ("dres",)}, "no category 'dres'; did you mean 'dress'"),
        ({"categories": ()}, "no category of FashionIQ is given: name one"),
        ({"gallery": "val-split"}, "no gallery 'val-split'; did you mean 'val_split'"),
        ({"categories": ("toptee",)}, r"there is no file .*split\.toptee\.val\.json"),
    ],
)
def test_what_does_not_exist_is_named(folder, changes, message):
    with pytest.raises(DataError, match=message):
        read_fashioniq(folder, **{"categories": ("dress",), **changes})


GOOD = {"candidate": "b", "target": "a", "captions": ["x"]}


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("captions/cap.dress.val.json", "{", "is not JSON"),
        ("captions/cap.dress.val.json", {}, "is a list of questions"),
        ("captions/cap.dress.val.json", [GOOD, {**GOOD, "target": 3}], "entry 1 needs a field 'target'"),
        ("captions/cap.dress.val.json", [{**GOOD, "captions": []}], "captions of entry 0"),
        ("captions/cap.dress.val.json", [{**GOOD, "target": "z"}], "image 'z', which is not in the split"),
        ("image_splits/split.dress.val.json", {"a": 1}, "is a list of names"),
        ("image_splits/split.dress.val.json", ["a", "b", "a"], "names an image twice"),
    ],
)
def test_damaged_files_are_named(folder, file, value, message):
    write(folder / file, value)
    with pytest.raises(DataError, match=message):
        read(folder)


def test_real_counts(shared):
    folder = shared / "data" / "fashioniq"
    sizes = {
        ("val", "original"): (3817, 6346, 5373),
        ("val", "val_split"): (2628, 3089, 2902),
        ("train", "original"): (11452, 19036, 16121),
    }
    for (split, gallery), wanted in sizes.items():
        benchmark = read_fashioniq(folder, split, gallery=gallery, check_images=False)
        assert tuple(len(benchmark.galleries[category]) for category in CATEGORIES) == wanted
        assert len(benchmark.triplets) == {"val": 6016, "train": 18000}[split]
        assert len(set(benchmark.image_ids)) == len(benchmark.image_ids)
        for category in CATEGORIES:
            targets = [t.target for t in benchmark.triplets if t.category == category]
            assert len(set(targets)) == len(targets)
            assert np.isin(targets, benchmark.galleries[category]).all()
    shirt, toptee = (set(read_fashioniq(folder, check_images=False).galleries[c]) for c in CATEGORIES[1:])
    assert len(shirt & toptee) == 121


def test_positions_follow_the_split_file(shared):
    folder = shared / "data" / "fashioniq"
    benchmark = read_fashioniq(folder, categories=("shirt",), check_images=False)
    assert list(benchmark.image_ids) == json.loads((folder / "image_splits/split.shirt.val.json").read_text())
    rows = json.loads((folder / "captions/cap.shirt.val.json").read_text())
    for row, triplet in zip(rows, benchmark.triplets, strict=True):
        assert benchmark.image_ids[triplet.reference] == row["candidate"]
        assert benchmark.image_ids[triplet.target] == row["target"]
        assert list(triplet.captions) == row["captions"]
    assert read_captions(folder / "captions/cap.shirt.val.json")[:2] == rows[0]["captions"]


def test_the_test_split_is_questions(shared):
    questions = read_fashioniq_questions(shared / "data" / "fashioniq", check_images=False)
    assert len(questions.questions) == 2024 + 2038 + 2056
    assert len(questions.galleries["dress"]) == 3818
    first = questions.questions[0]
    assert questions.image_ids[first.reference] == "B007E66YTO"
    assert first.captions == (" yello and more flowing", "short and black")
