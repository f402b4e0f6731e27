"""Numbers in texts: read, and removed from them."""

import pytest

from dqecir.language.numeric_constraints import ConstraintReader, speaks_of_numbers

COLUMNS = ["old_price", "price", "year", "heel_height"]


def said(text: str) -> tuple[str, list[tuple[str, str, float | None]]]:
    rest, bounds = ConstraintReader(COLUMNS).parted(text)
    return rest, [(bound.column, bound.order, bound.number) for bound in bounds]


@pytest.mark.parametrize(
    ("text", "rest", "bounds"),
    [
        ("is red and is cheaper", "is red", [("price", "<", None)]),
        ("Cheaper, and with long sleeves", "with long sleeves", [("price", "<", None)]),
        ("is blue, more expensive and newer", "is blue", [("price", ">", None), ("year", ">", None)]),
        ("is red, cheaper than this one", "is red", [("price", "<", None)]),
        ("costs less but is red", "is red", [("price", "<", None)]),
        ("is red, at a lower price", "is red", [("price", "<", None)]),
        ("is red and of a higher heel height", "is red", [("heel_height", ">", None)]),
        ("a lower old price", "", [("old_price", "<", None)]),
    ],
)
def test_comparisons_with_the_reference(text, rest, bounds):
    assert speaks_of_numbers(text)
    assert said(text) == (rest, bounds)


@pytest.mark.parametrize(
    ("text", "rest", "bounds"),
    [
        ("is red under 40 euros", "is red", [("price", "<", 40.0)]),
        ("a red dress below €50 with long sleeves", "a red dress with long sleeves", [("price", "<", 50.0)]),
        ("is red and costs at most 1.299,50 €", "is red", [("price", "<=", 1299.5)]),
        ("no more than 40 dollars, red", "red", [("price", "<=", 40.0)]),
        ("red, under 1.000 euros", "red", [("price", "<", 1000.0)]),
        ("costs under 1.000", "", [("price", "<", 1000.0)]),
        ("for at least £ 1,250", "", [("price", ">=", 1250.0)]),
        ("less than $20.", "", [("price", "<", 20.0)]),
        ("red, under 300 kr", "red", [("price", "<", 300.0)]),
        ("red, under US$ 30", "red", [("price", "<", 30.0)]),
        ("red, at most Sek 1.299,50", "red", [("price", "<=", 1299.5)]),
        ("above ₹ 2,000 and blue", "blue", [("price", ">", 2000.0)]),
        ("between Rs. 200 and Rs. 400", "", [("price", ">=", 200.0), ("price", "<=", 400.0)]),
        ("between 20 and 40 Euro, red", "red", [("price", ">=", 20.0), ("price", "<=", 40.0)]),
        ("costs less than 30", "", [("price", "<", 30.0)]),
        ("cheaper than 40 and blue", "blue", [("price", "<", 40.0)]),
        ("price under 40", "", [("price", "<", 40.0)]),
        ("an old price above 100", "", [("old_price", ">", 100.0)]),
        ("between 20 and 40 euros and blue", "blue", [("price", ">=", 20.0), ("price", "<=", 40.0)]),
        ("with a price from 20 to 30", "", [("price", ">=", 20.0), ("price", "<=", 30.0)]),
        ("blue, newer than 2018", "blue", [("year", ">", 2018.0)]),
        ("before 2015 and red", "red", [("year", "<", 2015.0)]),
        ("from 2018 on, blue", "blue", [("year", ">=", 2018.0)]),
        ("between 2015 and 2019", "", [("year", ">=", 2015.0), ("year", "<=", 2019.0)]),
        ("between 40 and 20 euros", "", [("price", ">=", 20.0), ("price", "<=", 40.0)]),
        ("red, 20-40 euros", "red", [("price", ">=", 20.0), ("price", "<=", 40.0)]),
        ("red for 20 to 40 $", "red", [("price", ">=", 20.0), ("price", "<=", 40.0)]),
        ("blue, €20 – €39,90", "blue", [("price", ">=", 20.0), ("price", "<=", 39.9)]),
        ("price: 20-40, red", "red", [("price", ">=", 20.0), ("price", "<=", 40.0)]),
        ("2015-2019, red", "red", [("year", ">=", 2015.0), ("year", "<=", 2019.0)]),
        ("red, <50€", "red", [("price", "<", 50.0)]),
        ("red <= 50 EUR", "red", [("price", "<=", 50.0)]),
        ("price<50 and red", "red", [("price", "<", 50.0)]),
        ("year >= 2018", "", [("year", ">=", 2018.0)]),
        ("red, ≥ 20 euros", "red", [("price", ">=", 20.0)]),
        ("not over 40 euros", "", [("price", "<=", 40.0)]),
        ("red and not under 40 euros", "red", [("price", ">=", 40.0)]),
        ("no higher than $40", "", [("price", "<=", 40.0)]),
    ],
)
def test_bounds_of_their_own(text, rest, bounds):
    assert speaks_of_numbers(text)
    assert said(text) == (rest, bounds)


@pytest.mark.parametrize(
    "text",
    [
        "is red",
        "is not cheaper but red",
        "not cheaper than 40 euros",
        "pack of 2-3, red",
        "size 36-38",
        "1-2-3 euros",
        "items 5-2019",
        "with an older look",
        "is cheaper looking",
        "has 2 buttons",
        "has more than 2 pockets",
        "under 40",
        "is more formal and less shiny",
        "of a lower neckline",
        "under 1.2.3 euros",
        "price under 0012",
        "between 007 and 40 euros",
        "costs at most 99999999999999999999",
        "",
    ],
)
def test_what_is_of_no_number_or_denied_is_left(text):
    assert said(text) == (text, [])


@pytest.mark.parametrize("column", ["Preis", "verkaufspreis", "prix", "precio", "msrp", "prices"])
def test_every_column_of_prices_is_compared(column):
    bounds = ConstraintReader([column]).parted("red, cheaper and under 40 euros")[1]
    assert {(bound.column, bound.order, bound.number) for bound in bounds} == {
        (column, "<", None),
        (column, "<", 40.0),
    }


def test_an_amount_that_is_no_number_hides_none_that_is():
    assert said("is red, under 1.2.3 euros and under 40 euros") == (
        "is red, under 1.2.3 euros",
        [("price", "<", 40.0)],
    )


def test_of_two_prices_money_is_said_of_the_shorter_name_in_any_order():
    for columns in (["old_price", "price"], ["price", "old_price"]):
        [bound] = ConstraintReader(columns).parted("cheaper")[1]
        assert bound.column == "price"
    [bound] = ConstraintReader(["old_price"]).parted("cheaper")[1]
    assert bound.column == "old_price"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("is " * 160 + "4", "is " * 160 + "4"),
        ("is red" + " " * 100_000 + "and cheaper", "is red"),
        ("1," * 250, "1," * 250),
    ],
)
def test_a_text_made_to_be_slow_is_read_to_its_end(text, rest):
    """Texts with very many possible starts of clauses, or splits of words and digits, are read fast."""
    assert ConstraintReader([f"column {number}" for number in range(30)] + COLUMNS).parted(text)[0] == rest
