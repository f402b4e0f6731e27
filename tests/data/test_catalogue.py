"""Reading a catalogue: every problem at once, by name; splits that hold."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqecir.data.catalogue import check_catalogue, read_catalogue
from dqecir.data.cells import UNKNOWN
from dqecir.data.images import load_image
from dqecir.errors import CatalogueError, DataError


def write(folder: Path, table: str, images=("a.png", "b.png", "c.png")) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "attributes.csv").write_text(table, encoding="utf-8")
    for name in images:
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


def test_reads_what_a_shop_has(tmp_path):
    folder = write(
        tmp_path / "c",
        "image,split,color,sleeves\na.png,train,red,\nb.png,val,?,long\nc.png,test,blue,short\n",
    )
    catalogue = read_catalogue(folder)
    assert catalogue.attributes == {"color": ("red", UNKNOWN, "blue"), "sleeves": ("", "long", "short")}
    assert catalogue.splits["val"].tolist() == [1]


def test_says_every_problem_at_once(tmp_path):
    rows = ["a.png,train,red", "a.png,trian,red", "../x.png,val,red", "missing.png,val,red", "b.png,val"]
    table = "\n".join(["image,split,color", *rows])
    with pytest.raises(CatalogueError) as error:
        read_catalogue(write(tmp_path / "c", table))
    text = str(error.value)
    for part in ("'trian'", "a.png", "../x.png", "missing.png", "cells"):
        assert part in text, part


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "is empty"),
        ("image,color\n", "no rows"),
        ("img,color\na.png,red\n", "no column image"),
        ("image\na.png\n", "no attribute column"),
        ("image,color,color\na.png,red,red\n", "2 columns named 'color'"),
        ("image,color,\na.png,red,x\n", "a column without a name"),
        ("image,color\n,red\n", "a row names no image"),
        ("image,color\n/a.png,red\n", "'/a.png' is an absolute path"),
        ("image,color\nC:\\a.png,red\n", "is an absolute path"),
        ("image,color\nx\\..\\..\\a.png,red\n", "leads out of the folder"),
        ("image,color\na.png,red\na.png,blue\n", "'a.png' stands in 2 rows"),
        ("image,split,color\na.png,,red\n", "1 rows have the split ''; a split is train, val or test"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, table, message):
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(write(tmp_path / "c", table))


def test_a_byte_order_mark_blanks_and_empty_lines_do_no_harm(tmp_path):
    folder = write(tmp_path / "c", "\ufeffimage, color\r\na.png, red \r\n\r\nb.png,\r\n")
    assert read_catalogue(folder).attributes == {"color": ("red", "")}


def test_what_is_odd_is_a_warning(tmp_path):
    folder = write(tmp_path / "c", "image,color,fabric\na.png,red,\nb.png,Red,\nc.png,blue,\n")
    report = check_catalogue(folder)
    assert report.problems == ()
    assert sorted(report.warnings) == [
        "column 'color' spells one value in several ways: Red, red",
        "column 'fabric' is empty everywhere and is left out",
    ]
    assert "fabric" not in read_catalogue(folder).attributes


def test_a_column_that_looks_like_an_id_is_a_warning(tmp_path):
    names = [f"{number}.png" for number in range(21)]
    rows = "".join(f"{name},red,sku{number}\n" for number, name in enumerate(names))
    (warning,) = check_catalogue(write(tmp_path / "c", f"image,color,sku\n{rows}", names)).warnings
    assert warning == "column 'sku' has another value in every row: is it an id?"


def test_long_lists_of_problems_are_cut_in_the_message_alone(tmp_path):
    rows = "".join(f"{number}.png,red\n" for number in range(50))
    with pytest.raises(CatalogueError) as error:
        read_catalogue(write(tmp_path / "c", f"image,color\n{rows}"))
    assert len(error.value.problems) == 50
    assert str(error.value).endswith("- and 30 more")


def test_a_split_that_is_not_there_is_named(tmp_path):
    catalogue = read_catalogue(write(tmp_path / "c", "image,split,color\na.png,train,red\n"))
    with pytest.raises(DataError, match="did you mean 'train'"):
        catalogue.split("trian")
    with pytest.raises(DataError, match=r"'test' of the catalogue .* holds no image"):
        catalogue.split("test")


def test_splits_do_not_depend_on_the_order_of_the_rows(tmp_path):
    names = [f"{number}.png" for number in range(40)]

    def split(folder, order):
        rows = "".join(f"{name},red\n" for name in order)
        catalogue = read_catalogue(write(folder, f"image,color\n{rows}", names))
        return {
            part: {catalogue.image_ids[i] for i in positions} for part, positions in catalogue.splits.items()
        }

    assert split(tmp_path / "one", names) == split(tmp_path / "other", names[::-1])


def test_sets_are_read_and_are_no_attribute(tmp_path):
    table = "image,set,split,color\na.png,s1,train,red\nb.png,s1,train,blue\nc.png,,val,red\n"
    catalogue = read_catalogue(write(tmp_path / "c", table))
    assert catalogue.sets == ("s1", "s1", "")
    assert list(catalogue.attributes) == ["color"]
    without = write(tmp_path / "d", "image,set,color\na.png,,red\nb.png,?,blue\n")
    assert read_catalogue(without).sets is None


def test_a_set_in_two_splits_is_a_problem(tmp_path):
    table = "image,set,split,color\na.png,s1,train,red\nb.png,s1,val,blue\nc.png,?,val,red\n"
    with pytest.raises(CatalogueError, match="the set 's1' is in the splits train, val"):
        read_catalogue(write(tmp_path / "c", table))


def test_a_drawn_split_keeps_sets_whole(tmp_path):
    names = [f"{number}.png" for number in range(120)]
    rows = "".join(f"{name},s{number // 6},red\n" for number, name in enumerate(names))
    catalogue = read_catalogue(write(tmp_path / "c", f"image,set,color\n{rows}", names))
    for part in ("train", "dev", "val", "test"):
        positions = catalogue.split(part).tolist()
        assert len(positions) == 6 * len({catalogue.sets[i] for i in positions})


def test_no_folder_no_table_no_text(tmp_path):
    with pytest.raises(CatalogueError, match="no such folder"):
        read_catalogue(tmp_path / "nowhere")
    with pytest.raises(CatalogueError, match=r"no file attributes\.csv"):
        read_catalogue(tmp_path)
    (tmp_path / "attributes.csv").write_bytes("image,color\na.png,gr\xfcn\n".encode("latin-1"))
    with pytest.raises(CatalogueError, match="not UTF-8"):
        read_catalogue(tmp_path)


def test_a_check_opens_every_picture(tmp_path):
    folder = write(tmp_path / "c", "image,color\na.png,red\nb.png,blue\nc.png,red\n")
    (folder / "b.png").write_text("broken")
    assert check_catalogue(folder).problems == ()
    report = check_catalogue(folder, decode=load_image)
    assert len(report.problems) == 1
    assert "b.png" in report.problems[0]
    assert report.values["color"] == {"red": 2, "blue": 1}


def test_splits_are_drawn_by_seed_and_cover_everything(garments_folder, tmp_path):
    rows = (garments_folder / "attributes.csv").read_text().splitlines()
    table = "\n".join(",".join([*row.split(",")[:1], *row.split(",")[2:]]) for row in rows)
    folder = tmp_path / "nosplit"
    folder.mkdir()
    (folder / "images").symlink_to(garments_folder / "images")
    (folder / "attributes.csv").write_text(table)
    one, again, other = (read_catalogue(folder, seed).splits for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["val"], other["val"])
    parts = np.concatenate([one["train_all"], one["val"], one["test"]])
    assert sorted(parts.tolist()) == list(range(240))
    assert len(one["train_all"]) == 192
    assert sorted([*one["train"], *one["dev"]]) == one["train_all"].tolist()
    assert len(one["dev"]) == pytest.approx(0.15 * 192, abs=1)


def test_the_real_photos_can_be_used(shared):
    report = check_catalogue(shared / "data" / "photos")
    assert report.problems == ()
    assert report.counts["images"] == 4524
    assert report.counts["val"] == 800
