"""Multi-turn FashionIQ: dialogues as questions with earlier turns, and files that do not fit."""

import json

import pytest

from dqecir.data.multiturn_fashioniq import read_multiturn_fashioniq
from dqecir.data.triplets import Turn, join_benchmarks
from dqecir.errors import DataError
from dqecir.evaluation.missing_images import without


def dialogue(target, *turns):
    return {
        "target": ["http://shop/x.jpg", target],
        "reference": [["http://shop/y.jpg", captions, image] for image, captions in turns],
    }


ROWS = [
    dialogue("C", ("A", ["is red ", " is long"]), ("B", ["", "is blue"])),
    dialogue("A", ("C", ["is black"])),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "image_splits").mkdir()
    for category in ("dress", "shirt", "toptee"):
        write(tmp_path, ROWS, category)
        (tmp_path / "image_splits" / f"split.{category}.val.json").write_text(json.dumps(["A", "B", "C"]))
    return tmp_path


def write(folder, rows, category="dress"):
    (folder / "data" / f"{category}.val.json").write_text(json.dumps(rows))


def test_the_last_turn_is_the_question_and_others_are_earlier(folder):
    read = read_multiturn_fashioniq(folder, check_images=False)
    assert read.image_ids == ("A", "B", "C") and not read.mask_reference
    assert {name: gallery.tolist() for name, gallery in read.galleries.items()} == {
        "dress": [0, 1, 2],
        "shirt": [0, 1, 2],
        "toptee": [0, 1, 2],
    }
    first, second = read.triplets[:2]
    assert (first.reference, first.target, first.captions) == (1, 2, ("is blue",))
    assert first.earlier == (Turn(0, ("is red", "is long")),)
    assert (second.reference, second.target, second.earlier) == (2, 0, ())


def test_earlier_turns_follow_their_images(folder):
    read = read_multiturn_fashioniq(folder, check_images=False)
    joined = join_benchmarks([read, read])
    assert joined.triplets[6].earlier == (Turn(3, ("is red", "is long")),)
    left = without(read, {1})
    assert [(t.reference, t.target, t.earlier) for t in left.triplets] == [(1, 0, ())] * 3
    assert without(read, {0}).triplets == ()


def test_turns_count_for_the_checksum(folder):
    before = read_multiturn_fashioniq(folder, check_images=False).checksum
    write(folder, [dialogue("C", ("B", ["is blue"])), ROWS[1]])
    assert read_multiturn_fashioniq(folder, check_images=False).checksum != before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (dialogue("D", ("A", ["is red"])), "names the image 'D', which is not in the split"),
        (dialogue("A", ("D", ["is red"])), "names the image 'D', which is not in the split"),
        (dialogue("A"), "dialogue 0 has no turn"),
        (dialogue("A", ("B", [" "])), "dialogue 0 has a turn without a caption"),
        ({"target": ["u", "A"], "reference": ["B"]}, "not an address, captions and an image"),
        ({"target": ["A"], "reference": [["u", ["is red"], "B"]]}, "names the image ''"),
        ({"target": ["u", "A"]}, "needs a field 'reference'"),
    ],
)
def test_what_does_not_fit_is_refused(folder, row, message):
    write(folder, [row])
    with pytest.raises(DataError, match=message):
        read_multiturn_fashioniq(folder, check_images=False)


def test_other_splits_and_missing_pictures_are_refused(folder):
    with pytest.raises(DataError, match=r"no split 'vol'.*'val'"):
        read_multiturn_fashioniq(folder, "vol")
    with pytest.raises(DataError, match="3 of 3 images are missing"):
        read_multiturn_fashioniq(folder)
