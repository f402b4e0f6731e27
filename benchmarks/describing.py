"""Measure how often ``dqecir describe`` is right, and write the tables of the shipped model's card.

    python -m benchmarks.describing --photos PHOTOS --products PRODUCTS

PHOTOS and PRODUCTS are catalogues whose ``attributes.csv`` has a column ``split``. The pictures of ``val``
are described. An empty cell of PRODUCTS is unknown; in PHOTOS it means that the column does not apply.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path

from benchmarks.pages import write_part

from dqecir.io.markdown import table
from dqecir.model.describer import Describer
from dqecir.search.describing import COLUMN_SETS, ColumnSet, describe_pictures

ROOT = Path(__file__).parents[1]
CARD = ROOT / "recipes" / "ship-shop-card.md"
EARLIER = ROOT / "tests" / "models" / "of_0_1_0"


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the validation split."""
    with (folder / "attributes.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "val"]


def described(
    describer: Describer, folder: Path, rows: Sequence[Mapping[str, str]], columns: ColumnSet
) -> list[dict[str, str]]:
    """Return column -> predicted value for each row's picture."""
    paths = [folder / row["image"] for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "described.jsonl"
        describe_pictures(paths, describer, out, columns)
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    # A row whose picture cannot be read counts as wrong.
    return [{name: told["value"] for name, told in line.get("attributes", {}).items()} for line in lines]


def share(right: Sequence[bool]) -> str:
    """Return the percentage of right predictions, and its standard error."""
    part = sum(right) / len(right)
    return f"{100 * part:.1f} ± {100 * sqrt(part * (1 - part) / len(right)):.1f}"


def shares(
    rows: Sequence[Mapping[str, str]], found: Sequence[Mapping[str, str]], columns: ColumnSet
) -> list[str]:
    """Return the share of right predictions for every column, and for all columns of rows without unknown
    cells.
    """
    pairs = list(zip(rows, found, strict=True))
    whole = columns == "photos"
    cells = [
        share([row[name] == told.get(name) for row, told in pairs if whole or row[name]])
        for name in COLUMN_SETS[columns]
    ]
    return (
        [
            *cells,
            share([all(row[name] == told.get(name) for name in COLUMN_SETS[columns]) for row, told in pairs]),
        ]
        if whole
        else cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--products", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="A model folder. Default: the shipped model.")
    given = parser.parse_args()
    describer, before = Describer.from_pretrained(given.model), Describer.from_pretrained(EARLIER)
    photos, products = rows_of(given.photos), rows_of(given.products)
    written = [
        "Share of pictures whose value is named rightly, in percent, with its standard error over pictures.\n"
        f"One seed. Machine: {platform.machine()}, {os.cpu_count()} cores.\n"
    ]
    parts: tuple[tuple[ColumnSet, Path, list[dict[str, str]], dict[str, Describer]], ...] = (
        ("photos", given.photos, photos, {"this model": describer, "the model of version 0.1.0": before}),
        ("products", given.products, products, {"this model": describer}),
    )
    for columns, folder, rows, compared in parts:
        head = [
            f"{columns} ({len(rows):,})",
            *COLUMN_SETS[columns],
            *(["all seven"] if columns == "photos" else []),
        ]
        body = [
            [name, *shares(rows, described(one, folder, rows, columns), columns)]
            for name, one in compared.items()
        ]
        written += [*table(head, body), ""]
    write_part(CARD, "accuracy", written)


if __name__ == "__main__":
    main()
