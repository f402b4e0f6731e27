"""Convert exports of shop systems to plain tables: one column for each fact, and one for the product's id."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dqecir.data.availability import says_available
from dqecir.data.column_roles import column_name
from dqecir.data.products import SEPARATOR
from dqecir.data.tables import Row, Table
from dqecir.errors import counted


@dataclass(frozen=True)
class Record:
    """A row whose cells are found by column name; ``line`` is its line in the file.

    ``record[name]`` is an empty text if the row has no such column.
    """

    line: int
    cells: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.cells.get(name, "")


@dataclass(frozen=True)
class _Export:
    shop: str
    signs: frozenset[str]
    """Names of columns by which the export is recognised."""
    product: str
    """Column of the plain rows with the product's id."""
    rows: Callable[[Sequence[Record]], Iterator[Record]]
    """Function that converts rows of the export to plain rows, each of which is a picture, a variant, or
    both."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Column of the export -> its name in the plain table."""


_SHOPIFY = {
    "title": "title",
    "body (html)": "description",
    "vendor": "brand",
    "product category": "category",
    "type": "type",
    "tags": "tags",
}
_SHOPIFY_COLUMNS = frozenset({"handle", "image", "price", "availability", *_SHOPIFY.values()})
_SHOPIFY_NAMED = " (product.metafields."
"""What follows the name of a column that the shop itself has added."""
_WOOCOMMERCE = {
    "sku": "sku",
    "name": "title",
    "short description": "short description",
    "description": "description",
    "categories": "category",
    "brands": "brand",
    "in stock?": "in stock",
}
_BETWEEN_VALUES = re.compile(r"(?<!\\),\s*")


def plain_table(table: Table) -> Table:
    """Convert an export of Shopify or WooCommerce to a plain table; any other table is returned unchanged.

    Google Merchant's export already is a plain table. Products without a picture are left out. Notes of the
    result name the export, and count these products. If no product has a picture, the result has a problem.
    """
    names = [column_name(name) for name in table.header]
    export = next((export for export in _EXPORTS if export.signs <= set(names)), None)
    if export is None:
        return table
    names = [export.renamed.get(name, name) for name in names]
    records = [Record(row.line, dict(zip(names, row.cells, strict=True))) for row in table.rows]
    rows = list(export.rows(records))
    pictured = {row[export.product] for row in rows if row["image"]}
    shown = [row for row in rows if row[export.product] in pictured]
    header = tuple(dict.fromkeys(name for row in shown for name in row.cells))
    count = len({row["image"] for row in shown if row["image"]})
    notes = [f"{table.name} is an export of {export.shop}, with {counted(count, 'picture')} of products"]
    lacking: dict[str, int] = {}
    for row in rows:
        if row[export.product] not in pictured:
            lacking.setdefault(row[export.product], row.line)
    if lacking:
        lines = ", ".join(map(str, [*lacking.values()][:10])) + (", …" if len(lacking) > 10 else "")
        notes.append(
            f"{table.name}: {counted(len(lacking), 'product')} without a picture left out (lines {lines})"
        )
    return replace(
        table,
        header=header,
        rows=tuple(Row(row.line, tuple(row[name] for name in header)) for row in shown),
        problems=table.problems + (() if shown else (f"{table.name} names no picture of a product",)),
        notes=(*table.notes, *notes),
    )


def _shopify(records: Sequence[Record]) -> Iterator[Record]:
    """Yield a row for every picture of every product, and for its variants.

    Only the first row of a product has its facts. The picture in the main column belongs to the product, even
    in the row of a variant; the variant's own picture is in another column.
    """
    products: dict[str, list[Record]] = {}
    handle = ""
    for record in records:
        handle = record["handle"] or handle
        products.setdefault(handle, []).append(record)
    for handle, rows in products.items():
        first = rows[0]
        facts = {name: first[column] for column, name in _SHOPIFY.items()}
        facts |= {
            column.partition(_SHOPIFY_NAMED)[0]: cell
            for column, cell in first.cells.items()
            if _SHOPIFY_NAMED in column
        }
        options = {
            f"option{number} value": name
            for number in (1, 2, 3)
            if (name := column_name(first[f"option{number} name"])) not in ("", "title")
        }
        # An option of a shop may have the name of another column: "Type" or "Price".
        options = {
            column: f"{name} (option)" if name in _SHOPIFY_COLUMNS else name
            for column, name in options.items()
        }
        facts["availability"] = _shopify_availability(rows)
        for row in sorted(rows, key=_image_position):
            if row["image src"]:
                yield Record(row.line, {"handle": handle, "image": row["image src"]})
        for row in rows:
            if row is first or row["variant price"] or row["option1 value"]:
                variant = {name: row[column] for column, name in options.items()}
                image = row["variant image"]
                price = {"price": row["variant price"]}
                yield Record(row.line, {"handle": handle, "image": image, **facts, **variant, **price})


def _image_position(row: Record) -> tuple[int, int]:
    place = row["image position"]
    return (int(place) if place.isdecimal() else 0), row.line


def _shopify_availability(rows: Sequence[Record]) -> str:
    """Return the availability of a product from its variants; rows that only add a picture do not count."""
    stocks = [row for row in rows if row["variant inventory qty"]]
    can_be_ordered = (
        row["variant inventory policy"].casefold() == "continue"
        or row.cells.get("variant inventory tracker") == ""
        or says_available("stock", row["variant inventory qty"])
        for row in stocks
    )
    return "" if not stocks else "in stock" if any(can_be_ordered) else "out of stock"


def _woocommerce(records: Sequence[Record]) -> Iterator[Record]:
    """Yield a row for every product and every variation, with their pictures."""
    parents = {f"id:{record['id']}": record for record in records}
    parents |= {record["sku"]: record for record in records if record["sku"]}
    for record in records:
        parent = parents.get(record["parent"], record) if record["parent"] else record
        own = record["sku"] or f"id:{record['id']}"
        product = record["parent"] if parent is record else parent["sku"] or f"id:{parent['id']}"
        facts = {"product id": product or own}
        for column, name in _WOOCOMMERCE.items():
            facts[name] = record[column] or parent[column]
        facts["title"] = parent["name"] or record["name"]
        facts["price"] = record["sale price"] or record["regular price"] or parent["regular price"]
        for column, name in record.cells.items():
            if column.startswith("attribute ") and column.endswith(" name") and name:
                values = _BETWEEN_VALUES.split(record[f"{column.removesuffix(' name')} value(s)"])
                own = column_name(name)
                # An attribute may have the name of another column, such as "Brand" or "Price".
                own = f"{own} (attribute)" if own == "image" or facts.get(own) else own
                facts[own] = SEPARATOR.join(value.replace("\\,", ",") for value in values)
        yield Record(record.line, {"image": record["images"], **facts})


_EXPORTS = (
    _Export("Shopify", frozenset({"handle", "title", "image src"}), "handle", _shopify),
    _Export(
        "Shopify",
        frozenset({"url handle", "title", "product image url"}),
        "handle",
        _shopify,
        {
            "url handle": "handle",
            "description": "body (html)",
            "product image url": "image src",
            "variant image url": "variant image",
            "price": "variant price",
            "inventory quantity": "variant inventory qty",
            "inventory tracker": "variant inventory tracker",
            "continue selling when out of stock": "variant inventory policy",
        },
    ),
    _Export("WooCommerce", frozenset({"type", "sku", "name", "images"}), "product id", _woocommerce),
)
