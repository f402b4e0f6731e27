"""Pages of an exact index: the first view of each product, in the order of adding or in a drawn order."""

import random

import pytest
import torch

from dqecir.data.payload_fields import PRODUCT
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.index.item_list import StoredItems
from dqecir.search.product_search import first_views

HEADER = IndexHeader(model="m1", tokens=1, size=4, score_rule="dot")


def batch(names, payloads) -> ItemBatch:
    return ItemBatch(names, torch.ones(len(names), 1, 4), payloads)


@pytest.fixture
def index(tmp_path) -> ExactIndex:
    """Return several segments of views of products, of items without a product, and of deleted items."""
    draw = random.Random(0)

    def payload() -> dict:
        product = draw.choice([{}, {PRODUCT: f"p{draw.randrange(25)}"}, {PRODUCT: f"P{draw.randrange(25)}"}])
        return {**product, "n": draw.randrange(4)}

    names = [f"i{number}" for number in range(150)]
    index = ExactIndex.build(tmp_path / "index", HEADER, iter([batch(names, [payload() for _ in names])]))
    for step in range(5):
        some = [f"i{number}" for number in draw.sample(range(300), 20)]
        index.add(batch(some, [payload() for _ in some]), [f"i{step}"])
        index.delete([f"i{number}" for number in draw.sample(range(300), 15)])
    assert index.info()["segments"] > 1
    return index


def paged(index, limit: int, where=None, seed=None) -> list[str]:
    found, after = [], None
    while True:
        entries, after = index.page(limit, after, where, seed)
        found += [item_id for item_id, _ in entries]
        if after is None:
            return found


@pytest.mark.parametrize("where", [None, parse_filter("n < 2"), parse_filter("n = 9")])
def test_a_product_is_listed_once_by_its_first_view(index, where):
    assert paged(index, 7, where) == first_views(index, where)


def test_a_drawn_order_stays_while_items_come_and_go(index):
    orders = [paged(index, 7, seed=seed) for seed in (1, 2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(first_views(index))
    assert paged(index, 7, parse_filter("n < 9"), seed=1) == orders[0]
    after = index.page(10, None, None, seed=1).next
    gone = orders[0][10]
    index.delete([gone])
    index.add(batch(["new1", "new2"], [{}, {}]))
    following = [item_id for item_id, _ in index.page(500, after, None, seed=1).entries]
    kept = set(first_views(index))
    assert [one for one in following if not one.startswith("new")][:20] == [
        one for one in orders[0][10:] if one in kept
    ][:20]


def test_no_payload_is_parsed_but_those_of_the_page(index, monkeypatch):
    parsed, entry = [], StoredItems.entry
    monkeypatch.setattr(StoredItems, "entry", lambda items, row: parsed.append(row) or entry(items, row))
    monkeypatch.setattr(StoredItems, "item_id", lambda items, row: pytest.fail("reads the id of every item"))
    index.page(5, None, parse_filter("n < 3"))
    index.page(5, None, None, seed=3)
    assert len(parsed) == 10
