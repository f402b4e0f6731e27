"""The reader: texts of every kind with their right reading, a shop's own columns, misspelt and odd input."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.language.linking import Linker
from dqecir.language.reader import Reader
from dqecir.language.tagging import Mark, shipped_tagger, words_of

TEXTS = yaml.safe_load(Path(__file__).with_name("reader_texts.yaml").read_text(encoding="utf-8"))
SHOP = {
    "article": [
        "Tshirts",
        "Shirts",
        "Jeans",
        "Casual Shoes",
        "Sports Shoes",
        "Jackets",
        "Dresses",
        "Watches",
    ],
    "brand": ["Kestrel", "U.S. Polo Assn.", "Reid & Taylor", "Nike"],
    "fibre": ["Tencel", "Cotton", "Merino Wool"],
    "color": ["Navy Blue", "Blue", "Red", "Khaki", "Multi"],
    "has pockets": ["yes", "no"],
}


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def shop(reader) -> Reader:
    return Reader(SHOP, ["price"], reader.tagger)


def asks(reading) -> set[str]:
    return {
        " ".join([ask.column, ask.operation, *([ask.value] if ask.value else [])]) for ask in reading.asks
    }


_CASES = [
    pytest.param(case, id=case["text"], marks=[pytest.mark.xfail(strict=True)] if "misread" in case else [])
    for case in TEXTS
]


@pytest.mark.parametrize("case", _CASES)
def test_texts_of_every_kind_are_read_as_people_read_them(reader, case):
    reading = reader.read(case["text"], case.get("category", ""))
    # A word of a print's or of straps' may be unread as well: "green" and "logo" of a green logo.
    spoken = {word for ask in reading.asks for word in ask.words.split()}
    assert (asks(reading), set(reading.unread) - spoken) == (set(case["asks"]), set(case["unread"]) - spoken)


@pytest.mark.parametrize(
    ("text", "garment"),
    [
        ("dress in red", "dress"),
        ("a shirt with stripes", "shirt"),
        ("green skirt", "skirt"),
        ("yellow top", "top"),
        ("shoes", "shoes"),
        ("the dress is red", None),
        ("top has lace", None),
    ],
)
def test_a_text_that_begins_with_a_garment_asks_for_it(text, garment):
    asked = [ask.value for ask in Reader().read(text, "dress").asks if ask.column == "garment"]
    assert asked == ([garment] if garment else [])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("from Kestrel", {"brand is Kestrel"}),
        ("by reid and taylor", {"brand is Reid & Taylor"}),
        ("a jacket from US Polo Assn", {"article is Jackets", "brand is U.S. Polo Assn."}),
        ("in tencel", {"fibre is Tencel"}),
        ("made of merino wool, not cotton", {"fibre is Merino Wool"}),
        ("not from nike", {"brand is not Nike"}),
        ("a navy sports shoe", {"color is Navy Blue", "article is Sports Shoes"}),
        ("a tee in dark blue", {"article is Tshirts", "color is Navy Blue"}),
        ("khaki jeans", {"color is Khaki", "article is Jeans"}),
    ],
)
def test_a_shops_own_columns_are_read_by_the_names_of_their_values(shop, text, wanted):
    assert asks(shop.read(text)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("for ladies", {("gender", "Women")}),
        ("men's shoes for the office", {("gender", "Men"), ("usage", "Formal")}),
        ("something sporty for children", {("usage", "Sports"), ("gender", "Kids")}),
        ("is for everyone", {("gender", "Unisex")}),
    ],
)
def test_who_wears_it_and_what_for_is_read_in_the_words_of_the_vocabularies(reader, text, wanted):
    own = Reader({"gender": ["Men", "Women", "Unisex", "Kids"], "usage": ["Casual", "Sports", "Formal"]}, [])
    read = own.read(text)
    assert {(ask.column, ask.value) for ask in read.asks} == wanted
    assert all(ask.operation == "is" for ask in read.asks)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("blue shoes", ["Casual Shoes", "Sports Shoes", "Sandals"]),
        ("running shoes", ["Sports Shoes"]),
        ("sneakers", ["Casual Shoes"]),
        ("pants", ["Track Pants", "Trousers", "Jeans"]),
        ("a bag", ["Handbags", "Laptop Bag"]),
        ("sports shoes", ["Sports Shoes"]),
        ("a shirt", ["Shirts"]),
    ],
)
def test_a_noun_means_every_kind_of_it_that_the_shop_has(reader, text, wanted):
    types = [
        "Casual Shoes",
        "Sports Shoes",
        "Sandals",
        "Handbags",
        "Laptop Bag",
        "Shirts",
        "Tshirts",
        "Jeans",
    ]
    types += ["Trousers", "Track Pants"]
    shop = Reader({"type": types, "brand": ["Baggit", "Puma", "House of Shoes"]}, [], reader.tagger)
    asked = [(ask.column, ask.operation, ask.value) for ask in shop.read(text).asks]
    assert asked == [("type", "is", value) for value in wanted]


@pytest.mark.parametrize(
    ("text", "wanted", "unread"),
    [
        ("a bag", [], {"bag"}),
        ("perfume", [], {"perfume"}),
        ("a chair", [], {"chair"}),
        ("trousers in steel", ["Steel"], {"trousers"}),
        ("baggit", ["Baggit"], set()),
        ("from bagit", ["Baggit"], set()),
        ("by peri peri in steel", ["Peri Peri", "Steel"], set()),
    ],
)
@pytest.mark.parametrize("column", ["brand", "Brand name", "vendor", "maker", "marke"])
def test_a_brand_is_named_by_its_name_and_not_by_a_noun_like_it(reader, column, text, wanted, unread):
    brands = ["Baggit", "Be For Bag", "Peri Peri", "Pepe Jeans", "Oak Chairs"]
    shop = Reader({column: brands, "fibre": ["Merino Wool", "Steel"]}, [], reader.tagger)
    reading = shop.read(text)
    assert ([ask.value for ask in reading.asks], set(reading.unread)) == (wanted, unread)


def test_a_garment_with_a_length_in_its_name_is_one_value_and_without_lengths_they_are_unread(reader):
    shop = Reader({"article": ["Mini Skirts", "Skirts", "Shirts", "Dresses"]}, [], reader.tagger)
    read = [shop.read(text) for text in ("a mini skirt", "a maxi skirt")]
    assert [({ask.value for ask in one.asks}, one.unread) for one in read] == [
        ({"Mini Skirts"}, ()),
        ({"Skirts"}, ("maxi",)),
    ]


def test_what_the_shop_does_not_have_is_unread(shop):
    reading = shop.read("with long sleeves in purple")
    assert reading.asks == ()
    assert set(reading.unread) == {"long", "sleeves", "purple"}


def test_numbers_are_constraints_and_not_unread(shop):
    reading = shop.read("red and under 40 euros")
    assert asks(reading) == {"color is Red"}
    assert [(bound.column, bound.order, bound.number) for bound in reading.constraints] == [
        ("price", "<", 40)
    ]
    assert reading.unread == ()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("replace cotton with Tencel", {("fibre", "Tencel")}),
        ("exchange cotton for merino wool", {("fibre", "Merino Wool")}),
        ("from Nike to Kestrel", {("brand", "Kestrel")}),
        ("Tencel over cotton please", {("fibre", "Tencel")}),
        ("from red to blue", {("color", "Blue")}),
        ("jeans from Nike", {("article", "Jeans"), ("brand", "Nike")}),
    ],
)
def test_a_value_that_another_one_replaces_is_not_requested(shop, text, wanted):
    assert {(ask.column, ask.value) for ask in shop.read(text).asks} == wanted


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("over 100", {"100"}),
        ("red and no more than 50", {"50"}),
        ("max 50", {"max", "50"}),
        ("exactly 50 euros", {"50", "euros"}),
        ("under 50 euros", set()),
        ("100% cotton", set()),
    ],
)
def test_a_number_that_was_not_read_is_unread(shop, text, unread):
    reading = shop.read(text)
    assert set(reading.unread) == unread
    assert "50" not in " ".join(ask.words for ask in reading.asks)


def test_slips_are_corrected_and_listed(reader):
    reading = reader.read("is gren and stripd")
    assert [(one.word, one.read_as) for one in reading.corrections] == [
        ("gren", "green"),
        ("stripd", "striped"),
    ]
    assert reader.read("is a red floral dress").corrections == ()


def test_another_number_of_a_known_word_is_no_slip(reader):
    shop = Reader({"article": ["Handbags", "Earrings", "Sunglasses", "Anklet"]}, [], reader.tagger)
    read = {text: shop.read(text) for text in ("a handbag", "earring please", "two anklets", "a handbgs")}
    assert [reading.corrections for reading in read.values()][:3] == [(), (), ()]
    assert [one.read_as for one in read["a handbgs"].corrections] == ["handbags"]
    assert asks(read["a handbag"]) == {"article is Handbags"}
    assert asks(read["two anklets"]) == {"article is Anklet"}


def test_a_text_without_the_kind_of_its_reference_is_read_as_well(reader):
    for color in ("black", "red", "teal", "olive"):
        reading = reader.read(f"{color} with pockets and a zipper")
        assert [ask.column for ask in reading.asks] == ["color"]
        assert reading.unread == ("pockets", "zipper")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("ein rotes Kleid mit langen Ärmeln", "German"),
        ("une robe rouge sans manches", "French"),
        ("quiero una camisa azul", "Spanish"),
        ("is a red dress with long sleeves", "English"),
        ("Kestrel", "English"),
    ],
)
def test_another_language_is_noticed(shop, text, language):
    assert shop.read(text).language == language


def test_names_of_values_are_read_in_any_language(shop):
    reading = shop.read("eine Jacke von Kestrel, aber nicht in Merino Wool")
    assert asks(reading) == {"brand is Kestrel", "fibre is Merino Wool"}
    assert "jacke" in reading.unread


def test_a_reader_that_no_caption_trained_comes_with_the_package():
    reading = Reader(tagger=shipped_tagger("reader-generated")).read("is a red dress with long sleeves")
    assert asks(reading) == {"color is red", "garment is dress", "sleeves is long"}


def test_the_names_of_a_shop_are_marked_and_usual_columns_are_not():
    linker = Linker(SHOP)
    marks = linker.marks([word.text for word in words_of("fibre: merino wool in red")])
    assert marks == [Mark.COLUMN, Mark.NONE, Mark.VALUE, Mark.VALUE, Mark.NONE, Mark.NONE]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read_and_its_words_are_its_own(text):
    reading = Reader(tagger=_tagger()).read(text)
    typed = {word.text for word in words_of(text)}
    assert set(reading.unread) <= typed
    assert all(
        ask.column
        in ("garment", "color", "pattern", "pattern_color", "print", "sleeves", "length", "neck", "fit")
        for ask in reading.asks
    )


_SHARED: list[Reader] = []


def _tagger():
    if not _SHARED:
        _SHARED.append(Reader())
    return _SHARED[0].tagger


@pytest.mark.parametrize(
    "text", ["", "   ", "\n\n", "x" * 10_000, "is red " * 1_400, "\U0001f600" * 5_000, "\ud800"]
)
def test_odd_and_long_texts_are_read(reader, text):
    assert {ask.value for ask in reader.read(text).asks} <= {"red"}


def test_a_colour_that_the_garments_lack_is_not_asked_of_their_patterns(reader):
    values = {
        "color": ["red", "green", "black"],
        "pattern": ["plain", "striped"],
        "pattern_color": ["blue", "red"],
    }
    narrow = Reader(values, [], reader.tagger)
    assert asks(narrow.read("is blue")) == set()
    assert asks(narrow.read("is red")) == {"color is red"}
    assert "pattern_color is blue" in asks(narrow.read("is red with blue stripes"))
