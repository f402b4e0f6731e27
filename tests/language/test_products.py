"""Texts about a shop of 40,000 products, written from its columns alone, with their readings."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from dqecir.language.reader import Reader

TEXTS = Path(__file__).with_name("products.jsonl")
COLUMNS = ("gender", "category", "kind", "article", "color", "usage", "brand")


@pytest.fixture(scope="module")
def reader(shared) -> Reader:
    table = shared / "data" / "products" / "attributes.csv"
    if not table.is_file():
        pytest.skip("the products are not there")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = {column: Counter(row[column] for row in rows if row[column]) for column in COLUMNS}
    return Reader(
        {column: [value for value, _ in found.most_common()] for column, found in counts.items()}, ["price"]
    )


def test_texts_about_products_are_read_as_they_are_meant(reader):
    right = said_too_much = missed = 0
    misread = []
    for line in TEXTS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        wanted = {tuple(ask) for ask in row["asks"]}
        read = {(ask.column, ask.operation, ask.value) for ask in reader.read(row["text"]).asks}
        right += len(read & wanted)
        said_too_much += len(read - wanted)
        missed += len(wanted - read)
        if read != wanted:
            misread.append((row["text"], sorted(map(str, read - wanted)), sorted(map(str, wanted - read))))
    f1 = 200 * right / (2 * right + said_too_much + missed)
    assert f1 >= 92, "\n".join(map(str, misread))
