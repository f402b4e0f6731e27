"""A user's own triplets: what is read, and the errors for wrong lines."""

import json

import pytest
from PIL import Image

from dqecir.data.own_triplets import read_triplets
from dqecir.errors import DataError
from dqecir.questions.asking import folder_questions


def write(folder, *lines, images=6):
    folder.mkdir(exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    for number in range(images):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / "images" / f"{number}.png")
    written = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "triplets.jsonl").write_text("\n".join(written) + "\n", encoding="utf-8")
    return folder


def line(reference=0, target=1, **more):
    texts = {"texts": ["is red"]}
    return {"reference": f"images/{reference}.png", "target": f"images/{target}.png", **texts, **more}


def test_a_line_becomes_a_triplet(tmp_path):
    right = ["images/3.png", "./images/1.png"]
    folder = write(
        tmp_path / "mine",
        line(split="val", texts=["is red", " and short "], right_answers=right),
        "",
        line(2, 4, split="val", category="shoes"),
        line(4, 5),
    )
    benchmark = read_triplets(folder, "val")
    assert benchmark.image_ids == tuple(f"images/{number}.png" for number in range(5))
    first, second = benchmark.triplets
    assert (first.reference, first.target, first.relevant) == (0, 1, (1, 3))
    assert first.captions == ("is red", "and short")
    assert {name: gallery.tolist() for name, gallery in benchmark.galleries.items()} == {
        "all": [0, 1, 3],
        "shoes": [2, 4],
    }
    assert second.relevant == (4,) and benchmark.mask_reference
    assert all(path.is_file() for path in benchmark.image_paths)


def test_further_candidates_stand_in_every_gallery(tmp_path):
    folder = write(tmp_path / "mine", line(split="val"), line(2, 4, split="val", category="shoes"))
    (folder / "gallery.txt").write_text("images/5.png\n\nimages/4.png\n")
    galleries = read_triplets(folder, "val").galleries
    assert [len(gallery) for gallery in galleries.values()] == [4, 3]


def test_dev_is_cut_out_of_train_by_reference(tmp_path):
    rows = [line(number % 4, 4 + number % 2, texts=[str(number)]) for number in range(12)]
    folder = write(tmp_path / "mine", *rows)
    train, dev = (read_triplets(folder, split) for split in ("train", "dev"))
    assert len(train.triplets) + len(dev.triplets) == 12
    named = [{one.image_ids[triplet.reference] for triplet in one.triplets} for one in (train, dev)]
    assert named[1] and not named[0] & named[1]
    assert len(read_triplets(folder, "train_all").triplets) == 12
    write(folder, *rows, line(0, 5, split="dev"))
    assert len(read_triplets(folder, "dev").triplets) == 1
    assert len(read_triplets(folder, "train").triplets) == 12


def test_a_count_is_drawn_by_seed(tmp_path):
    folder = write(tmp_path / "mine", *(line(texts=[str(n)], split="val") for n in range(20)))
    some = [read_triplets(folder, "val", 5, seed).triplets for seed in (0, 0, 1)]
    assert len(some[0]) == 5 and some[0] == some[1] != some[2]
    assert len(read_triplets(folder, "val", 50).triplets) == 20


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2: not a JSON object"),
        ("[1]", "line 2: not a JSON object with the fields reference"),
        (line(right=["images/3.png"]), "line 2: unknown field 'right'"),
        (line(splitt="val"), "unknown field 'splitt'; did you mean 'split'"),
        (
            {"reference": "images/0.png", "texts": ["x"]},
            "the field 'target' must name an image file, not None",
        ),
        (line(reference=0, target=0), "the reference 'images/0.png' is also an answer"),
        (line(right_answers=["images/1.png", "images/0.png"]), "is also an answer"),
        (line(right_answers="images/1.png"), "'right_answers' must be a list"),
        (line(texts="is red"), "'texts' must be a list"),
        (line(texts=[]), "'texts' must be a list with at least one entry"),
        (line(texts=["is red", " "]), "a text is empty"),
        (line(texts=[3]), "a text is empty or is no string (3)"),
        ('{"reference": "a", "target": "b", "texts": ["\\ud800"]}', "half of a character"),
        (line(split=1), "'split' must be a name, not 1"),
        (line(category=""), "'category' must be a name"),
        ({**line(), "reference": "../0.png"}, "must name a file in the folder"),
        ({**line(), "target": "/etc/passwd"}, "must name a file in the folder"),
        ({**line(), "target": ["images/1.png"]}, "must name an image file"),
        (line(target=9), "1 of 3 images are missing"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, bad, message):
    folder = write(
        tmp_path / "mine", line(split="val"), bad if isinstance(bad, str) else {"split": "val"} | bad
    )
    with pytest.raises(DataError) as refused:
        read_triplets(folder, "val")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_text_or_empty_and_a_split_without_lines(tmp_path):
    folder = write(tmp_path / "mine", line(split="val"))
    with pytest.raises(DataError, match="no line belongs to the split 'vall'; did you mean 'val'"):
        read_triplets(folder, "vall")
    (folder / "triplets.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_triplets(folder, "val")
    (folder / "triplets.jsonl").write_text(" \n")
    with pytest.raises(DataError, match="is empty"):
        read_triplets(folder, "val")
    with pytest.raises(DataError, match="leave out 'garment'"):
        folder_questions(folder, "val", gallery_column="garment")
