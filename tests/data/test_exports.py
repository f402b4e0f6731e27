"""Exports of shop systems: recognised, and converted to plain tables."""

import csv
import io

from dqecir.data.catalogue import check_catalogue, read_catalogue
from tests.data.test_catalogue import write


def table(*rows: dict[str, str]) -> str:
    header = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


ADDRESS = "https://cdn.shop.example/s/files/{}.png?v=1"


def test_shopify(tmp_path):
    shirt = {
        "Handle": "shirt",
        "Title": "Linen shirt",
        "Body (HTML)": "<p>Airy</p>",
        "Vendor": "Kestrel",
        "Type": "Shirt",
    }
    shirt |= {
        "Option1 Name": "Size",
        "Option1 Value": "S",
        "Variant Price": "29.90",
        "Image Src": ADDRESS.format("a"),
    }
    shirt |= {"Variant Inventory Qty": "3", "Color (product.metafields.shopify.color-pattern)": "blue"}
    rows = [
        shirt,
        {"Handle": "shirt", "Option1 Value": "M", "Variant Price": "24.90", "Image Src": ADDRESS.format("b")},
        {"Handle": "shirt", "Option1 Value": "L", "Variant Price": "29.90"},
        {
            "Handle": "hat",
            "Title": "Hat",
            "Option1 Name": "Title",
            "Option1 Value": "Default Title",
            "Variant Price": "9",
        },
    ]
    folder = write(tmp_path / "c", table(*rows))
    catalogue = read_catalogue(folder)
    assert catalogue.image_ids == ("a.png", "b.png")
    first = {name: cells[0] for name, cells in catalogue.attributes.items()}
    facts = {
        "handle": "shirt",
        "title": "Linen shirt",
        "description": "<p>Airy</p>",
        "brand": "Kestrel",
        "type": "Shirt",
    }
    assert first == facts | {"color": "blue", "size": "S, M, L", "price": "24.90", "availability": "in stock"}
    assert catalogue.roles["description"] == "description"
    assert check_catalogue(folder).warnings[:2] == (
        "attributes.csv is an export of Shopify, with 2 pictures of products",
        "attributes.csv: 1 product without a picture left out (lines 5)",
    )


def test_woocommerce(tmp_path):
    dress = {
        "ID": "7",
        "Type": "variable",
        "SKU": "D1",
        "Name": "Dress",
        "Regular price": "",
        "Categories": "Dresses",
    }
    dress |= {"Images": f"{ADDRESS.format('a')}, {ADDRESS.format('b')}", "Parent": ""}
    dress |= {"Attribute 1 name": "Color", "Attribute 1 value(s)": "red, blue"}
    blue = {
        "ID": "8",
        "Type": "variation",
        "SKU": "D1-b",
        "Name": "Dress",
        "Regular price": "49",
        "Sale price": "39",
    }
    blue |= {
        "Images": ADDRESS.format("c"),
        "Parent": "D1",
        "Attribute 1 name": "Color",
        "Attribute 1 value(s)": "blue",
    }
    plain = {"ID": "9", "Type": "variation", "SKU": "D1-r", "Name": "Dress", "Images": "", "Parent": "D1"}
    catalogue = read_catalogue(write(tmp_path / "c", table(dress, blue, plain)))
    assert catalogue.image_ids == ("a.png", "b.png", "c.png")
    assert catalogue.attributes["color"] == ("red, blue", "red, blue", "blue")
    assert catalogue.attributes["price"] == ("39",) * 3
    assert catalogue.attributes["category"] == ("Dresses",) * 3
    assert catalogue.attributes["product id"] == catalogue.products == ("D1",) * 3


