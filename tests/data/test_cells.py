"""Numbers as shops write them, and codes that are not numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqecir.data.cells import as_number, decimal_sign, folded, measured, number_in, plainly


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("EUR 59.90", 59.9),
        ("59,90EUR", 59.9),
        ("chf 12.50", 12.5),
        ("US$ 10", 10),
        ("A$10.5", 10.5),
        ("kr 199", 199),
        ("199:-", 199),
        ("49,-", 49),
        ("1.299,-", 1299),
        ("kr. 1.299,–", 1299),
        ("1,299.-", 1299),
        ("USD $12", 12),
        ("US $1,299.50", 1299.5),
        ("CHF 12.–", 12),
        ("499 zł", 499),
        ("R$ 1.234,56", 1234.56),
        ("₹1,29,999.00", 129999),
        ("1\u00a0299,00 €", 1299),
        ("1\u202f299,00\u202f€", 1299),
        ("1'299.00", 1299),
        ("1’299.00", 1299),
        ("1.299.000", 1299000),
        ("1 299", 1299),
        ("-5 €", -5),
        ("€ −5", -5),
        ("0,125", 0.125),
        ("0.750", 0.75),
        ("0,750 kg", 0.75),
        ("12345,678", 12345.678),
        ("1,299", 1299),
        ("1.299", 1.299),
        ("1.299 €", 1299),
        ('13"', 13),
        ("12,5cm", 12.5),
        ("50 %", 50),
        ("KZT 12 500", 12500),
        ("1.299,00 BAM", 1299),
        ("GEL 49.90", 49.9),
    ],
)
def test_a_number_is_read_with_its_currency_or_unit(cell, number):
    assert number_in(cell) == number


@pytest.mark.parametrize(
    "cell",
    ["007", "1E5", "1_000", "123456789012345678", "2XL", "38/40", "36-38", "36–38", "10x20", "12.05.2024"]
    + [
        "1,2,3",
        "1.29.00",
        "1 29",
        "0800 123 456",
        "TOP 10",
        "ABC 12",
        "",
        "-",
        "5 €€",
        "for $5",
        "$10 - $20",
        "--5",
        "nan",
        "inf",
        "١٢",
    ],
)
def test_codes_sizes_and_ranges_are_no_numbers(cell):
    assert number_in(cell) is None
    assert math.isnan(measured(cell))
    assert math.isnan(as_number(cell))


def test_equal_numbers_are_plain_decimals_alone():
    assert as_number("40") == as_number("40.0") == as_number(40) == 40
    assert math.isnan(as_number("1,299"))
    assert math.isnan(as_number(10**400))


@pytest.mark.parametrize(
    ("cells", "sign", "cell", "plain"),
    [
        (["39,90 €", "1.049,50 €"], ",", "1.299", "1299"),
        (["39.90", "5.00"], ".", "1.299", "1.299"),
        (["39.90", "1,049.50"], ".", "1,299", "1,299"),
        (["0,5 kg", "2,25 kg"], ",", "2,125 kg", "2.1250 kg"),
        (["0,5 kg", "2,25 kg"], ",", "-1,500 kg", "-1.5000 kg"),
        (["1.299.000"], ",", "1.299", "1299"),
        (["1'299.00"], ".", "1.299", "1.299"),
        (["1.299", "12"], None, "1.299", "1.299"),
        (["12,-", "1.299,-"], ",", "1.299", "1299"),
        (["$ 39.90", "12.50"], ".", "1.299,- kr", "1.299,- kr"),
        (["1,5", "1.5"], None, "1.299", "1.299"),
        (["1,5", "2,5", "3,5", "4,5", "1.5"], ",", "1.299", "1299"),
    ],
)
def test_an_ambiguous_cell_is_read_as_its_column_writes_numbers(cells, sign, cell, plain):
    assert decimal_sign(cells) == sign
    assert plainly(cell, sign) == plain
    assert number_in(plain) == number_in(cell, sign)


def test_a_price_without_a_currency_has_no_three_decimals():
    assert plainly("1.299", None, is_money=True) == "1299"


@given(
    st.from_regex(r"[1-9][0-9]{0,2}[.,][0-9]{3}( €| kg)?", fullmatch=True), st.sampled_from([",", ".", None])
)
def test_a_plain_cell_means_the_same_without_its_column(cell, sign):
    assert number_in(plainly(cell, sign)) == number_in(cell, sign)


def test_one_word_in_two_unicode_forms_is_one_value():
    assert folded("CAFE\u0301") == folded("café")


@given(st.from_regex(r"[0-9]{0,17}(\.[0-9]{0,4})?", fullmatch=True))
def test_clear_numbers_are_read_as_all_others(cell):
    number = number_in(cell)
    assert repr(measured(cell)) == repr(math.nan if number is None else number)
