"""Filters: every expression compared with a simple implementation, and an error for every mistake."""

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.errors import FilterError
from dqecir.index.filters import And, Compare, Equal, Filter, Not, Or, parse_filter
from dqecir.index.payload_columns import Columns

SHOP = [
    {"color": "red", "price": 12, "sleeves": "long"},
    {"color": "Pink", "price": "39.5"},
    {"color": "dark blue", "price": 40.0, "sleeves": "short"},
    {"color": "red", "price": "on request"},
]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("color in {red, pink} and price < 40 and not sleeves = long", [1]),
        ("color = 'dark blue' or color = pink", [1, 2]),
        ("price = 40", [2]),
        ("price >= 12 and price <= 39.5", [0, 1]),
        ("price >= € 12 and price<=39.50 €", [0, 1]),
        ("price >= EUR 12 and price<=39.50 chf", [0, 1]),
        ("price < 40 kr and color = pink", [1]),
        ("sleeves != long", [1, 2, 3]),
        ("sleeves not in {long, short}", [1, 3]),
        ("not (color = red or price > 39)", []),
        # And binds more tightly than or, not than both.
        ("color = pink or color = red and sleeves = long", [0, 1]),
        ('"color"="RED"', [0, 3]),
        ("COLOR = red and Price < 20", [0]),
        ('color = "no ""such"" colour" or sleeves = \'long\'', [0]),
    ],
)
def test_means_what_it_says(text, rows):
    columns = Columns.of(SHOP)
    found = parse_filter(text)
    found.check([columns])
    assert found.mask(columns).nonzero()[0].tolist() == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("sku = 123456789012345678", [0]),
        ("sku = 1E5", [2]),
        ("sku = 100000", [3, 4]),
        ("sku = 1_000", [5]),
        ("sku = 007", [6]),
        ("sku = 7", [7]),
        ("sku = cafe\u0301", [8]),
        ("sku < 10", [7]),
    ],
)
def test_codes_are_equal_to_themselves_alone(text, rows):
    codes = ["123456789012345678", "123456789012345679", "1E5", "100000", 100000, "1_000", "007", "7", "Café"]
    columns = Columns.of([{"sku": code} for code in codes])
    assert parse_filter(text).mask(columns).nonzero()[0].tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the name of an attribute is expected, not the end"),
        ("color", "after 'color' one of"),
        ("color in {red, pink", "brace after color in is not closed: add }"),
        ("color in {dark blue}", "comma is expected, not 'blue' at character 16; quote"),
        ("color in red", "list in braces"),
        ("color in {}", "a value of 'color' is expected, not '}'"),
        ("price < cheap", "a number is expected, not 'cheap'"),
        ("price < €", "a number after price < € is expected, not the end"),
        ("price < 40 pieces", "'pieces' at character 12 is not expected"),
        ("price < nan", "a number is expected, not 'nan'"),
        ("price <", "a number after price < is expected, not the end"),
        ("color = dark blue", "'blue' at character 14 is not expected"),
        ("(color = red", "parenthesis is not closed: add )"),
        ("color = 'red", 'quotation that begins with "\'red" is not closed: add a quote'),
        ("color = red and", "the name of an attribute is expected, not the end"),
        ("color not red", "must be followed by in"),
        ("color ! red", "'!' is not expected here"),
        ("not " * 500 + "color = red", "nested more than 100 deep"),
    ],
)
def test_a_mistake_is_one_sentence(text, message):
    with pytest.raises(FilterError, match="cannot be read") as error:
        parse_filter(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = red", "attribute 'colour'; did you mean 'color'"),
        ("not (price < 4 and sleaves = long)", "attribute 'sleaves'; did you mean 'sleeves'"),
        ("color < 4", "no item has a number there"),
    ],
)
def test_what_no_item_has_is_said(text, message):
    with pytest.raises(FilterError, match=message):
        parse_filter(text).check([Columns.of(SHOP), Columns.of([])])


NAMES = ("a", "b", "not b")
VALUES = ("red", "Red", "1", "1.0", "2", "x y", "in", "", 'a 9" one', "it's", """both ' and \"""")
scalars = st.sampled_from([*VALUES, 1, 2, 1.5, True, None])
rows = st.lists(st.dictionaries(st.sampled_from(NAMES), scalars), max_size=6)
orders = st.sampled_from(["<", "<=", ">", ">="])
leaves = st.one_of(
    st.builds(Equal, st.sampled_from(NAMES), st.lists(st.sampled_from(VALUES), min_size=1).map(tuple)),
    st.builds(Compare, st.sampled_from(NAMES), orders, st.sampled_from([0.0, 1.0, 1.5, 2.0])),
)


def several(part: st.SearchStrategy[Filter]) -> st.SearchStrategy[tuple[Filter, ...]]:
    return st.lists(part, min_size=2, max_size=3).map(tuple)


filters = st.recursive(
    leaves, lambda part: st.builds(Not, part) | st.builds(And, several(part)) | st.builds(Or, several(part))
)


def number(value):
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def plainly(found: Filter, row: dict) -> bool:
    if isinstance(found, Not):
        return not plainly(found.part, row)
    if isinstance(found, And):
        return all(plainly(part, row) for part in found.parts)
    if isinstance(found, Or):
        return any(plainly(part, row) for part in found.parts)
    has = row.get(found.name)
    if has is None:
        return False
    if isinstance(found, Equal):
        return any(
            str(has).lower() == value.lower() or (number(has) is not None and number(has) == number(value))
            for value in found.values
        )
    order = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[found.order]
    return number(has) is not None and order(number(has), found.bound)


@settings(max_examples=150)
@given(filters, rows)
def test_arrays_find_what_a_plain_reading_finds(found, payloads):
    again = parse_filter(str(found))
    assert again == found
    assert again.mask(Columns.of(payloads)).tolist() == [plainly(found, row) for row in payloads]


def test_a_filter_may_be_as_long_as_it_likes():
    rows = [{"a": number} for number in range(3000)]
    for word, found in (("or", 3000), ("and", 0)):
        long = parse_filter(f" {word} ".join(f"a = {number}" for number in range(3000)))
        columns = Columns.of(rows)
        long.check([columns])
        assert long.mask(columns).sum() == found
        assert parse_filter(str(long)) == long


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_order_by_any_number_is_read_back(bound):
    where = Compare("price", "<", bound)
    assert parse_filter(str(where)) == where