def test_google_merchant(tmp_path):
    row = {"id": "1", "title": "Shirt", "description": "Airy", "link": "https://shop.example/1"}
    row |= {
        "image_link": ADDRESS.format("a"),
        "additional_image_link": ADDRESS.format("b"),
        "price": "15.00 USD",
    }
    row |= {"color": "blue", "gtin": "0001234567890"}
    folder = write(tmp_path / "c", table(row).replace(",", "\t"))
    catalogue = read_catalogue(folder)
    assert catalogue.image_ids == ("a.png", "b.png")
    assert catalogue.products == ("1", "1")
    roles = {
        "image_link": "image",
        "additional_image_link": "further images",
        "link": "url",
        "price": "price",
    }
    assert roles.items() <= catalogue.roles.items()
    assert catalogue.attributes["gtin"] == ("0001234567890",) * 2
    assert "additional_image_link" not in catalogue.attributes


def test_availability_in_exports(tmp_path):
    def variant(handle: str, quantity: str, **more: str) -> dict[str, str]:
        told = {"Variant Inventory Tracker": "shopify", "Variant Inventory Policy": "deny", **more}
        return {"Handle": handle, "Variant Inventory Qty": quantity, **told}

    def product(handle: str, quantity: str, **more: str) -> dict[str, str]:
        return {"Title": handle, "Image Src": ADDRESS.format(handle)} | variant(handle, quantity, **more)

    rows = [
        product("a", "0"),
        variant("a", "2"),
        product("b", "0"),
        variant("b", "-1"),
        {"Handle": "b", "Image Src": ADDRESS.format("b2")},
        product("c", "0", **{"Variant Inventory Policy": "continue"}),
        product("d", "0", **{"Variant Inventory Tracker": ""}),
        product("e", ""),
    ]
    folder = write(tmp_path / "c", table(*rows), ["a.png", "b.png", "b2.png", "c.png", "d.png", "e.png"])
    catalogue = read_catalogue(folder)
    assert catalogue.sold_out == (False, True, True, False, False, False)
    rows = [
        {"Type": "variable", "SKU": "s", "Name": "Shirt", "In stock?": "1", "Images": ADDRESS.format("a")},
        {"Type": "variation", "Parent": "s", "In stock?": "0", "Images": ADDRESS.format("b")},
        {
            "Type": "simple",
            "SKU": "h",
            "Name": "Hat",
            "In stock?": "backorder",
            "Images": ADDRESS.format("c"),
        },
    ]
    catalogue = read_catalogue(write(tmp_path / "w", table(*rows)))
    assert catalogue.roles["in stock"] == "availability"
    assert catalogue.sold_out == (False, False, False)


def test_options_and_attributes_that_are_named_as_other_columns_keep_their_values(tmp_path):
    cream = {"Handle": "cream", "Title": "Cream", "Type": "Skin care", "Image Src": ADDRESS.format("a")}
    cream |= {"Option1 Name": "Type", "Option1 Value": "Gel", "Option2 Name": "Price", "Option2 Value": "low"}
    attributes = read_catalogue(write(tmp_path / "s", table(cream | {"Variant Price": "9"}))).attributes
    assert [attributes[name] for name in ("type", "type (option)", "price", "price (option)")] == [
        ("Skin care",),
        ("Gel",),
        ("9",),
        ("low",),
    ]
    mug = {"ID": "1", "Type": "simple", "SKU": "M", "Name": "Mug", "Images": ADDRESS.format("a")}
    for number, name in enumerate(("Brand", "Regular price", "Name", "Price", "Image"), start=1):
        mug |= {f"Attribute {number} name": name, f"Attribute {number} value(s)": f"own {name}"}
    attributes = read_catalogue(write(tmp_path / "w", table(mug | {"Regular price": "5"}))).attributes
    assert attributes["brand"] == ("own Brand",)
    assert (attributes["price"], attributes["price (attribute)"]) == (("5",), ("own Price",))
    assert attributes["image (attribute)"] == ("own Image",)
    assert attributes["title"] == ("Mug",)


def test_an_export_without_pictures_is_one_problem(tmp_path):
    report = check_catalogue(write(tmp_path / "c", table({"Handle": "a", "Title": "A", "Image Src": ""})))
    assert report.problems == ("attributes.csv names no picture of a product",)
