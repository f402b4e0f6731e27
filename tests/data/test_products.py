"""Products of a table: variants, views, and warnings."""

from pathlib import Path

import pytest
from openpyxl import Workbook
from PIL import Image

from dqecir.data.catalogue import Catalogue, check_catalogue, read_catalogue
from dqecir.data.cells import UNKNOWN
from dqecir.errors import CatalogueError

Rows = list[dict[str, str]]
CDN = "https://cdn.shop.example/files/{}.png?v=17"


def shop(folder: Path, rows: Rows, images: str = "abcd", kind: str = "csv") -> Path:
    """Return a folder of pictures and a table of the rows, as CSV or as a workbook."""
    folder.mkdir()
    for name in images:
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
    header = list(dict.fromkeys(name for row in rows for name in row))
    cells = [header, *([row.get(name, "") for name in header] for row in rows)]
    if kind == "xlsx":
        book = Workbook()
        for row in cells:
            book.active.append(row)
        book.save(folder / "export.xlsx")
    else:
        lines = (",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells)
        (folder / "export.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def values(catalogue: Catalogue, column: str) -> list[tuple[str, ...]]:
    """Return the values of each image."""
    several = catalogue.several.get(column, {})
    return [several.get(i, (cell,)) for i, cell in enumerate(catalogue.attributes[column])]


SHOPIFY: Rows = [
    {
        "Handle": "tee",
        "Title": "Tee",
        "Vendor": "Kestrel",
        "Option1 Name": "Color",
        "Option1 Value": "Red",
        "Option2 Name": "Size",
        "Option2 Value": "S",
        "Variant Price": "20.00",
        "Image Src": CDN.format("a"),
        "Image Position": "1",
        "Variant Image": CDN.format("a"),
    },
    {
        "Handle": "tee",
        "Option1 Value": "Red",
        "Option2 Value": "M",
        "Variant Price": "22.00",
        "Image Src": CDN.format("b"),
        "Image Position": "2",
        "Variant Image": CDN.format("a"),
    },
    {
        "Handle": "tee",
        "Option1 Value": "Blue",
        "Option2 Value": "M",
        "Variant Price": "18.00",
        "Variant Image": CDN.format("b"),
    },
    {"Handle": "tee", "Image Src": CDN.format("c"), "Image Position": "3"},
    {
        "Handle": "cap",
        "Title": "Cap",
        "Vendor": "Kestrel",
        "Option1 Name": "Title",
        "Option1 Value": "Default Title",
        "Variant Price": "9.00",
        "Image Src": CDN.format("d"),
        "Image Position": "1",
    },
]
RENAMED = {
    "Handle": "URL handle",
    "Image Src": "Product image URL",
    "Variant Image": "Variant image URL",
    "Variant Price": "Price",
    "Option1 Name": "Option1 name",
    "Option1 Value": "Option1 value",
    "Option2 Name": "Option2 name",
    "Option2 Value": "Option2 value",
}


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
@pytest.mark.parametrize("names", [{}, RENAMED], ids=["since 2013", "since 2025"])
def test_shopify_variants_and_views(tmp_path, kind, names):
    rows = [{names.get(name, name): cell for name, cell in row.items()} for row in SHOPIFY]
    catalogue = read_catalogue(shop(tmp_path / "s", rows, kind=kind))
    assert catalogue.image_ids == ("a.png", "b.png", "c.png", "d.png")
    assert catalogue.products == ("tee", "tee", "tee", "cap")
    assert catalogue.attributes["title"] == ("Tee", "Tee", "Tee", "Cap")
    # A picture of a variant shows it; one of the product may show any.
    assert values(catalogue, "color") == [("Red",), ("Blue",), ("Red", "Blue"), ("",)]
    assert values(catalogue, "size") == [("S", "M"), ("M",), ("S", "M"), ("",)]
    assert values(catalogue, "price") == [("18.00", "20.00", "22.00")] * 3 + [("9.00",)]
    assert catalogue.attributes["price"] == ("18.00", "18.00", "18.00", "9.00")
    report = check_catalogue(shop(tmp_path / "t", rows, kind=kind))
    assert (report.products, report.counts["images"], report.variants) == (2, 4, 3)
    assert report.values["size"] == {"M": 3, "S": 2}


def test_shopify_rows_of_pictures_without_a_handle_go_on_with_the_product_above(tmp_path):
    rows = [*SHOPIFY[:1], {"Image Src": CDN.format("b"), "Image Position": "2"}]
    assert read_catalogue(shop(tmp_path / "s", rows)).products == ("tee", "tee")


WOOCOMMERCE: Rows = [
    {
        "ID": "44",
        "Type": "variable",
        "SKU": "hoodie",
        "Name": "Hoodie",
        "Categories": "Hoodies",
        "Images": f"{CDN.format('a')}, {CDN.format('b')}",
        "Attribute 1 name": "Color",
        "Attribute 1 value(s)": "Red, Blue",
        "Attribute 2 name": "Size",
        "Attribute 2 value(s)": "38, 40, 42",
    },
    {
        "ID": "51",
        "Type": "variation",
        "SKU": "hoodie-red",
        "Name": "Hoodie - Red",
        "Regular price": "45",
        "Sale price": "42",
        "Parent": "hoodie",
        "Images": CDN.format("c"),
        "Attribute 1 name": "Color",
        "Attribute 1 value(s)": "Red",
        "Attribute 2 name": "Size",
    },
    {
        "ID": "52",
        "Type": "variation",
        "Name": "Hoodie - Blue",
        "Regular price": "45",
        "Parent": "id:44",
        "Attribute 1 name": "Color",
        "Attribute 1 value(s)": "Blue",
    },
    {
        "ID": "60",
        "Type": "simple",
        "SKU": "mug",
        "Name": "Mug",
        "Regular price": "8",
        "Images": CDN.format("d"),
        "Attribute 1 name": "Care",
        "Attribute 1 value(s)": "by hand\\, warm, dishwasher",
    },
]


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_woocommerce_variations_and_views(tmp_path, kind):
    catalogue = read_catalogue(shop(tmp_path / "s", WOOCOMMERCE, kind=kind))
    assert catalogue.image_ids == ("a.png", "b.png", "c.png", "d.png")
    assert catalogue.products == ("hoodie", "hoodie", "hoodie", "mug")
    assert catalogue.attributes["title"] == ("Hoodie", "Hoodie", "Hoodie", "Mug")
    assert values(catalogue, "color") == [("Red", "Blue"), ("Red", "Blue"), ("Red",), ("",)]
    assert values(catalogue, "size") == [("38", "40", "42")] * 3 + [("",)]
    assert values(catalogue, "care")[3] == ("by hand, warm", "dishwasher")
    assert values(catalogue, "price") == [("42", "45")] * 3 + [("8",)]


def test_a_woocommerce_parent_without_a_picture_has_those_of_its_variations(tmp_path):
    parent, red, *_ = WOOCOMMERCE
    folder = shop(tmp_path / "s", [{**parent, "Images": ""}, red])
    report = check_catalogue(folder)
    assert (report.products, report.counts["images"], report.problems) == (1, 1, ())
    assert read_catalogue(folder).products == ("hoodie",)


GOOGLE: Rows = [
    {
        "id": f"p1-{colour}-{size}",
        "item_group_id": "p1",
        "title": "Polo",
        "link": f"https://shop.example/p1?{colour}",
        "image_link": CDN.format(picture),
        "additional_image_link": CDN.format("c"),
        "price": f"{price} EUR",
        "color": colour,
        "size": size,
    }
    for colour, size, picture, price in (
        ("red", "S", "a", "30.00"),
        ("red", "M", "a", "30.00"),
        ("blue", "S", "b", "25.00"),
    )
]
GOOGLE.append({"id": "p2", "title": "Sock", "image_link": CDN.format("d"), "price": "5.00 EUR"})


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_google_merchant_groups_and_views(tmp_path, kind):
    catalogue = read_catalogue(shop(tmp_path / "s", GOOGLE, kind=kind))
    assert catalogue.image_ids == ("a.png", "c.png", "b.png", "d.png")
    assert catalogue.products == ("p1", "p1", "p1", "p2")
    assert values(catalogue, "color") == [("red",), ("red", "blue"), ("blue",), ("",)]
    assert values(catalogue, "size") == [("S", "M"), ("S", "M"), ("S",), ("",)]
    assert values(catalogue, "price") == [("25.00 EUR", "30.00 EUR")] * 3 + [("5.00 EUR",)]


def test_google_merchant_has_several_further_pictures_in_a_cell(tmp_path):
    further = ",".join(CDN.format(f"{name}_w_10,h_10") for name in "bc")
    rows = [{"id": "1", "image_link": CDN.format("a"), "additional_image_link": further, "color": "red"}]
    folder = shop(tmp_path / "s", rows, images=("a", "b_w_10,h_10", "c_w_10,h_10"))
    assert read_catalogue(folder).image_ids == ("a.png", "b_w_10,h_10.png", "c_w_10,h_10.png")


def test_a_plain_table_may_name_several_files_in_a_cell_or_in_columns(tmp_path):
    rows = [
        {"image": "a.png; b.png", "image 2": "", "color": "red"},
        {"image": "c.png", "image 2": "d.png", "color": "blue"},
    ]
    catalogue = read_catalogue(shop(tmp_path / "s", rows))
    assert catalogue.image_ids == ("a.png", "b.png", "c.png", "d.png")
    assert catalogue.products == ("a.png", "a.png", "c.png", "c.png")


def test_a_comma_may_be_part_of_a_files_name(tmp_path):
    rows = [{"image": "a.png, b.png", "color": "red"}]
    folder = shop(tmp_path / "s", rows, images=("a", "b", "a.png, b"))
    assert read_catalogue(folder).image_ids == ("a.png, b.png",)


def test_rows_of_one_id_are_one_product_and_a_row_without_a_picture_is_a_variant(tmp_path):
    rows = [
        {"sku": "1", "image": "a.png", "color": "red", "size": "S", "price": "10"},
        {"sku": "1", "image": "", "color": "", "size": "M", "price": "1.200"},
        {"sku": "1", "image": "b.png", "color": "?", "size": "L", "price": "9,50"},
    ]
    catalogue = read_catalogue(shop(tmp_path / "s", rows))
    assert catalogue.products == ("1", "1")
    assert values(catalogue, "size") == [("S", "M"), ("L",)]
    assert values(catalogue, "color") == [("red",), (UNKNOWN,)]
    assert values(catalogue, "price") == [("9,50", "10", "1200")] * 2


def test_a_parent_that_names_no_row_groups_nothing(tmp_path):
    rows = [{"sku": name, "parent": "clothes", "image": f"{name}.png", "color": "red"} for name in "ab"]
    assert not read_catalogue(shop(tmp_path / "s", rows)).has_views


def test_children_belong_to_the_row_that_their_parent_column_names(tmp_path):
    rows = [
        {"id": "1", "sku": "S", "parent": "", "image": "a.png", "color": "?"},
        {"id": "2", "sku": "S-1", "parent": "S", "image": "b.png", "color": "red"},
        {"id": "3", "sku": "S-2", "parent": "1", "image": "c.png", "color": "red"},
    ]
    assert read_catalogue(shop(tmp_path / "s", rows)).products == ("1", "1", "1")


def test_a_product_keeps_its_other_pictures_where_the_first_is_missing(tmp_path):
    rows = [dict(row) for row in SHOPIFY]
    folder = shop(tmp_path / "s", rows, images="bcd")
    catalogue = read_catalogue(folder)
    assert catalogue.image_ids == ("b.png", "c.png", "d.png")
    (warning,) = [one for one in check_catalogue(folder).warnings if "a.png" in one]
    assert warning == (
        "image 'a.png' is not in the folder (line 2): dqecir catalogue fetch downloads it; "
        "the product keeps its other pictures"
    )


def test_a_product_all_of_whose_pictures_are_missing_is_a_problem(tmp_path):
    with pytest.raises(CatalogueError, match=r"'d.png' is not in the folder \(line 6\)"):
        read_catalogue(shop(tmp_path / "s", SHOPIFY, images="abc"))


def test_two_products_may_show_one_picture(tmp_path):
    rows = [
        {"id": "1", "image": "a.png", "color": "red"},
        {"id": "2", "image": "b.png, a.png", "color": "blue"},
    ]
    folder = shop(tmp_path / "s", rows)
    catalogue = read_catalogue(folder)
    assert catalogue.image_ids == ("a.png", "b.png", "a.png@2")
    assert [path.name for path in catalogue.image_paths] == ["a.png", "b.png", "a.png"]
    assert catalogue.attributes["color"] == ("red", "blue", "blue")
    assert "1 picture of several products, such as 'a.png' of 1, 2" in check_catalogue(folder).warnings


def test_a_product_of_200_views(tmp_path):
    names = [f"{number}" for number in range(200)]
    rows = [{"id": "1", "image": f"{name}.png", "color": "red"} for name in names]
    rows.append({"id": "2", "image": "a.png", "color": "blue"})
    catalogue = read_catalogue(shop(tmp_path / "s", rows, images=("a", *names)))
    assert len(catalogue.image_ids) == 201
    # A product is in one split, whole.
    assert sorted(len(catalogue.splits[name]) for name in ("train_all", "val", "test"))[-1] >= 200


def test_rows_of_one_product_that_differ_in_title_are_named(tmp_path):
    rows = [
        {"id": "1", "image": "a.png", "title": "Shirt", "color": "red"},
        {"id": "1", "image": "b.png", "title": "Teapot", "color": "red"},
    ]
    folder = shop(tmp_path / "s", rows)
    assert check_catalogue(folder).warnings == (
        "rows of one product differ in 'title', so each picture has the value of its own row: "
        "'1': 'Shirt' (line 2), 'Teapot' (line 3)",
    )
    assert read_catalogue(folder).attributes["title"] == ("Shirt", "Teapot")


def test_a_product_in_two_splits_is_a_problem(tmp_path):
    rows = [
        {"id": "1", "image": "a.png", "split": "train", "color": "red"},
        {"id": "1", "image": "b.png", "split": "val", "color": "red"},
    ]
    with pytest.raises(CatalogueError, match="the product '1' is in the splits train, val"):
        read_catalogue(shop(tmp_path / "s", rows))


@pytest.mark.parametrize("lost", ["", "gone.png"])
def test_a_row_that_shows_no_picture_belongs_to_the_one_most_like_it(tmp_path, lost):
    rows = [
        {"handle": "tee", "image": "a.png", "size": "S", "color": "red"},
        {"handle": "tee", "image": "b.png", "size": "S", "color": "blue"},
        {"handle": "tee", "image": lost, "size": "M", "color": "blue"},
        {"handle": "tee", "image": lost, "size": "L", "color": "red"},
        {"handle": "cap", "image": "c.png", "size": "S", "color": ""},
        {"handle": "cap", "image": lost, "size": "M", "color": "green"},
    ]
    catalogue = read_catalogue(shop(tmp_path / "shop", rows, "abc"))
    assert values(catalogue, "size") == [("S", "L"), ("S", "M"), ("S", "M")]
    assert values(catalogue, "color") == [("red",), ("blue",), ("green",)]
