"""Bring the exports of shop systems into the form of a plain table: one row a picture, one column a fact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dqecir.data.availability import says_available
from dqecir.data.cells import number_in
from dqecir.data.column_roles import column_name
from dqecir.data.tables import Row, Table


@dataclass(frozen=True)
class Record:
    """A row by the names of its columns."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.cells.get(name, "")


@dataclass(frozen=True)
class _Export:
    shop: str
    signs: frozenset[str]
    """Columns that tell the export from any other table."""
    pictures: Callable[[Sequence[Record]], Iterator[Record]]
    """Its rows as records with an ``image``; a product without a picture is one record without it."""


_SHOPIFY = {
    "title": "title",
    "body (html)": "description",
    "vendor": "brand",
    "product category": "category",
    "type": "type",
    "tags": "tags",
}
_SHOPIFY_NAMED = " (product.metafields."
"""Behind the name of a fact that a shop added by itself."""
_WOOCOMMERCE = {
    "sku": "sku",
    "name": "title",
    "short description": "short description",
    "description": "description",
    "categories": "category",
    "brands": "brand",
    "in stock?": "in stock",
}


def plain_table(table: Table) -> Table:
    """Return an export of Shopify or WooCommerce as a plain table, and any other table as it is.

    Google Merchant's is a plain table already. The notes name the export, and the products without a picture.
    """
    names = [column_name(name) for name in table.header]
    export = next((export for export in _EXPORTS if export.signs <= set(names)), None)
    if export is None:
        return table
    records = [Record(row.line, dict(zip(names, row.cells, strict=True))) for row in table.rows]
    found = list(export.pictures(records))
    shown = [record for record in found if record["image"]]
    header = tuple(dict.fromkeys(name for record in shown for name in record.cells))
    notes = [f"{table.name} is an export of {export.shop}: {len(shown)} pictures of products are read"]
    if lacking := [str(record.line) for record in found if not record["image"]]:
        lines = ", ".join(lacking[:10]) + (", …" if len(lacking) > 10 else "")
        notes.append(
            f"{table.name}: {len(lacking)} products name no picture and are left out (lines {lines})"
        )
    return replace(
        table,
        header=header or table.header,
        rows=tuple(Row(record.line, tuple(record[name] for name in header)) for record in shown),
        problems=table.problems + (() if shown else (f"{table.name} names no picture of a product",)),
        notes=(*table.notes, *notes),
    )


def _shopify(records: Sequence[Record]) -> Iterator[Record]:
    """Every picture of every product. Its first row alone has its facts; the rows below are its variants."""
    products: dict[str, list[Record]] = {}
    for record in records:
        products.setdefault(record["handle"], []).append(record)
    for handle, rows in products.items():
        first = rows[0]
        facts = {"handle": handle} | {name: first[column] for column, name in _SHOPIFY.items()}
        facts |= {
            column.partition(_SHOPIFY_NAMED)[0]: cell
            for column, cell in first.cells.items()
            if _SHOPIFY_NAMED in column
        }
        for number in (1, 2, 3):
            name = column_name(first[f"option{number} name"])
            if name not in ("", "title"):
                facts[name] = several(row[f"option{number} value"] for row in rows)
        facts["price"] = lowest(row["variant price"] for row in rows)
        facts["availability"] = _shopify_availability(rows)
        shown = {row["image src"]: row.line for row in reversed(rows) if row["image src"]}
        for image, line in sorted(shown.items(), key=lambda one: one[1]) or [("", first.line)]:
            yield Record(line, {"image": image, **facts})


def _shopify_availability(rows: Sequence[Record]) -> str:
    """What the stock of a product's variants says; rows that only add a picture have none."""
    stocks = [row for row in rows if row["variant inventory qty"]]
    can_be_ordered = (
        row["variant inventory policy"] == "continue"
        or row.cells.get("variant inventory tracker") == ""
        or says_available("stock", row["variant inventory qty"])
        for row in stocks
    )
    return "" if not stocks else "in stock" if any(can_be_ordered) else "out of stock"


def _woocommerce(records: Sequence[Record]) -> Iterator[Record]:
    """The first picture of every product, and of every variation that has one of its own."""
    parents = {f"id:{record['id']}": record for record in records}
    parents |= {record["sku"]: record for record in records if record["sku"]}
    nothing = Record(0, {})
    for record in records:
        parent = parents.get(record["parent"], nothing) if record["parent"] else nothing
        if parent is not nothing and not record["images"]:
            continue
        facts = {"product id": record["parent"] or record["sku"] or f"id:{record['id']}"}
        facts |= {name: record[column] or parent[column] for column, name in _WOOCOMMERCE.items()}
        facts["price"] = record["sale price"] or record["regular price"] or parent["regular price"]
        for source in (parent, record):
            for column, name in source.cells.items():
                if column.startswith("attribute ") and column.endswith(" name") and name:
                    facts[column_name(name)] = source[f"{column.removesuffix(' name')} value(s)"]
        image, *further = record["images"].split(", ")
        yield Record(record.line, {"image": image, **facts, "further images": ", ".join(further)})


def several(cells: Iterable[str]) -> str:
    """Return the different cells as one text."""
    return ", ".join(dict.fromkeys(cell for cell in cells if cell))


def lowest(cells: Iterable[str]) -> str:
    """Return the cell of the lowest number, which is the price that a product starts from."""
    numbers = {cell: number for cell in cells if (number := number_in(cell, is_money=True)) is not None}
    return min(numbers, key=numbers.__getitem__, default="")


_EXPORTS = (
    _Export("Shopify", frozenset({"handle", "title", "image src"}), _shopify),
    _Export("WooCommerce", frozenset({"type", "sku", "name", "images"}), _woocommerce),
)
