"""Fashion200k: texts and right answers as TIRG makes them, checked by hand."""

import numpy as np
import pytest

from dqecir.data.fashion200k import read_fashion200k
from dqecir.errors import DataError
from dqecir.evaluation.metrics import collect
from dqecir.evaluation.protocols import PROTOCOLS


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "dress_test_detect_all.txt").write_text(
        "a.jpeg\t0.9\tblue lace dress\nb.jpeg\t0.9\tred lace dress\nc.jpeg\t0.8\tred lace dress\n"
    )
    (tmp_path / "labels" / "skirt_test_detect_all.txt").write_text("d.jpeg\t0.9\tno. 5 skirt & belt\n")
    (tmp_path / "labels" / "dress_train_detect_all.txt").write_text("x.jpeg\t0.9\tgreen dress\n")
    (tmp_path / "test_queries.txt").write_text("a.jpeg b.jpeg\nb.jpeg c.jpeg\nd.jpeg a.jpeg\n")
    return tmp_path


def test_texts_replace_the_first_word_that_differs(folder):
    read = read_fashion200k(folder, check_images=False)
    assert read.image_ids == ("a.jpeg", "b.jpeg", "c.jpeg", "d.jpeg") and read.mask_reference
    assert [(t.captions[0], t.relevant) for t in read.triplets] == [
        ("replace blue with red", (1, 2)),
        ("replace dress with dress", (2,)),  # descriptions that are equal: the last word
        ("replace nodotmark with blue", (0,)),
    ]


def test_any_picture_of_the_description_counts(folder):
    protocol = PROTOCOLS["fashion200k"]
    benchmark = protocol.benchmark(folder, "test", check_images=False)
    scores = np.array([[9, 1, 5, 4], [1, 9, 2, 3], [1, 2, 3, 9]], dtype=np.float32)
    results = collect(benchmark, [("all", np.arange(3), scores)])
    # The reference is left out: c is first and right; c is second; a is third.
    found = protocol.summarise(results)
    assert found["R_any@1"] == pytest.approx(100 / 3)
    assert found["R_any@5"] == 100


def test_damaged_files_are_refused(folder):
    with pytest.raises(DataError, match="'train' has no queries"):
        read_fashion200k(folder, "train")
    with pytest.raises(DataError, match="4 of 4 images are missing"):
        read_fashion200k(folder)
    (folder / "test_queries.txt").write_text("a.jpeg x.jpeg\n")
    with pytest.raises(DataError, match="line 1: two pictures that the files in labels/ list"):
        read_fashion200k(folder, check_images=False)
    (folder / "labels" / "skirt_test_detect_all.txt").write_text("d.jpeg\tskirt\n")
    with pytest.raises(DataError, match="line 1: a picture, a score and a description are expected"):
        read_fashion200k(folder, check_images=False)
    with pytest.raises(DataError, match=r"has no file \*test\*"):
        read_fashion200k(folder / "labels", check_images=False)
