"""Availability of products in the tables of shops."""

import pytest

from dqecir.data.availability import SOLD_OUT, best_availability, is_sold_out, marked, says_available
from dqecir.data.column_roles import roles_of


@pytest.mark.parametrize(
    ("name", "cell", "available"),
    [
        ("availability", "in stock", True),
        ("availability", "in_stock", True),
        ("availability", "Out-of-Stock", False),
        ("availability", "https://schema.org/PreOrder", True),
        ("availability", "http://schema.org/SoldOut", False),
        ("stock_status", "outofstock", False),
        ("stock_status", "onbackorder", True),
        ("in stock?", "1", True),
        ("in stock?", "0", False),
        ("is_in_stock", "false", False),
        ("variant inventory qty", "-2", False),
        ("stock", "0.0", False),
        ("stock", "12 pcs", True),
        ("stock", "only 3 left", True),
        ("stock", "0 in stock", False),
        ("stock", ">10", True),
        ("Lagerbestand", "1.200", True),
        ("Verfügbarkeit", "Nicht lieferbar", False),
        ("sold out", "yes", False),
        ("sold_out", "0", True),
        ("stock", "in stock (5)", True),
        ("stock", "In stock: 3", True),
        ("stock", "in stock (0)", False),
        ("stock", "out of stock (2)", False),
        ("verfügbar", "FALSCH", False),
        ("sold", "1", False),
        ("sold", "12", None),
        ("availability", "Coming soon!", False),
        ("stock", "rupture de stock", False),
        ("stock", "sin stock", False),
        ("availability", "niet op voorraad", False),
        ("sold out", "sold out", False),
        ("availability", "ask us", None),
        ("availability", "", None),
        ("availability", "?", None),
    ],
)
def test_cells(name, cell, available):
    assert says_available(name, cell) is available


@pytest.mark.parametrize(
    ("name", "cells", "role"),
    [
        ("availability", ["in_stock", "out_of_stock", "preorder"], "availability"),
        ("variant inventory qty", ["3", "0", "-1"], "availability"),
        ("stock", ["", "4", "?"], "availability"),
        ("stock", ["velvet", "silk"], "attribute"),
        ("stock", ["0", "Out of Stock", "in stock", "shelf 3", "ask us"], "availability"),
        ("stock", ["4", "shelf 3", "ask us"], "attribute"),
        ("state", ["in stock", "sold out", "new", "used"], "attribute"),
        ("sold", ["0", "12", "1"], "attribute"),
        ("sold", ["0", "1"], "availability"),
        ("available", ["from May", "from June"], "attribute"),
        ("state", ["In Stock", "sold out", "in stock"], "availability"),
        ("waterproof", ["yes", "no"], "attribute"),
        ("pockets", ["0", "2"], "attribute"),
        ("quantity", ["0", "7"], "availability"),
        ("quantity", ["6", "12"], "attribute"),
        ("sold out", ["true", "false"], "availability"),
        ("note", ["sold out", "x" * 100], "attribute"),
    ],
)
def test_a_column_is_told_by_its_name_and_its_cells(name, cells, role):
    assert roles_of([name], [cells]) == [role]


def test_words_count_before_numbers_and_what_is_unknown_can_be_ordered():
    assert not is_sold_out({"stock": "0", "availability": "backorder"})
    assert is_sold_out({"stock": "5", "availability": "out of stock"})
    assert is_sold_out({"stock": "0", "availability": "?"})
    assert not is_sold_out({"availability": "maybe"})
    assert not is_sold_out({})


def test_a_product_can_be_ordered_where_one_of_its_variants_can():
    assert best_availability("stock", ["0", "3", ""]) == "3"
    assert best_availability("sold out", ["yes", "no"]) == "no"
    assert best_availability("availability", ["sold out", "", "sold out"]) == ""
    assert best_availability("availability", ["sold out", "discontinued"]) == "sold out"


def test_attributes_that_are_put_are_marked_by_their_names():
    assert marked({"availability": "out of stock", "color": "red"})[SOLD_OUT] is True
    assert marked({"in stock": False})[SOLD_OUT] is True
    assert marked({"stock": 0})[SOLD_OUT] is True
    for kept in ({"stock": 3}, {"color": "sold out"}, {"waterproof": False}, {}):
        assert marked(kept) == kept
