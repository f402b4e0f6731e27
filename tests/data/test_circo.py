"""CIRCO: the real annotations, and a small folder of the same form."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dqecir.data.circo import ASPECTS, read_circo, read_circo_questions
from dqecir.errors import DataError

ROW = {
    "id": 0,
    "reference_img_id": 5,
    "target_img_id": 9,
    "gt_img_ids": [9, 2],
    "relative_caption": "is new",
    "semantic_aspects": ["addition"],
}
INFO = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "annotations" / "val.json", [ROW])
    files = [{"id": image, "file_name": f"{image:012d}.jpg"} for image in (5, 2, 9, 7)]
    write(tmp_path / INFO, {"images": files})
    images = tmp_path / "COCO2017_unlabeled" / "unlabeled2017"
    images.mkdir()
    for file in files:
        (images / file["file_name"]).touch()
    return tmp_path


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_a_small_folder(folder):
    benchmark = read_circo(folder)
    assert benchmark.image_ids == ("5", "2", "9", "7")
    assert benchmark.image_paths[1].name == "000000000002.jpg"
    (triplet,) = benchmark.triplets
    assert (triplet.reference, triplet.target, triplet.relevant) == (0, 2, (1, 2))
    assert (triplet.aspects, triplet.pair_id) == (("addition",), "0")
    assert not benchmark.mask_reference
    assert read_circo(folder, mask_reference=True).mask_reference
    assert read_circo(folder, gallery=[9, 5, 2]).image_ids == ("9", "5", "2")
    assert read_circo_questions(folder, "val").questions[0].captions == ("is new",)


def test_missing_images_are_counted(folder):
    with pytest.raises(DataError, match="circo: 4 of 4 images are missing"):
        read_circo(folder, images=folder / "x")
    assert len(read_circo(folder, images=folder / "x", check_images=False).image_ids) == 4


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("annotations/val.json", [{**ROW, "gt_img_ids": [9, 1]}], "the image 1, which is not in the gallery"),
        ("annotations/val.json", [{**ROW, "gt_img_ids": [2]}], "not among its right answers"),
        ("annotations/val.json", [{**ROW, "semantic_aspects": ["size"]}], "unknown aspect 'size'"),
        (
            "annotations/val.json",
            [{**ROW, "relative_caption": None}],
            "needs a field 'relative_caption' of the type str",
        ),
        ("annotations/val.json", [{**ROW, "gt_img_ids": [[9]]}], r"the image \[9\], which is not"),
        (INFO, {"pictures": []}, "is not the list of COCO's unlabelled images"),
    ],
)
def test_damaged_files_are_named(folder, file, value, message):
    write(folder / file, value)
    with pytest.raises(DataError, match=message):
        read_circo(folder)


def test_the_list_of_candidates_is_needed(folder):
    (folder / INFO).unlink()
    with pytest.raises(DataError, match=r"no file .*image_info_unlabeled2017\.json"):
        read_circo(folder, check_images=False)
    with pytest.raises(DataError, match="no split 'train'"):
        read_circo(folder, "train")
    with pytest.raises(DataError, match="not published"):
        read_circo(folder, "test")


def test_real_counts(shared):
    folder = shared / "data" / "circo"
    facts = json.loads((Path(__file__).parent.parent / "golden" / "11_metrics_circo.json").read_text())[
        "facts"
    ]
    rows = json.loads((folder / "annotations" / "val.json").read_text())
    known = sorted({image for row in rows for image in (row["reference_img_id"], *row["gt_img_ids"])})
    benchmark = read_circo(folder, gallery=known, check_images=False)
    assert len(benchmark.triplets) == facts["n_queries"]
    sizes = Counter(str(len(triplet.relevant)) for triplet in benchmark.triplets)
    assert sizes == facts["n_gt_distribution"]
    counts = Counter(aspect for triplet in benchmark.triplets for aspect in triplet.aspects)
    assert counts == facts["aspect_counts"]
    assert set(ASPECTS) == set(counts)
    assert all(triplet.reference not in triplet.relevant for triplet in benchmark.triplets)
    asked = json.loads((folder / "annotations" / "test.json").read_text())
    known = sorted({row["reference_img_id"] for row in asked})
    assert len(read_circo_questions(folder, gallery=known, check_images=False).questions) == 800
