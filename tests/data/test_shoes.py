"""Shoes: its questions by split, and annotations that do not match."""

import json

import pytest

from dqecir.data.shoes import read_shoes
from dqecir.errors import DataError

ROWS = [
    {"ImageName": "b.jpg", "ReferenceImageName": "a.jpg", "RelativeCaption": " is red "},
    {"ImageName": "d.jpg", "ReferenceImageName": "c.jpg", "RelativeCaption": "has a heel"},
    {"ImageName": "a.jpg", "ReferenceImageName": "a.jpg", "RelativeCaption": "is the same"},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "relative_captions_shoes.json").write_text(json.dumps(ROWS))
    (tmp_path / "eval_im_names.txt").write_text("b.jpg\na.jpg\n")
    (tmp_path / "train_im_names.txt").write_text("c.jpg\nd.jpg\n")
    return tmp_path


def test_questions_belong_to_the_split_of_their_reference(folder):
    read = read_shoes(folder, check_images=False)
    assert read.image_ids == ("b.jpg", "a.jpg") and not read.mask_reference
    assert [(t.reference, t.target, t.captions) for t in read.triplets] == [
        (1, 0, ("is red",)),
        (1, 1, ("is the same",)),
    ]
    train = read_shoes(folder, "train", check_images=False)
    assert [(t.reference, t.target) for t in train.triplets] == [(0, 1)]
    assert read_shoes(folder, "val", check_images=False).image_ids == read.image_ids


def test_pictures_are_found_in_any_folder(folder):
    for name in ("a.jpg", "b.jpg"):
        (folder / "womens_clogs" / "1").mkdir(parents=True, exist_ok=True)
        (folder / "womens_clogs" / "1" / name).write_bytes(b"")
    assert read_shoes(folder).image_paths[0] == folder / "womens_clogs" / "1" / "b.jpg"
    with pytest.raises(DataError, match="2 of 2 images are missing"):
        read_shoes(folder, "train")


def test_what_does_not_belong_together_is_refused(folder):
    with pytest.raises(DataError, match="no split 'dev'"):
        read_shoes(folder, "dev")
    (folder / "eval_im_names.txt").write_text("a.jpg\nc.jpg\n")
    with pytest.raises(DataError, match=r"names the image 'b\.jpg', which is not in the split"):
        read_shoes(folder, check_images=False)
    (folder / "eval_im_names.txt").write_text("a.jpg\na.jpg\n")
    with pytest.raises(DataError, match="names a picture twice"):
        read_shoes(folder, check_images=False)
    (folder / "eval_im_names.txt").unlink()
    with pytest.raises(DataError, match="there is no file"):
        read_shoes(folder, check_images=False)
