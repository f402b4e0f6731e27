"""LaSCo: a small folder laid out as its authors publish it."""

import json

import pytest

from dqecir.data.lasco import read_lasco
from dqecir.errors import DataError


def image(number):
    return [number, f"val2014/COCO_val2014_{number:012d}.jpg"]


ROW = {"qid": 7000, "query-image": image(7), "query-text": "it rides", "target-image": image(9)}


def write(folder, rows):
    corpus = [{"id": number, "path": f"val/{image(number)[1]}"} for number in (3, 7, 9)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lasco_val.json").write_text(json.dumps(rows))
    (folder / "lasco_val_corpus.json").write_text(json.dumps(corpus))
    return folder


@pytest.mark.parametrize("inside", [".", "downloads"])
def test_a_small_folder(tmp_path, inside):
    write(tmp_path / inside, [ROW])
    benchmark = read_lasco(tmp_path, check_images=False)
    assert benchmark.image_ids == ("3", "7", "9") and benchmark.galleries["all"].tolist() == [0, 1, 2]
    (triplet,) = benchmark.triplets
    assert (triplet.reference, triplet.target, triplet.captions) == (1, 2, ("it rides",))
    assert benchmark.image_paths[1] == tmp_path / image(7)[1] and not benchmark.mask_reference
    with pytest.raises(DataError, match="lasco: 3 of 3 images are missing"):
        read_lasco(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target-image": image(5)}, "which is not in the corpus"),
        ({"query-image": []}, "which is not in the corpus"),
        ({"query-text": 3}, "needs a field 'query-text' of the type str"),
    ],
)
def test_a_damaged_entry_is_named(tmp_path, change, message):
    write(tmp_path, [{**ROW, **change}])
    with pytest.raises(DataError, match=message):
        read_lasco(tmp_path, check_images=False)
    with pytest.raises(DataError, match="split 'train' has no known gallery"):
        read_lasco(tmp_path, "train")
