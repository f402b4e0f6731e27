"""Lists follow an index that changes, without reading all of it or reading it all the time."""

import pytest
import torch

from dqecir.data.column_roles_file import read_roles, write_roles
from dqecir.errors import DataError
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.engines import move_index
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import Compare, parse_filter
from dqecir.index.item_list import StoredItems
from dqecir.service import listing
from dqecir.service.listing import Listing
from dqecir.service.problems import Problem
from dqecir.service.schemas import AttributeFacts, NumberFacts


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Slow:
    """An index whose number of items is its generation, and which takes two seconds to read."""

    has_products = False

    def page(self, *asked):
        """Raise, as an engine without fast pages does."""

    def refresh(self):
        """Do nothing, because nothing else changes the index."""

    def __init__(self, clock: Clock) -> None:
        self.generation, self._clock = 1, clock

    def ids(self, where):
        self._clock.now += 2
        return [str(number) for number in range(self.generation)]

    def payloads(self, ids):
        return {item_id: {} for item_id in ids}


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(listing, "time", clock)
    return clock


def test_a_slow_index_that_changes_is_read_for_a_tenth_of_the_time(clock):
    index = Slow(clock)
    listed = Listing(index)

    def count() -> int:
        return len(listed.page(10, None, None, None)[0])

    assert count() == 1
    index.generation = 2
    for _ in range(5):
        assert count() == 1
    assert clock.now == 102
    clock.now += 17
    assert count() == 1
    clock.now += 2
    assert count() == 2
    # What has not changed is not read again, however long ago it was.
    clock.now += 1000
    assert count() == 2
    assert clock.now == 1123


def test_lists_stay_fresh_however_many_filters_people_try(clock):
    index = Slow(clock)
    listed = Listing(index)
    for number in range(100):
        listed.page(10, None, Compare("price", "<", number), None)
    index.generation = 2
    clock.now += 1
    assert len(listed.page(10, None, None, None)[0]) == 2


@pytest.fixture
def index(tmp_path) -> ExactIndex:
    payloads = [{"path": f"/{n}", "color": ("red", "blue")[n % 2], "n": n} for n in range(200)]
    batch = ItemBatch([f"i{n}" for n in range(200)], torch.ones(200, 1, 4), payloads)
    header = IndexHeader(model="m1", tokens=1, size=4)
    return ExactIndex.build(tmp_path / "index", header, iter([batch]))


def test_no_payload_is_parsed_but_those_of_the_page(index, monkeypatch):
    parsed, entry = [], StoredItems.entry
    monkeypatch.setattr(StoredItems, "entry", lambda items, row: parsed.append(row) or entry(items, row))
    listed = Listing(index)
    assert listed.attributes() == {
        "color": AttributeFacts(values=["blue", "red"], numeric=False, role="attribute", numbers=None),
        "n": AttributeFacts(
            values=None,
            numeric=True,
            role="attribute",
            numbers=NumberFacts(least=0, most=199, counts=[10] * 20),
        ),
    }
    assert parsed == []
    found, last = listed.page(5, "i11", parse_filter("color = blue and n < 40"), None)
    assert [item_id for item_id, _ in found] == ["i13", "i15", "i17", "i19", "i21"]
    assert found[0][1] == {"path": "/13", "color": "blue", "n": 13}
    assert last == "i21"
    assert len(listed.page(4, None, None, seed=7)[0]) == 4
    assert len(parsed) == 9


def test_columns_have_the_roles_of_the_table_or_else_those_that_their_names_tell(tmp_path):
    payloads = [{"name": "Tee", "betrag": 9.9, "image": "no picture", "link": "https://shop.example/1"}]
    header = IndexHeader(model="m1", tokens=1, size=4)
    batch = ItemBatch(["i0"], torch.ones(1, 1, 4), payloads)
    index = ExactIndex.build(tmp_path / "index", header, iter([batch]))

    def roles() -> dict[str, str]:
        return {name: facts.role for name, facts in Listing(index).attributes().items()}

    assert roles() == {"name": "title", "betrag": "attribute", "image": "attribute", "link": "url"}
    write_roles(index.folder, {"betrag": "price"})
    assert roles()["betrag"] == "price"
    moved = move_index(index.folder, tmp_path / "moved", "exact")
    assert read_roles(moved.folder) == {"betrag": "price"}
    (index.folder / "columns.json").write_text('{"roles": {"betrag": "money"}}')
    with pytest.raises(DataError, match="betrag"):
        roles()


def test_a_page_is_as_new_as_the_index_and_goes_on_after_its_last_item(index):
    listed = Listing(index)
    assert [item_id for item_id, _ in listed.page(3, None, None, None)[0]] == ["i0", "i1", "i2"]
    index.delete(["i4"])
    assert [item_id for item_id, _ in listed.page(3, "i2", None, None)[0]] == ["i3", "i5", "i6"]
    with pytest.raises(Problem, match="start again from the beginning"):
        listed.page(3, "i4", None, None)


def test_few_readings_are_kept(clock):
    index = Slow(clock)
    listed = Listing(index)

    def seconds(bound: int) -> float:
        before = clock.now
        listed.page(1, None, Compare("n", "<", bound), None)
        return clock.now - before

    assert [seconds(bound) for bound in range(20)] == [2.0] * 20
    kept = range(20 - listing.KEPT, 20)
    assert [seconds(bound) for bound in kept] == [0.0] * listing.KEPT
    assert seconds(kept[0] - 1) == 2.0
