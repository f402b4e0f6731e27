"""GeneCIS: a small folder laid out as its authors publish it."""

import json

import numpy as np
import pytest
from PIL import Image

from dqecir.data.genecis import TASKS, crop, read_genecis
from dqecir.errors import DataError


def coco(number):
    return {"val_image_id": number}


def boxed(number, *box):
    return {"image_id": number, "instance_bbox": list(box)}


def question(kind, condition="wall"):
    if kind == "object":
        named = [coco(number) for number in (3, 1, 2, 4)]
    else:
        named = [boxed(7, 2, 2, 4, 4), boxed(8, 0, 0, 5.5, 4), boxed(7, 8, 8, 4, 4)]
    return {"condition": condition, "reference": named[0], "target": named[1], "gallery": named[2:]}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "genecis").mkdir()
    for task in TASKS:
        rows = [question(task.rpartition("_")[2])]
        (tmp_path / "genecis" / f"{task}.json").write_text(json.dumps(rows))
    for name, numbers in (("val2017", (1, 2, 3, 4)), ("VG_100K_all", (7, 8))):
        (tmp_path / name).mkdir()
        for number in numbers:
            stem = f"{number:012d}" if name == "val2017" else number
            Image.new("RGB", (16, 12), (number * 20, 9, 9)).save(tmp_path / name / f"{stem}.jpg")
    return tmp_path


def test_a_small_folder(folder):
    benchmark = read_genecis(folder)
    assert set(benchmark.galleries) == set(TASKS)
    by_task = {triplet.category: triplet for triplet in benchmark.triplets}
    objects = by_task["focus_object"]
    named = [benchmark.image_ids[image] for image in (objects.reference, objects.target)]
    assert named == ["000000000003", "000000000001"]
    assert {benchmark.image_ids[image] for image in objects.subset} == {f"{n:012d}" for n in (1, 2, 4)}
    attributes = by_task["change_attribute"]
    assert benchmark.image_ids[attributes.target] == "8_0_0_5.5_4"
    assert attributes.captions == ("wall",) and not benchmark.mask_reference
    assert set(attributes.subset) <= set(benchmark.galleries["change_attribute"].tolist())
    assert all(path.is_file() for path in benchmark.image_paths)
    assert (folder / "crops" / "7_2_2_4_4.png").is_file()


def test_pictures_with_long_ids_have_crops_of_their_own(folder):
    for number, shade in ((2417997, 50), (2417998, 150)):
        picture = Image.new("RGB", (16, 12), (shade,) * 3)
        picture.save(folder / "VG_100K_all" / f"{number}.jpg", format="PNG")
    row = question("attribute")
    row["reference"], row["target"] = boxed(2417997, 2, 2, 4, 4), boxed(2417998, 2, 2, 4, 4)
    (folder / "genecis" / "change_attribute.json").write_text(json.dumps([row]))
    benchmark = read_genecis(folder)
    (triplet,) = (one for one in benchmark.triplets if one.category == "change_attribute")
    shown = [benchmark.image_paths[image] for image in (triplet.reference, triplet.target)]
    assert [path.name for path in shown] == ["2417997_2_2_4_4.png", "2417998_2_2_4_4.png"]
    assert [Image.open(path).getpixel((3, 3)) for path in shown] == [(50,) * 3, (150,) * 3]


def test_a_crop_reaches_beyond_its_box_and_is_padded_to_a_square():
    picture = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    # x: 10 - 0.7 * 10 = 3 to 3 + 1.7 * 10 = 20; y: 2 - 0.7 * 10 < 0, so 0 to 17.
    square = np.asarray(crop(picture, [10, 2, 10, 10]))
    assert square.shape == (17, 17, 3)
    assert np.array_equal(square, np.asarray(picture)[0:17, 3:20])
    # Cut at the right edge: 23 to 30, 7 wide, and 17 high, with 5 black columns on either side.
    padded = np.asarray(crop(picture, [30, 2, 10, 10]))
    assert padded.shape == (17, 17, 3)
    assert not padded[:, :5].any() and not padded[:, 12:].any()
    assert np.array_equal(padded[:, 5:12], np.asarray(picture)[0:17, 23:30])


@pytest.mark.parametrize("box", [(100, 2, 3, 3), (2, 2, -9, 4), (2, 2, 0, 0), (1e300, 2, 1, 1)])
def test_a_box_outside_of_its_picture_is_refused_in_one_sentence(folder, box):
    row = question("attribute")
    row["target"] = boxed(8, *box)
    (folder / "genecis" / "change_attribute.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"8\.jpg: the box .* is empty or outside of its picture of 16 x 12"):
        read_genecis(folder)


def test_annotations_are_read_without_pictures(folder):
    for path in (folder / "VG_100K_all").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="genecis: 3 of 7 images are missing"):
        read_genecis(folder)
    assert len(read_genecis(folder, check_images=False).image_ids) == 7
    assert not (folder / "crops").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"condition": "x"}, "needs a field 'reference'"),
        ({**question("object"), "target": {"id": 3}}, "needs val_image_id, or image_id"),
        ({**question("object"), "gallery": [boxed(3, 1, 2, 3)]}, "needs val_image_id"),
        ({**question("object"), "gallery": [boxed("²", 1, 2, 3, 4)]}, "needs val_image_id"),
        ({**question("object"), "gallery": [boxed("../7", 1, 2, 3, 4)]}, "needs val_image_id"),
        ({**question("object"), "gallery": [3]}, "needs val_image_id"),
    ],
)
def test_a_damaged_entry_is_named(folder, entry, message):
    (folder / "genecis" / "focus_object.json").write_text(json.dumps([entry]))
    with pytest.raises(DataError, match=message):
        read_genecis(folder, check_images=False)
    with pytest.raises(DataError, match="no split 'test'"):
        read_genecis(folder, "test")
