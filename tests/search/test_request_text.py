"""What a text says of an index's numbers filters its items, beside the filter that there is."""

import pytest
import torch

from dqecir.index.contract import ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.search.request_text import read_text
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
    said = read_text(text, index, reference)
    assert said.text == left
    assert found(index, said) == ids


def test_it_joins_a_filter(index):
    said = read_text("more expensive", index, "cheap", parse_filter("color = red"))
    assert found(index, said) == {"middle"}


@pytest.mark.parametrize("reference", [None, "secret", "gone"])
def test_a_reference_without_a_number_filters_nothing_and_is_told(index, reference):
    said = read_text("is red and cheaper", index, reference)
    assert said.text == "is red"
    assert said.where is None
    assert [(one.column, one.order, one.number) for one in said.constraints] == [("price", "<", None)]


def test_a_column_of_words_is_not_compared(index):
    said = read_text("a lower neck and cheaper", index, "middle")
    assert said.text == "a lower neck"
    assert found(index, said) == {"cheap"}


def test_an_index_without_numbers_leaves_texts_alone(tmp_path):
    batch = ItemBatch(["a"], torch.randn(1, 3, 8), [{"price": "ask us", "path": "/a.jpg"}])
    index = ExactIndex.build(tmp_path / "i", HEADER, iter([batch]))
    text = "is red, cheaper and under 40 euros"
    assert read_text(text, index, None).text == text


def test_the_reference_is_read_only_where_the_text_compares_with_it(index, monkeypatch):
    monkeypatch.setattr(ExactIndex, "payload", lambda *_: pytest.fail("the payload was read"))
    read_text("is red", index, "middle")
    read_text("under 40 euros", index, "middle")
