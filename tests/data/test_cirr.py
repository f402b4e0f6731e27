"""CIRR: the real annotations, and a small folder of the same form."""

import json
from pathlib import Path

import pytest

from dqecir.data.cirr import read_cirr, read_cirr_questions
from dqecir.errors import DataError

PAIR = {
    "pairid": 7,
    "reference": "b",
    "target_hard": "c",
    "caption": "is new",
    "img_set": {"id": 1, "members": ["c", "b", "a"]},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "image_splits" / "split.rc2.val.json", {n: f"./dev/{n}.png" for n in "bac"})
    write(tmp_path / "captions" / "cap.rc2.val.json", [PAIR])
    (tmp_path / "dev").mkdir()
    for name in "abc":
        (tmp_path / "dev" / f"{name}.png").touch()
    return tmp_path


def write(path: Path, value) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def test_a_small_folder(folder):
    benchmark = read_cirr(folder)
    assert benchmark.image_ids == ("b", "a", "c")
    assert benchmark.image_paths[0] == folder / "dev" / "b.png"
    (triplet,) = benchmark.triplets
    assert (triplet.reference, triplet.target, triplet.subset) == (0, 2, (1, 2))
    assert (triplet.captions, triplet.pair_id) == (("is new",), "7")
    assert benchmark.mask_reference
    assert not read_cirr(folder, mask_reference=False).mask_reference
    (question,) = read_cirr_questions(folder, "val").questions
    assert (question.reference, question.subset, question.pair_id) == (0, (1, 2), "7")


def test_missing_images_are_counted(folder):
    (folder / "dev" / "c.png").unlink()
    with pytest.raises(DataError, match=r"cirr: 1 of 3 images are missing \(.*dev/c\.png\)"):
        read_cirr(folder)
    assert read_cirr(folder, images=folder / "x", check_images=False).image_paths[0].parts[-3] == "x"


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("captions/cap.rc2.val.json", "[", "is not JSON"),
        (
            "captions/cap.rc2.val.json",
            [{**PAIR, "pairid": "7"}],
            "entry 0 needs a field 'pairid' of the type int",
        ),
        ("captions/cap.rc2.val.json", [{**PAIR, "target_hard": "z"}], "image 'z', which is not in the split"),
        ("captions/cap.rc2.val.json", [{**PAIR, "img_set": {}}], "pair 7 has no list of members"),
        (
            "captions/cap.rc2.val.json",
            [{**PAIR, "img_set": {"members": ["b", "a"]}}],
            "not in its own subset",
        ),
        ("captions/cap.rc2.val.json", [{**PAIR, "img_set": {"members": [{}]}}], "the image {}, which is not"),
        ("image_splits/split.rc2.val.json", ["a"], "maps names to relative paths"),
    ],
)
def test_damaged_files_are_named(folder, file, value, message):
    write(folder / file, value)
    with pytest.raises(DataError, match=message):
        read_cirr(folder)


def test_splits_that_cannot_be_read_are_named(folder):
    with pytest.raises(DataError, match="no split 'dev'"):
        read_cirr(folder, "dev")
    with pytest.raises(DataError, match=r"no file .*split\.rc2\.train\.json"):
        read_cirr(folder, "train")
    with pytest.raises(DataError, match="not published"):
        read_cirr(folder, "test1")


def test_real_counts(shared):
    folder = shared / "data" / "cirr"
    benchmark = read_cirr(folder, check_images=False)
    assert (len(benchmark.triplets), len(benchmark.image_ids)) == (4181, 2297)
    assert len({triplet.pair_id for triplet in benchmark.triplets}) == 4181
    for triplet in benchmark.triplets:
        assert len(triplet.subset) == 5
        assert triplet.reference not in triplet.subset
    questions = read_cirr_questions(folder, check_images=False)
    assert (len(questions.questions), len(questions.image_ids)) == (4148, 2315)
    assert all(len(question.subset) == 5 for question in questions.questions)
    assert sum(not question.captions[0].strip() for question in questions.questions) == 1
    # The captions of the train split are not among the annotations at hand.
    with pytest.raises(DataError, match=r"a CIRR caption file\): name the folder"):
        read_cirr(folder, "train", check_images=False)
