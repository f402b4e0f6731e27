"""Changes of payloads alone: an exact index is then as one that was built with the new payloads."""

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dqecir.data.payload_fields import PRODUCT
from dqecir.errors import FilterError
from dqecir.index.contract import ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from tests.index.contract import DOT

NAMES = [f"item{i}" for i in range(9)]
PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "price": st.sampled_from(["12.50", "7", 7, 7.0, "on request"]),
        "color": st.sampled_from(["red", "Blue", ["red", "blue"], None]),
        "title": st.sampled_from(["a red linen dress for the summer", "linen shirt", ""]),
        PRODUCT: st.sampled_from(["p1", "p2"]),
    },
)
FILTERS = ["price < 10", "price = 7", "color = red", "not color in {blue, red}", 'title = "linen shirt"']


def build(folder, payloads) -> ExactIndex:
    """Two segments with these items."""
    tokens = torch.randn(len(NAMES), 1, 8, generator=torch.Generator().manual_seed(0))
    parts = [
        ItemBatch(NAMES[part], tokens[part], [payloads[name] for name in NAMES[part]])
        for part in (slice(0, 6), slice(6, 9))
    ]
    index = ExactIndex.build(folder, DOT, iter(parts[:1]))
    index.add(parts[1])
    return index


def all_with(n: int):
    return {name: {"n": n} for name in NAMES}


def ids(index, where):
    try:
        return index.ids(where)
    except FilterError as error:
        return str(error)


@settings(max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.fixed_dictionaries(dict.fromkeys(NAMES, PAYLOADS)),
    st.lists(st.dictionaries(st.sampled_from(NAMES), PAYLOADS), max_size=7),
)
def test_it_is_as_one_that_was_built_with_the_new_payloads(tmp_path_factory, before, changes):
    place = tmp_path_factory.mktemp("payloads")
    changed = build(place / "changed", before)
    for change in changes:
        assert changed.change_payloads(change) == len(change)
        before = before | change
    built = build(place / "built", before)
    query = torch.randn(1, 1, 8)
    for index in (changed, ExactIndex.open(place / "changed")):
        assert list(index.entries()) == list(built.entries())
        assert dict(index.entries()) == before
        assert index.values() == built.values()
        facts, wanted = (
            {
                name: (sorted(one.some), one.values, one.numbers)
                for name, one in which.column_facts(60, 20).items()
            }
            for which in (index, built)
        )
        assert facts == wanted
        assert index.info()["attributes"] == built.info()["attributes"]
        assert index.count() == built.count()
        assert index.page(9) == built.page(9)
        assert index.search(query, 9) == built.search(query, 9)
        for expression in FILTERS:
            where = parse_filter(expression)
            known = all(one.name in part for one in where.comparisons() for part in built.columns())
            if known and (
                "price <" not in expression or any(p["price"].has_numbers for p in built.columns())
            ):
                assert index.ids(where) == built.ids(where)
        assert index.text.columns == built.text.columns
        for own, other in zip(
            index.text.relevance(["linen", "red"]), built.text.relevance(["linen", "red"]), strict=True
        ):
            torch.testing.assert_close(torch.from_numpy(own), torch.from_numpy(other))
    ExactIndex.verify(place / "changed")


def test_changes_are_merged_and_go_with_their_segment(tmp_path):
    index = build(tmp_path / "index", all_with(0))
    for n in range(12):
        index.change_payloads({NAMES[n % 6]: {"n": n}})
    parts = sorted(path.parent.name for path in (tmp_path / "index").glob("s*/changed-*/items.jsonl"))
    assert 0 < len(parts) < 6
    assert [payload["n"] for _, payload in index.entries()] == [*range(6, 12), 0, 0, 0]
    index.delete(NAMES[:4])
    assert [payload["n"] for _, payload in index.entries()] == [10, 11, 0, 0, 0]
    assert not list((tmp_path / "index").glob("s*/changed-*"))


def test_an_older_handle_keeps_the_payloads_of_its_generation(tmp_path):
    index = build(tmp_path / "index", all_with(0))
    older = ExactIndex.open(tmp_path / "index")
    for n in range(5):
        index.change_payloads(all_with(n))
    assert {hit.payload["n"] for hit in older.search(torch.randn(1, 1, 8), 9)[0]} == {0}
    older.refresh()
    assert {payload["n"] for _, payload in older.entries()} == {4}
