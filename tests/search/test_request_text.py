"""Numbers and values of the table in a text filter the items of an index, in addition to a given filter."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from dqecir.index.contract import ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.search import request_text
from dqecir.search.request_text import RequestReader
from tests.conftest import PATIENCE
from tests.index.contract import HEADER

SHOP = {
    "cheap": {"price": "€ 9.90", "color": "red", "neck": "low"},
    "middle": {"price": "€ 20", "color": "red", "neck": "high"},
    "dear": {"price": "1.299,50 €", "color": "blue", "neck": "high"},
    "secret": {"price": "on request", "color": "red", "path": "/secret.jpg"},
}


@pytest.fixture
def index(tmp_path):
    tokens = torch.randn(len(SHOP), 3, 8)
    return ExactIndex.build(
        tmp_path / "i", HEADER, iter([ItemBatch(list(SHOP), tokens, list(SHOP.values()))])
    )


def reader_of(index, shown=("color", "neck")) -> RequestReader:
    return RequestReader(index, shown)


def found(index, said) -> set[str]:
    return {hit.id for hit in index.search(torch.ones(1, 1, 8), 9, where=said.where)[0]}


@pytest.mark.parametrize(
    ("text", "reference", "left", "ids"),
    [
        ("is blue and cheaper", "middle", "is blue", {"cheap"}),
        ("more expensive", "middle", "", {"dear"}),
        ("is red under 21 euros", None, "is red", {"cheap", "middle"}),
        ("more expensive, at most € 20", "cheap", "", {"middle"}),
        ("is blue", "middle", "is blue", set(SHOP)),
    ],
)
def test_answers_are_those_that_fulfil_it(index, text, reference, left, ids):
    said = reader_of(index).read(text, reference)
    assert said.text == left
    assert found(index, said) == ids


@pytest.mark.parametrize(
    ("text", "searched"),
    [
        ("is red in leather for a wedding", ("leather",)),
        ("without a logo, in leather", ("leather",)),
        ("not leather", ()),
        ("a logo instead of leather", ("logo",)),
        ("ein Kleid aus Leder mit Logo", ("logo",)),
    ],
)
def test_words_of_titles_are_searched_unless_they_are_refused(tmp_path, text, searched):
    titles = ["Leather bag", "Tee with logo"]
    batch = ItemBatch(
        ["a", "b"], torch.randn(2, 3, 8), [{"title": title, "color": "red"} for title in titles]
    )
    index = ExactIndex.build(tmp_path / "i", HEADER, iter([batch]))
    said = reader_of(index).read(text)
    assert said.searched == searched
    assert said.searched_in == (("title",) if searched else ())
    assert set(searched) <= set(said.read.unread)


def test_an_index_without_texts_says_why_no_words_are_searched(index, monkeypatch):
    assert reader_of(index).read("in leather").no_text == ""
    monkeypatch.setattr(ExactIndex, "text", None)
    assert "build it again" in reader_of(index).read("in leather").no_text
    assert reader_of(index).read("is red").no_text == ""


def test_it_joins_a_filter(index):
    said = reader_of(index).read("more expensive", "cheap", parse_filter("color = red"))
    assert found(index, said) == {"middle"}


@pytest.mark.parametrize("reference", [None, "secret", "gone"])
def test_a_reference_without_a_number_filters_nothing_and_is_told(index, reference):
    said = reader_of(index).read("is red and cheaper", reference)
    assert said.text == "is red"
    assert said.where is None
    assert [(one.column, one.order, one.number) for one in said.constraints] == [("price", "<", None)]


def test_a_column_of_words_is_not_compared(index):
    said = reader_of(index).read("a lower neck and cheaper", "middle")
    assert said.text == "a lower neck"
    assert found(index, said) == {"cheap"}


def test_an_index_without_numbers_lacks_them(tmp_path):
    batch = ItemBatch(["a"], torch.randn(1, 3, 8), [{"price": "ask us", "path": "/a.jpg"}])
    index = ExactIndex.build(tmp_path / "i", HEADER, iter([batch]))
    text = "is red, cheaper and under 40 euros"
    said = reader_of(index).read(text)
    assert (said.text, said.where, said.constraints) == ("is red", None, ())
    assert [(one.column, one.words) for one in said.lacking] == [
        ("price", "under 40 euros"),
        ("price", "cheaper"),
    ]


def test_the_reference_is_read_only_where_the_text_compares_with_it(index, monkeypatch):
    monkeypatch.setattr(ExactIndex, "payload", lambda *_: pytest.fail("the payload was read"))
    reader_of(index).read("is red", "middle")
    reader_of(index).read("under 40 euros", "middle")


@pytest.mark.parametrize(
    ("text", "ids", "asked"),
    [
        ("in tencel", {"cheap", "secret"}, {"tencel"}),
        ("from Kestrel or Nordby", {"cheap", "middle", "dear"}, {"kestrel", "nordby"}),
        ("not from nordby", {"cheap", "middle", "secret"}, {"nordby"}),
        ("red from kestrel under 15 euros", {"cheap"}, {"kestrel"}),
        ("is red", {"cheap", "middle", "dear", "secret"}, set()),
    ],
)
def test_what_pictures_do_not_show_is_asked_of_the_table(tmp_path, text, ids, asked):
    more = {
        "cheap": {"brand": "Kestrel", "fibre": "Tencel"},
        "middle": {"brand": "Kestrel", "fibre": "Wool"},
        "dear": {"brand": "Nordby", "fibre": "Wool"},
        "secret": {"fibre": "Tencel"},
    }
    rows = [{**SHOP[item], **more[item]} for item in SHOP]
    tokens = torch.randn(len(SHOP), 3, 8)
    index = ExactIndex.build(tmp_path / "shop", HEADER, iter([ItemBatch(list(SHOP), tokens, rows)]))
    said = reader_of(index).read(text)
    assert found(index, said) == ids
    assert {ask.words for ask in said.table} == asked


def test_values_that_are_new_to_the_index_are_read(tmp_path):
    index = ExactIndex.build(
        tmp_path / "i", HEADER, iter([ItemBatch(["a"], torch.randn(1, 3, 8), [{"brand": "Kestrel"}])])
    )
    reader = reader_of(index)
    assert reader.read("by pelvoux").table == ()
    index.add(ItemBatch(["b"], torch.randn(1, 3, 8), [{"brand": "Pelvoux"}]))
    assert [(ask.column, ask.value) for ask in reader.read("by pelvoux").table] == [("brand", "Pelvoux")]


def test_a_comparison_that_the_index_has_no_column_for_is_said(index):
    said = reader_of(index).read("is red, under 15 euros and newer than 2019")
    assert [(one.column, one.words) for one in said.lacking] == [("year", "newer than 2019")]
    assert [one.words for one in said.constraints] == ["under 15 euros"]
    assert said.text == "is red"
    assert said.read.unread == ()


def test_corrections_and_the_language_are_said(index):
    said = reader_of(index).read("is gren")
    assert [(one.word, one.read_as) for one in said.read.corrections] == [("gren", "green")]
    german = reader_of(index).read("ein rotes Kleid mit langen Ärmeln")
    assert (german.read.language, german.text) == ("German", "")
    assert reader_of(index).read("ein Kleid in red mit langen Ärmeln").text == "red"


def test_new_values_are_read_at_once_where_that_is_quick(index, monkeypatch):
    # However slow the machine is.
    monkeypatch.setattr(request_text, "QUICK", PATIENCE)
    reader = reader_of(index)
    assert "brand" not in {ask.column for ask in reader.read("by Kestrel").read.asks}
    index.add(ItemBatch(["new"], torch.randn(1, 3, 8), [{"brand": "Kestrel"}]))
    assert "brand" in {ask.column for ask in reader.read("by Kestrel").read.asks}


def test_nobody_waits_for_the_values_of_a_slow_index(index, monkeypatch):
    """They are read in a thread, for a tenth of the time, and texts meanwhile in the values of before."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(request_text, "time", clock)
    facts, goes_on, calls = index.column_facts, threading.Event(), []

    def slow(*asked, **more):
        calls.append(clock.now)
        clock.now += 2
        assert len(calls) == 1 or goes_on.wait(PATIENCE)
        return facts(*asked, **more)

    monkeypatch.setattr(index, "column_facts", slow)
    reader = reader_of(index)

    def brands() -> list[str]:
        return [ask.value for ask in reader.read("by Kestrel").read.asks if ask.column == "brand"]

    assert brands() == []
    index.add(ItemBatch(["new"], torch.randn(1, 3, 8), [{"brand": "Kestrel"}]))
    clock.now += 19
    assert brands() == [] and calls == [0]
    clock.now += 2
    for _ in range(3):
        assert brands() == []
    goes_on.set()
    end = time.monotonic() + PATIENCE
    while brands() == []:
        assert time.monotonic() < end
    assert calls == [0, 23]
