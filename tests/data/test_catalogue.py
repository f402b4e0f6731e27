"""Reading a catalogue: all problems at once, by name, and correct splits."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqecir.data.catalogue import check_catalogue, read_catalogue
from dqecir.data.cells import UNKNOWN
from dqecir.data.images import format_of, load_image
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


def test_photos_of_phones_with_several_frames_are_pictures(tmp_path):
    folder = write(tmp_path / "c", 'front,color\na.mpo,red\n"b.MPO, c.jpg",blue\n', images=())
    for name, shade in (("a.mpo", 40), ("b.MPO", 80), ("c.jpg", 120)):
        frames = [Image.new("L", (4, 4), level) for level in (shade, 255)]
        frames[0].save(folder / name, format="MPO", save_all=True, append_images=frames[1:])
        assert format_of((folder / name).read_bytes()) == "MPO"
    catalogue = read_catalogue(folder)
    assert [path.name for path in catalogue.image_paths] == ["a.mpo", "b.MPO", "c.jpg"]
    assert [load_image(path).getpixel((1, 1))[0] for path in catalogue.image_paths] == [40, 80, 120]


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
        (
            "img,,color\na,x,red\n",
            r"no column image: name the column of the pictures so, or give it this role in catalogue\.yaml; "
            r"did you mean 'img'\?",
        ),
        ("image\na.png\n", "no attribute column"),
        ("image,color,color\na.png,red,red\n", "2 columns named 'color'"),
        ("image,color,\na.png,red,x\n", "a column without a name"),
        ("image,color\n,red\n", "a row names no image"),
        ("image,color\n/a.png,red\n", "'/a.png' is an absolute path"),
        ("image,color\nC:\\a.png,red\n", "is an absolute path"),
        ("image,color\nx\\..\\..\\a.png,red\n", "points outside the folder"),
        ("image,color\na.png,red\na.png,blue\n", "'a.png' is in 2 rows"),
        ("image,split,color\na.png,,red\n", "a.png has the split '': write train, val or test"),
        (
            "image,split,color\na.png,trian,red\nb.png,trian,red\n",
            "a.png and 1 more picture have the split 'trian': write train, val or test",
        ),
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
    rows = "".join(f"{name},red,c{number}\n" for number, name in enumerate(names))
    (warning,) = check_catalogue(write(tmp_path / "c", f"image,color,code\n{rows}", names)).warnings
    assert warning == "column 'code' has another value in every row: is it an id?"


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
    with pytest.raises(DataError, match=r"'test' of the catalogue .* has no image"):
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
    (tmp_path / "attributes.csv").write_bytes(b"image,color\na.png,gr\x81n\n")
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


@pytest.mark.parametrize(
    "rows",
    [
        "a.png,red\n./a.png,blue\n",
        "a.png,red\nA.PNG,blue\n",
        "x//a.png,red\nx/a.png,blue\n",
        "x\\a.png,red\nx/./a.png,blue\n",
        "cafe\u0301.png,red\ncaf\u00e9.png,blue\n",
    ],
)
def test_two_rows_that_name_one_file_are_refused_with_their_lines(tmp_path, rows):
    (tmp_path / "c" / "x").mkdir(parents=True)
    folder = write(
        tmp_path / "c", f"image,color\nb.png,red\n{rows}", ("a.png", "b.png", "x/a.png", "café.png")
    )
    (problem,) = check_catalogue(folder).problems
    assert "is in 2 rows (lines 3, 4): keep one of them" in problem


def test_rows_of_one_product_with_one_picture_are_its_variants(tmp_path):
    rows = "1,g,a.png,S,12 EUR\n2,g,./a.png,M,9.50 EUR\n3,h,b.png,S,5 EUR\n"
    table = f"id,item_group_id,image_link,size,price\n{rows}"
    catalogue = read_catalogue(write(tmp_path / "c", table))
    assert catalogue.image_ids == ("a.png", "b.png")
    assert catalogue.attributes["size"] == ("S, M", "S")
    assert catalogue.attributes["price"] == ("9.50 EUR", "5 EUR")


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("A.PNG", "a.png"),
        ("x\\b.png", "x/b.png"),
        (".//X/b.png", "x/b.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("https://shop.example/files/B.png?v=12", "x/b.png"),
    ],
)
def test_a_name_written_otherwise_finds_its_file(tmp_path, written, file):
    (tmp_path / "c" / "x").mkdir(parents=True)
    folder = write(
        tmp_path / "c", f"image,color\n{written},red\n", ("a.png", "x/b.png", "cafe\u0301.png", "other.png")
    )
    catalogue = read_catalogue(folder)
    assert catalogue.image_ids == (file,)
    assert catalogue.image_paths[0].is_file()


def test_a_name_that_two_files_fit_is_refused(tmp_path):
    folder = write(tmp_path / "c", "image,color\nA.png,red\n", ("a.png", "a.PNG"))
    with pytest.raises(CatalogueError, match=r"'A.png' may be .* or .* \(line 2\): write its exact name"):
        read_catalogue(folder)


def test_case_and_blanks_of_a_header_do_not_matter(tmp_path):
    folder = write(tmp_path / "c", " Image , SPLIT,Old  Price,Color\na.png,train,5 EUR,red\n")
    catalogue = read_catalogue(folder)
    assert list(catalogue.attributes) == ["old price", "color"]
    assert catalogue.splits["train_all"].tolist() == [0]
    with pytest.raises(CatalogueError, match="2 columns named 'color'"):
        read_catalogue(write(tmp_path / "d", "image,Color,color\na.png,red,red\n"))


def test_numbers_are_read_as_their_column_writes_them(tmp_path):
    rows = "a.png;39,90 €;0,5 kg;1.299\nb.png;1.299 €;2,125 kg;1,5\nc.png;on request;;x1\n"
    table = f"image;price;weight;code\n{rows}"
    folder = write(tmp_path / "c", table)
    attributes = read_catalogue(folder).attributes
    assert attributes["weight"] == ("0,5 kg", "2.1250 kg", "")
    assert attributes["code"] == ("1.299", "1,5", "x1")
    assert "column 'weight': '2,125 kg' is read as '2.1250 kg', as the column writes its numbers" in (
        check_catalogue(folder).warnings
    )


def test_prices_in_several_currencies_are_a_warning(tmp_path):
    table = "image,price,cost,currency\na.png,€ 10,5 EUR,EUR\nb.png,US$ 10,5 €,usd\nc.png,10 dollars,,EUR\n"
    warnings = check_catalogue(write(tmp_path, table)).warnings
    said = [warning for warning in warnings if "several currencies ('EUR', 'USD')" in warning]
    assert [warning.split("'")[1] for warning in said] == ["price", "currency"]


def test_cells_without_a_number_are_listed(tmp_path):
    names = [f"{number}.png" for number in range(12)]
    rows = "".join(f"{name},{number}\n" for number, name in enumerate(names))
    folder = write(tmp_path / "c", f"image,price\n{rows}a.png,n/a\n", [*names, "a.png"])
    assert check_catalogue(folder).warnings == ("column 'price' has no number in 1 of its cells: 'n/a'",)


def test_the_first_of_numbered_columns_holds_the_main_picture(tmp_path):
    folder = write(tmp_path / "c", "sku,photo_1,photo_2,color\nA,a.png,b.png,red\nB,c.png,,blue\n")
    roles = check_catalogue(folder).roles
    assert (roles["photo_1"], roles["photo_2"]) == ("image", "further images")
    assert read_catalogue(folder).products == ("A", "A", "B")


def test_columns_are_prices_by_their_names_and_their_cells(tmp_path):
    table = "image;Preis;g:price;amount;weight\na.png;39,90;5;1.299 €;5 kg\nb.png;5;6;EUR 3;6 kg\n"
    roles = check_catalogue(write(tmp_path / "c", table)).roles
    assert [roles[name] for name in ("preis", "price", "amount", "weight")] == ["price"] * 3 + ["attribute"]


def test_values_by_which_people_mean_none_are_named(tmp_path):
    folder = write(tmp_path / "c", "image,color\na.png,N/A\nb.png,N/A\nc.png,-\n")
    says = "write ? for an unknown value, or leave the cell empty if none applies"
    assert check_catalogue(folder).warnings == (
        f"column 'color' has 'N/A' 2 times: {says}",
        f"column 'color' has '-' once: {says}",
    )


def test_a_table_or_settings_that_are_not_read_are_named(tmp_path):
    folder = write(tmp_path / "c", "image,color\na.png,red\n")
    (folder / "attributes.tsv").write_text("image\tcolor\na.png\tblue\n")
    says = "attributes.csv is read, and not attributes.tsv: write `table: attributes.tsv` into catalogue.yaml"
    assert check_catalogue(folder).warnings == (f"{says} to read that",)
    (folder / "catalogue.yml").write_text("table: attributes.tsv\n")
    with pytest.raises(CatalogueError, match=r"catalogue\.yml is not read: name it catalogue\.yaml"):
        read_catalogue(folder)
    (folder / "catalogue.yml").rename(folder / "catalogue.yaml")
    assert read_catalogue(folder).attributes == {"color": ("blue",)}
    (folder / "attributes.tsv").unlink()
    with pytest.raises(CatalogueError, match=r"names the table attributes\.tsv, which is not there: correct"):
        read_catalogue(folder)


def test_a_file_that_marks_an_open_workbook_is_no_table(tmp_path):
    folder = write(tmp_path / "c", "image,color\na.png,red\n")
    (folder / "attributes.csv").rename(folder / "export.csv")
    for name in ("~$export.csv", "._export.csv"):
        (folder / name).write_bytes(b"\x05owner")
    assert read_catalogue(folder).attributes == {"color": ("red",)}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_pipes_and_links_that_lead_nowhere_are_no_pictures(tmp_path):
    folder = write(tmp_path / "c", "image,color\na.png,red\nb.png,red\nC.png,red\nd.png,red\n", ["a.png"])
    (folder / "b.png").symlink_to("b.png")
    (folder / "c.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "d.png")
    says = "add it, or correct its name"
    assert check_catalogue(folder).problems == tuple(
        f"image {name!r} is not in the folder (line {line}): {says}"
        for line, name in enumerate(("b.png", "C.png", "d.png"), start=3)
    )


def test_a_file_of_another_folder_or_ending_is_suggested(tmp_path):
    folder = write(tmp_path / "c", "image,color\nA,red\nb.jpg,red\nphotos\\c.png,red\nd.png,red\ne.png,red\n")
    (folder / "images").mkdir()
    for name in ("images/d.png", "images/e.png", "e.gif"):
        shutil.copy(folder / "a.png", folder / name)
    says = ["write 'a.png' if", "write 'b.png' if", "write 'c.png' if", "write 'images/d.png' if"]
    for problem, hint in zip(
        check_catalogue(folder).problems, [*says, "write 'images/e.png' if"], strict=True
    ):
        assert problem.endswith(f": {hint} you mean that")
    (folder / "attributes.csv").write_text("image,color\ne,red\n")
    assert check_catalogue(folder).problems == (
        "image 'e' is not in the folder (line 2): add it, or correct its name",
    )


def test_an_address_may_leave_out_its_scheme(tmp_path):
    folder = write(tmp_path / "c", "image,color\n//cdn.example/x/a.png,red\n//cdn.example/gone.png,red\n")
    says = "image 'gone.png' is not in the folder (line 3): dqecir catalogue fetch downloads it"
    assert check_catalogue(folder).problems == (says,)


def test_a_value_that_is_likely_misspelt_is_named(tmp_path):
    names = [f"{number}.png" for number in range(30)]
    rows = "".join(f"{name},{'gren' if name == '7.png' else 'green'},{name[0]}\n" for name in names)
    folder = write(tmp_path / "c", f"image,color,n\n{rows}", names)
    assert check_catalogue(folder).warnings == (
        "column 'color' has 'gren' once and 'green' 29 times: is it misspelt?",
    )


def test_any_kind_of_table_under_any_name(tmp_path):
    folder = write(tmp_path / "c", "image,color\na.png,red\n")
    (folder / "attributes.csv").rename(folder / "export.csv")
    assert read_catalogue(folder).attributes == {"color": ("red",)}
    (folder / "other.jsonl").write_text('{"image": "b.png", "color": "blue"}\n')
    with pytest.raises(
        CatalogueError, match=r"several tables \(export.csv, other.jsonl\): write `table: export.csv`"
    ):
        read_catalogue(folder)
    (folder / "catalogue.yaml").write_text("table: other.jsonl\n")
    assert read_catalogue(folder).attributes == {"color": ("blue",)}


def test_roles_are_told_listed_and_changed(tmp_path):
    rows = "a.png,Red shirt,red,https://x.example/1,y\nb.png,Blue shirt,blue,https://x.example/2,z\n"
    table = f"img,name,Colour,web,misc\n{rows}"
    folder = write(tmp_path / "c", table)
    told = {"img": "image", "name": "title", "colour": "attribute", "web": "url", "misc": "attribute"}
    assert check_catalogue(folder).roles == told
    (folder / "catalogue.yaml").write_text("roles: {name: attribute, Misc: ignored}\n")
    catalogue = read_catalogue(folder)
    assert catalogue.roles == told | {"name": "attribute", "misc": "ignored"}
    assert list(catalogue.attributes) == ["name", "colour", "web"]
    (folder / "catalogue.yaml").write_text("roles: {nam: attribute, misc: nothing}\n")
    with pytest.raises(CatalogueError, match=r"roles\.misc"):
        read_catalogue(folder)
    (folder / "catalogue.yaml").write_text("roles: {nam: attribute}\n")
    with pytest.raises(
        CatalogueError,
        match=r"names the column 'nam', which attributes\.csv does not have; did you mean 'name'",
    ):
        read_catalogue(folder)


def test_availability_is_a_role_that_a_user_can_change(tmp_path):
    table = "image,state,color,left\na.png,in stock,red,0\nb.png,sold out,red,4\nc.png,perhaps,blue,0\n"
    folder = write(tmp_path / "c", table)
    (folder / "catalogue.yaml").write_text("roles: {state: availability}")
    report = check_catalogue(folder)
    assert report.roles == {
        "image": "image",
        "state": "availability",
        "color": "attribute",
        "left": "attribute",
    }
    assert ["'perhaps'" in warning for warning in report.warnings] == [True]
    assert read_catalogue(folder).sold_out == (False, True, False)
    (folder / "catalogue.yaml").write_text("roles: {state: attribute, left: availability}")
    assert read_catalogue(folder).sold_out == (True, False, True)
    (folder / "catalogue.yaml").write_text("roles: {state: ignored}")
    assert read_catalogue(folder).sold_out == (False, False, False)


def test_a_product_is_available_where_one_of_its_sizes_is(tmp_path):
    rows = ["s1,a.png,S,out_of_stock,0", "s1,a.png,M,in_stock,3", "s2,b.png,S,out_of_stock,0"]
    rows += ["s2,b.png,M,out_of_stock,0", "s3,c.png,S,,0"]
    header = "item_group_id,image,size,availability,quantity"
    catalogue = read_catalogue(write(tmp_path / "c", "\n".join([header, *rows])))
    assert catalogue.sold_out == (False, True, True)
    assert catalogue.attributes["availability"] == ("in_stock", "out_of_stock", "")
