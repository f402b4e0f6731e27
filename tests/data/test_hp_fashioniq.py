"""HP-FashionIQ: the real file, and damaged ones."""

import json
from collections import Counter

import pytest

from dqecir.data.hp_fashioniq import read_hp_fashioniq
from dqecir.errors import DataError


def sheet(**changes):
    return {
        "ref_img_paths": ["/-/image_data/shirt/A.jpg"],
        "targ_img_paths": ["/-/image_data/shirt/B.jpg"],
        "sentences": ["is blue dotmark"],
        "retrieved_set1": [{"img_path": ["/-/image_data/shirt/C.jpg"], "user_score": "4"}],
        "retrieved_set2": [{"img_path": ["/-/image_data/shirt/A.jpg"], "user_score": "2"}],
        "preferred set": ["1"],
        **changes,
    }


def written(folder, value):
    (folder / "hpfiq.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return folder / "hpfiq.json"


def test_a_small_file(tmp_path):
    path = written(tmp_path, {"user_1": {"question_set_1": sheet()}})
    preferences = read_hp_fashioniq(path, check_images=False)
    assert preferences.image_ids == ("A", "B", "C")
    (judgement,) = preferences.judgements
    assert (judgement.reference, judgement.target, judgement.sets) == (0, 1, ((2,), (0,)))
    assert (judgement.user_scores, judgement.preferred) == ((4, 2), 1)
    assert (judgement.user, judgement.category, judgement.text) == ("user_1", "shirt", "is blue dotmark")
    with pytest.raises(DataError, match=r"hp_fashioniq: 3 of 3 images are missing \(.*images/A\.jpg"):
        read_hp_fashioniq(path)
    (tmp_path / "here").mkdir()
    for name in ("A.png", "B.jpg", "C.jpg"):
        (tmp_path / "here" / name).touch()
    assert read_hp_fashioniq(path, tmp_path / "here").image_paths[0].name == "A.png"


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"user_1": []},
        {"user_1": {"q": {}}},
        {"user_1": {"q": sheet(**{"preferred set": ["3"]})}},
        {"user_1": {"q": sheet(**{"preferred set": []})}},
        {"user_1": {"q": sheet(retrieved_set1=[{"img_path": []}])}},
    ],
)
def test_damaged_files_are_refused(tmp_path, value):
    with pytest.raises(DataError, match="is not the HP-FashionIQ file"):
        read_hp_fashioniq(written(tmp_path, value), check_images=False)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_hp_fashioniq(tmp_path / "hpfiq.json")
    with pytest.raises(DataError, match="is not JSON"):
        read_hp_fashioniq(written(tmp_path, "{"))


def test_real_counts(shared):
    path = shared / "data" / "hp_fashioniq" / "hpfiq.json"
    judgements = read_hp_fashioniq(path, check_images=False).judgements
    assert len(judgements) == 3050
    assert set(Counter(judgement.user for judgement in judgements).values()) == {50}
    assert Counter(judgement.category for judgement in judgements) == {"shirt": 1800, "toptee": 1250}
    assert Counter(judgement.preferred for judgement in judgements) == {1: 1641, 2: 1409}
    assert all(len(images) == 5 for judgement in judgements for images in judgement.sets)
    assert {score for judgement in judgements for score in judgement.user_scores} == {1, 2, 3, 4, 5}
