"""i-CIR: a small folder laid out as its authors publish it."""

import pytest

from dqecir.data.icir import read_icir
from dqecir.errors import DataError

QUERIES = ["query/owl/1.jpg,at night,owl", "query/mug/1.jpg,on grass,mug", "query/owl/2.jpg,as a toy,owl"]
DATABASE = [
    "database/owl/a.jpg,at night,owl",
    "database/owl/b.jpg,hard negative,owl",
    "database/mug/a.jpg,on grass,mug",
    "database/owl/c.jpg,at night,owl",
    "database/owl/d.jpg,as a toy,owl",
    "database/cup/a.jpg,on grass,cup",
]


def write(folder, queries=QUERIES, database=DATABASE, prefix=""):
    folder.mkdir()
    for name, lines in (("query_files.csv", queries), ("database_files.csv", database)):
        (folder / name).write_text("".join(f"{prefix}{line}\n" for line in lines))
        for line in lines:
            path = folder / line.split(",")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


@pytest.mark.parametrize("prefix", ["", "icir/"])
def test_a_small_folder(tmp_path, prefix):
    benchmark = read_icir(write(tmp_path / "icir", prefix=prefix))
    assert {name: gallery.tolist() for name, gallery in benchmark.galleries.items()} == {
        "owl": [3, 4, 6, 7],
        "mug": [5],
    }
    assert [triplet.relevant for triplet in benchmark.triplets] == [(3, 6), (5,), (7,)]
    assert benchmark.triplets[2].captions == ("as a toy",)
    assert all(path.is_file() for path in benchmark.image_paths) and not benchmark.mask_reference


def test_what_cannot_be_used_is_named(tmp_path):
    folder = write(tmp_path / "icir")
    (folder / "database" / "cup" / "a.jpg").unlink()
    with pytest.raises(DataError, match="i-cir: 1 of 9 images are missing"):
        read_icir(folder)
    assert len(read_icir(folder, "val", check_images=False).image_ids) == 9
    with pytest.raises(DataError, match="no split 'train'"):
        read_icir(folder, "train")
    with pytest.raises(DataError, match=r"'query/mug/1\.jpg' has no right answer"):
        read_icir(write(tmp_path / "other", database=DATABASE[:2] + DATABASE[3:]))
    with pytest.raises(DataError, match="line 2: the three fields"):
        read_icir(write(tmp_path / "commas", [QUERIES[0], "query/a.jpg,at night, in snow,owl"]))
    with pytest.raises(DataError, match="there is no file"):
        read_icir(tmp_path)
