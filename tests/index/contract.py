"""The tests that every engine must pass; the test module of an engine inherits them."""

import threading
import weakref
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from dqecir.data.payload_fields import PRODUCT
from dqecir.errors import EngineError, FilterError
from dqecir.index.contract import Index, IndexHeader, ItemBatch
from dqecir.index.filters import has_numbers, parse_filter
from dqecir.index.item_preferences import CellPreference, Preference
from dqecir.methods.score_rules import SINGLE, ScoreRule
from dqecir.methods.scoring import score
from dqecir.search.product_search import all_views, best_products, item_named
from tests.conftest import PATIENCE

DOT = IndexHeader(model="m1", tokens=1, size=8, score_rule="dot")
HEADER = IndexHeader(model="m1", tokens=3, size=8)


def header_of(rule: ScoreRule) -> IndexHeader:
    return (DOT if rule in SINGLE else HEADER).model_copy(update={"score_rule": rule})


def query_vectors(rule: ScoreRule) -> int:
    """Return how many vectors a query of the tests has under a rule."""
    return 1 if rule in ("dot", "max_t") else 2


def batches(count: int = 10, width: int = 8, prefix: str = "item", header: IndexHeader = HEADER):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.nn.functional.normalize(
        torch.randn(count, header.tokens, width, generator=generator), dim=-1
    )
    for start in range(0, count, 4):
        rows = range(start, min(start + 4, count))
        yield ItemBatch(
            [f"{prefix}{i}" for i in rows], tokens[rows.start : rows.stop], [{"path": f"/{i}"} for i in rows]
        )


def item(name: str, seed: int, header: IndexHeader = HEADER, **payload) -> ItemBatch:
    tokens = torch.randn(1, header.tokens, 8, generator=torch.Generator().manual_seed(seed))
    return ItemBatch([name], tokens, [payload])


class EngineContract:
    engine: ClassVar[type[Index]]
    header: ClassVar[IndexHeader] = DOT
    """Of the indexes of all tests but those of rules."""
    rules: ClassVar[Collection[ScoreRule]] = ("dot",)
    """The rules that the engine follows."""
    equals: ClassVar[int] = 11
    """Items of one score that come in the order of adding; a scan promises it of any number."""
    sees_at_once: ClassVar[bool] = False
    """Whether a handle sees changes and builds of others at its next call, without looking for them."""

    def pytest_generate_tests(self, metafunc):
        if "rule" in metafunc.fixturenames:
            metafunc.parametrize("rule", sorted(self.rules))

    def batches(self, count: int = 10, **more):
        return batches(count, header=self.header, **more)

    def item(self, name: str, seed: int, **payload) -> ItemBatch:
        return item(name, seed, self.header, **payload)

    def full(self, count: int, value: float = 1.0) -> torch.Tensor:
        """Return tokens of ``count`` items, all numbers of which have one value."""
        return torch.full((count, self.header.tokens, self.header.size), value)

    @pytest.fixture
    def index(self, tmp_path) -> Index:
        return self.engine.build(tmp_path / "index", self.header, self.batches())

    @pytest.mark.parametrize("many", [1, 5])
    def test_finds_what_the_scorer_ranks_first(self, tmp_path, rule, many):
        header = header_of(rule)
        items = [replace(batch, tokens=batch.tokens.abs()) for batch in batches(header=header)]
        index = self.engine.build(tmp_path / "index", header, iter(items))
        assert self.engine.open(tmp_path / "index").header == header
        queries = torch.rand(many, query_vectors(rule), 8, generator=torch.Generator().manual_seed(1))
        tokens = torch.cat([batch.tokens for batch in items]).half()
        best = score(queries, tokens, rule).sort(dim=1, descending=True, stable=True)
        for row, hits in enumerate(index.search(queries, 4)):
            assert [hit.id for hit in hits] == [f"item{i}" for i in best.indices[row, :4].tolist()]
            assert [hit.score for hit in hits] == pytest.approx(best.values[row, :4].tolist(), abs=1e-3)
            assert hits[0].payload == {"path": hits[0].id.replace("item", "/")}

    def test_is_the_same_when_opened_again(self, index, tmp_path):
        queries = torch.randn(2, 1, 8)
        again = self.engine.open(tmp_path / "index")
        assert len(again) == len(index) == 10
        assert again.search(queries, 10) == index.search(queries, 10)

    def test_leaves_out_what_is_excluded(self, index):
        query = torch.randn(1, 1, 8)
        first = index.search(query, 3)[0]
        rest = index.search(query, 10, [[first[0].id, "unknown"]])[0]
        assert [hit.id for hit in rest[:2]] == [hit.id for hit in first[1:]]
        assert len(rest) == 9

    def test_gives_fewer_hits_where_there_are_fewer_items(self, index):
        assert len(index.search(torch.randn(1, 1, 8), 50)[0]) == 10

    def test_knows_its_items(self, index):
        assert "item3" in index
        assert "item10" not in index

    def test_counts_its_changes(self, index, tmp_path):
        first = index.generation
        index.add(self.item("new", 1))
        added = index.generation
        index.delete(["nobody"])
        assert first < added == index.generation
        index.delete(["new"])
        assert added < index.generation == self.engine.open(tmp_path / "index").generation

    def test_gives_back_the_tokens_of_items(self, index):
        index.delete(["item1"])
        index.add(self.item("item3", seed=5))
        kept = torch.cat([batch.tokens for batch in self.batches()]).half()
        found = index.tokens(["item7", "item3", "item7"])
        torch.testing.assert_close(found[[0, 2]], kept[[7, 7]], atol=1e-3, rtol=0)
        torch.testing.assert_close(
            found[1], self.item("item3", seed=5).tokens[0].half(), atol=1e-3, rtol=1e-3
        )
        assert index.tokens([]).shape == (0, self.header.tokens, 8)
        for gone in ("item1", "item99"):
            with pytest.raises(EngineError, match=f"no item '{gone}'"):
                index.tokens(["item0", gone])

    def test_tells_its_items_in_the_order_of_adding(self, index):
        index.add(ItemBatch(["item3", "late"], self.full(2), [{"n": 1}, {"odd": [1.5, None]}]))
        index.delete(["item0"])
        names = [f"item{i}" for i in (1, 2, 4, 5, 6, 7, 8, 9, 3)] + ["late"]
        assert [name for name, _ in index.entries()] == names
        assert [name for part in index.items() for name in part.ids] == names
        assert dict(index.entries())["late"] == index.payload("late") == {"odd": [1.5, None]}
        assert index.payload("item3") == {"n": 1}
        assert index.payload("item0") is None
        tokens = torch.cat([part.tokens for part in index.items()])
        assert torch.equal(tokens, index.tokens(names))
        assert (tokens[-2:] == 1).all()

    def test_reads_ids_payloads_and_values_without_tokens(self, index):
        index.add(ItemBatch(["item3", "late"], self.full(2), [{"n": 1, "color": "Red"}, {"n": "1.0"}]))
        index.add(ItemBatch(["gone"], self.full(1), [{"size": "m"}]))
        index.add(ItemBatch(["odd"], self.full(1), [{"n": True, "list": [1], "none": None}]))
        index.delete(["item0", "gone"])
        assert index.ids() == [item_id for item_id, _ in index.entries()]
        assert index.ids(parse_filter("n = 1")) == ["item3", "late"]
        assert index.ids(parse_filter("not n = 1"))[-1] == "odd"
        with pytest.raises(FilterError, match="did you mean 'color'"):
            index.ids(parse_filter("colour = red"))
        asked = ["late", "item0", "nobody", "item3", "late"]
        assert index.payloads(asked) == {"late": {"n": "1.0"}, "item3": {"n": 1, "color": "Red"}}
        assert index.payloads([]) == {}
        values = {"n": {"1": 1, "1.0": 1, "True": 1}, "color": {"Red": 1}, "list": {"1": 1}}
        assert index.values() == values

    def test_payloads_change_alone(self, index, tmp_path):
        """Items keep their vectors and their places, and filters find the new values."""
        other = self.engine.open(tmp_path / "index")
        query = torch.randn(1, 1, 8)
        scores = [(hit.id, hit.score) for hit in index.search(query, 10)[0]]
        before = index.generation
        new = {f"item{i}": {"price": f"{i}.50", "color": "Red"} for i in (7, 2, 3)}
        assert index.change_payloads({**new, "nobody": {"price": "1"}}) == 3
        assert index.generation > before
        assert index.payloads(["item2", "item4"]) == {"item2": new["item2"], "item4": {"path": "/4"}}
        assert index.ids() == [f"item{i}" for i in range(10)]
        assert [(hit.id, hit.score) for hit in index.search(query, 10)[0]] == scores
        assert index.ids(parse_filter("color = red and price < 5")) == ["item2", "item3"]
        assert index.values()["price"] == {"2.50": 1, "3.50": 1, "7.50": 1}
        index.change_payloads({"item3": {"price": "9.50"}})
        assert index.ids(parse_filter("color = red")) == ["item2", "item7"]
        other.refresh()
        for one in (other, self.engine.open(tmp_path / "index")):
            assert one.ids(parse_filter("price > 5")) == ["item3", "item7"]
            assert {hit.id: hit.payload for hit in one.search(query, 10)[0]} == dict(one.entries())

    def test_payloads_that_are_the_same_may_be_written_again(self, index):
        before = dict(index.entries())
        assert index.change_payloads(before) == 10
        assert index.change_payloads({}) == index.change_payloads({"nobody": {}}) == 0
        assert dict(index.entries()) == before

    def test_an_item_with_several_values_fulfils_what_any_of_them_does(self, index):
        index.add(self.item("tee", 1, size=["S", "M"], price=["19.90 €", "45"]))
        index.add(self.item("cap", 2, size="M", price="30"))
        asked = {
            "size = m": ["tee", "cap"],
            "size = s and size = m": ["tee"],
            "size != s and price > 0": ["cap"],
            "price < 20": ["tee"],
            "price > 40": ["tee"],
            # One of its prices must lie between both ends.
            "price > 25 and price < 40": ["cap"],
            "price > 25 and (price < 40 and size = m)": ["cap"],
            "not price < 20 and size = m": ["cap"],
            "price = 45": ["tee"],
        }
        assert {where: index.ids(parse_filter(where)) for where in asked} == asked
        assert index.values() == {"size": {"S": 1, "M": 2}, "price": {"19.90 €": 1, "45": 1, "30": 1}}

    def test_a_list_of_one_value_is_that_value(self, index):
        index.add(self.item("tee", 1, size=["M"], price=["19.90 €"]))
        index.add(self.item("cap", 2, size=[], price="30"))
        asked = {"size = m": ["tee"], "size != m and price > 0": ["cap"], "price < 20": ["tee"]}
        assert {where: index.ids(parse_filter(where)) for where in asked} == asked
        assert index.values() == {"size": {"M": 1}, "price": {"19.90 €": 1, "30": 1}}

    def test_knows_the_views_of_products(self, index):
        assert not index.has_products
        assert index.views(["Tee"]) == {}
        index.add(self.item("t1", 1, **{PRODUCT: "Tee"}))
        index.add(self.item("t2", 2, **{PRODUCT: "tee"}))
        index.add(self.item("t3", 3, **{PRODUCT: "Tee"}))
        index.add(self.item("c1", 4, **{PRODUCT: "007"}))
        index.add(self.item("c2", 4, **{PRODUCT: "7"}))
        assert index.has_products
        assert index.views(["Tee", "7", "nobody"]) == {"Tee": ["t1", "t3"], "7": ["c2"]}
        assert "size" not in index.values()
        assert index.info()["attributes"] == []

    @pytest.mark.parametrize("k", [1, 3, 50])
    def test_finds_each_product_once_by_its_best_view(self, index, k):
        draw = torch.Generator().manual_seed(3)
        products = ["large"] * 60 + ["small"] * 2 + ["other"]
        tokens = torch.randn(len(products), self.header.tokens, 8, generator=draw)
        # All views of the large product come before any other.
        tokens[:60] = 2 + tokens[:60] / 10
        views = [f"view{number}" for number in range(len(products))]
        index.add(ItemBatch(views, tokens, [{PRODUCT: product} for product in products]))
        query = torch.ones(1, 1, 8)
        ranked = [(hit.payload.get(PRODUCT, hit.id), hit.id) for hit in index.search(query, 99)[0]]
        best = {}
        for product, view in ranked:
            best.setdefault(product, view)
        [found] = best_products(index, query, k)
        assert [(one.product, one.best.id) for one in found] == list(best.items())[:k]
        assert {*found[0].other_views, found[0].best.id} == set(views[:60])
        [without] = best_products(index, query, k, [all_views(index, ["view3", "nobody"])])
        assert [one.product for one in without] == [name for name in best if name != "large"][:k]
        assert item_named(index, "small") == "view60"
        assert [item_named(index, name) for name in ("view5", "item1", "nobody")] == [
            "view5",
            "item1",
            "nobody",
        ]

    def test_draws_a_sample_by_seed(self, tmp_path):
        index = self.engine.build(tmp_path / "many", self.header, self.batches(40))
        # What was deleted or replaced leaves gaps, and is not drawn.
        index.delete([f"item{number}" for number in range(30)])
        index.add(self.item("item35", 1))
        left = index.ids()
        assert sorted(index.sample(99, seed=0)) == sorted(left)
        some = index.sample(4, seed=0)
        assert len(set(some)) == 4
        assert set(some) <= set(left)
        assert index.sample(4, seed=0) == self.engine.open(tmp_path / "many").sample(4, seed=0) == some
        assert len({tuple(index.sample(4, seed)) for seed in range(5)}) > 1
        index.delete(left)
        assert index.sample(4, seed=0) == index.ids() == []

    def test_refuses_another_model(self, index):
        index.check_model(SimpleNamespace(index_fingerprint=lambda like: like))
        with pytest.raises(EngineError, match=r"another model \(m1, and this is m2\): name that model"):
            index.check_model(SimpleNamespace(index_fingerprint=lambda like: "m2"))

    def test_refuses_queries_of_another_width(self, index):
        with pytest.raises(EngineError, match="width 9"):
            index.search(torch.randn(1, 1, 9), 3)

    def test_each_query_has_its_own_exclusions(self, index):
        queries = torch.randn(1, 1, 8).expand(3, 1, 8)
        best = [hit.id for hit in index.search(queries[:1], 2)[0]]
        found = index.search(queries, 1, [[best[0]], [], [best[1]]])
        assert [hits[0].id for hits in found] == [best[1], best[0], best[0]]

    def test_preferences_add_to_scores(self, tmp_path):
        payloads = [{}, {"Fit": "slim"}, {"Fit": ["Wide", "cosy"]}, {"Fit": "7", "x": 1}, {"Fit": ["wide"]}]
        tokens = torch.rand(5, self.header.tokens, 8, generator=torch.Generator().manual_seed(4))
        batch = ItemBatch([f"i{row}" for row in range(5)], tokens, payloads)
        index = self.engine.build(tmp_path / "preferred", self.header, iter([batch]))
        queries = torch.rand(2, 1, 8, generator=torch.Generator().manual_seed(5))
        plain = [{hit.id: hit.score for hit in hits} for hits in index.search(queries, 5)]
        cells = CellPreference("fit", {"SLIM": 9.0, "wide": 3.0, "cosy": -5.0, "7.0": 20.0}, others=-30.0)
        missing = CellPreference("nobody has this", {"a": 9.0}, others=7.0)
        prefer = [Preference(), Preference((cells, CellPreference("X", {}, others=2.0), missing))]
        found = [{hit.id: hit.score for hit in hits} for hits in index.search(queries, 5, prefer=prefer)]
        assert found[0] == plain[0]
        added = {"i0": 0.0, "i1": 9.0, "i2": -5.0, "i3": 22.0, "i4": 3.0}
        assert found[1] == pytest.approx({item: plain[1][item] + more for item, more in added.items()})
        assert list(found[1]) == sorted(found[1], key=found[1].get, reverse=True)
        where = parse_filter("fit = slim or fit = 7")
        hits = index.search(queries, 1, [[], ["i3"]], where, prefer)
        assert [hit.id for hit in hits[1]] == ["i1"]

    def test_equals_come_in_the_order_of_adding(self, tmp_path, rule):
        header, count = header_of(rule), self.equals
        draw = torch.Generator().manual_seed(4)
        tokens = torch.rand(1, header.tokens, 8, generator=draw).expand(count, -1, -1)
        names = [f"item{number * 37 % 101}" for number in range(count)]
        same = self.engine.build(tmp_path / "same", header, iter([ItemBatch(names, tokens, [{}] * count)]))
        [hits] = same.search(torch.rand(1, query_vectors(rule), 8, generator=draw), 3)
        assert [hit.id for hit in hits] == names[:3]
        assert len({hit.score for hit in hits}) == 1

    @pytest.mark.parametrize(
        ("queries", "k", "exclude", "message"),
        [
            (torch.ones(1, 1, 8), 0, None, "at least 1"),
            (torch.ones(1, 8), 3, None, r"shape \[1, 8\]"),
            (torch.full((1, 1, 8), torch.nan), 3, None, "contains NaN or infinity"),
            (torch.ones(2, 1, 8), 3, [["item1"]], "2 queries came with 1 lists"),
        ],
    )
    def test_refuses_nonsense(self, index, queries, k, exclude, message):
        with pytest.raises(EngineError, match=message):
            index.search(queries, k, exclude)

    def test_holds_a_batch_at_a_time(self, tmp_path):
        alive = []

        def watched():
            for batch in self.batches(40):
                assert sum(reference() is not None for reference in alive) <= 2
                own = replace(batch, tokens=batch.tokens.clone())
                alive.append(weakref.ref(own.tokens))
                yield own
                del own

        assert len(self.engine.build(tmp_path / "many", self.header, watched())) == 40
        assert len(alive) == 10

    @pytest.mark.parametrize(
        ("items", "message"),
        [
            (lambda self: iter(()), "nothing to index"),
            (lambda self: iter([*self.batches(), *self.batches()]), "'item0' comes twice"),
            (lambda self: iter([ItemBatch(["a", "a"], self.full(2), [{}, {}])]), "'a' comes twice"),
            (lambda self: self.batches(width=9), "items of this index need"),
            (lambda self: iter([ItemBatch(["a"], self.full(2), [{}])]), "items of this index need"),
            (lambda self: iter([ItemBatch(["a"], self.full(1), [])]), "1 items came with 0 payloads"),
            (lambda self: iter([ItemBatch([""], self.full(1), [{}])]), "empty id"),
            (
                lambda self: iter(
                    [ItemBatch(["a", "b"], torch.tensor([1.0, 1e6])[:, None, None].expand(2, 1, 8), [{}, {}])]
                ),
                "tokens of 'b' are not numbers",
            ),
        ],
    )
    def test_a_build_that_fails_leaves_the_old_index_as_it_was(self, index, tmp_path, items, message):
        with pytest.raises(EngineError, match=message):
            self.engine.build(tmp_path / "index", self.header, items(self))
        assert len(self.engine.open(tmp_path / "index")) == 10
        assert [path.name for path in tmp_path.iterdir()] == ["index"]

    def test_a_new_index_takes_the_place_of_the_old(self, index, tmp_path):
        self.engine.build(tmp_path / "index", self.header, self.batches(4, prefix="other"))
        assert "other3" in self.engine.open(tmp_path / "index")
        assert "item3" not in self.engine.open(tmp_path / "index")
        assert len(index.search(torch.randn(1, 1, 8), 50)[0]) == (4 if self.sees_at_once else 10)

    def test_a_folder_that_is_no_index_is_never_replaced(self, tmp_path):
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / "a.jpg").write_text("dear to someone")
        (tmp_path / "file").write_text("dear to someone")
        for name in ("pictures", "file"):
            with pytest.raises(EngineError, match="name another folder"):
                self.engine.build(tmp_path / name, self.header, self.batches())
        assert (tmp_path / "pictures" / "a.jpg").exists()
        assert (tmp_path / "file").read_text() == "dear to someone"

    def test_an_empty_folder_is_no_index(self, tmp_path):
        (tmp_path / "nothing").mkdir()
        with pytest.raises(EngineError, match="not an index"):
            self.engine.open(Path(tmp_path / "nothing"))

    def test_after_any_changes_it_finds_what_an_index_built_of_the_same_finds(self, tmp_path, rule):
        header = header_of(rule)
        # Positive, because a likelihood takes logarithms.
        first = [replace(batch, tokens=batch.tokens.abs()) for batch in batches(40, header=header)]
        index = self.engine.build(tmp_path / "changed", header, iter(first))
        items = {
            name: (batch.tokens[row], batch.payloads[row])
            for batch in first
            for row, name in enumerate(batch.ids)
        }
        draw = torch.Generator().manual_seed(7)
        queries = torch.rand(3, query_vectors(rule), 8, generator=draw)
        for step in range(14):
            names = [f"item{i}" for i in torch.randperm(60, generator=draw)[:3].tolist()]
            if step % 3:
                tokens = torch.rand(3, header.tokens, 8, generator=draw)
                payloads = [{"path": f"/{step}"}] * 3
                index.add(ItemBatch(names, tokens, payloads))
                for row, name in enumerate(names):
                    items.pop(name, None)
                    items[name] = tokens[row], payloads[row]
            else:
                there = sum(items.pop(name, None) is not None for name in names)
                assert index.delete([*names, names[0], "nobody"]) == there
        everything = ItemBatch(
            list(items), torch.stack([tokens for tokens, _ in items.values()]), [p for _, p in items.values()]
        )
        right = self.engine.build(tmp_path / "built", header, iter([everything])).search(queries, 99)
        for engine in (index, self.engine.open(tmp_path / "changed")):
            assert len(engine) == len(items) == len(right[0])
            for hits, wanted in zip(engine.search(queries, 99), right, strict=True):
                assert {hit.id: hit.payload for hit in hits} == {hit.id: hit.payload for hit in wanted}
                assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in wanted], abs=1e-5)

    def test_what_is_replaced_counts_as_the_newest_among_equals(self, tmp_path):
        names = ["e", "b", "d"]
        same = self.engine.build(
            tmp_path / "same", self.header, iter([ItemBatch(names, self.full(3), [{} for _ in names])])
        )
        same.add(ItemBatch(["e", "a"], self.full(2), [{}, {}]))
        assert [hit.id for hit in same.search(torch.ones(1, 1, 8), 9)[0]] == ["b", "d", "e", "a"]

    def test_what_items_take_the_place_of_goes_by_the_same_change(self, index):
        before = index.generation
        index.add(self.item("new", 1), ["item1", "item8", "nobody"])
        assert index.generation == before + 1
        assert index.ids() == [f"item{i}" for i in range(10) if i not in (1, 8)] + ["new"]
        index.add(self.item("item3", 2), ["new", "item3"])
        assert index.ids()[-1] == "item3"
        assert len(index) == 8

    def test_equals_keep_the_order_of_adding_through_many_changes(self, index):
        for number in range(12):
            index.add(ItemBatch([f"n{number}"], self.full(1, 9.0), [{}]))
        index.delete(["n4"])
        right = [f"n{number}" for number in range(12) if number != 4]
        assert [hit.id for hit in index.search(torch.ones(1, 1, 8), 11)[0]] == right

    def test_everything_can_be_deleted_and_come_back(self, index):
        assert index.delete([f"item{i}" for i in range(10)]) == 10
        assert len(index) == 0
        assert index.search(torch.ones(2, 1, 8), 3, where=parse_filter("path = x")) == [[], []]
        index.add(self.item("item3", 1))
        assert [hit.id for hit in index.search(torch.ones(1, 1, 8), 3)[0]] == ["item3"]

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            (lambda self: ItemBatch(["new", "new"], self.full(2), [{}, {}]), "'new' comes twice"),
            (lambda self: ItemBatch(["new"], torch.ones(1, 1, 9), [{}]), "items of this index need"),
            (lambda self: ItemBatch(["new"], self.full(1, torch.nan), [{}]), "not numbers"),
        ],
    )
    def test_an_addition_that_fails_changes_nothing(self, index, tmp_path, batch, message):
        with pytest.raises(EngineError, match=message):
            index.add(batch(self))
        again = self.engine.open(tmp_path / "index")
        assert len(index) == len(again) == 10
        assert "new" not in again

    def test_filters_say_what_may_be_found(self, tmp_path):
        colours = ["red", "blue", "green"]
        many = [
            replace(
                batch,
                payloads=[{"color": colours[int(name[4:]) % 3], "n": int(name[4:])} for name in batch.ids],
            )
            for batch in self.batches(200)
        ]
        index = self.engine.build(tmp_path / "shop", self.header, iter(many))
        index.add(self.item("late", 3, color="red", n=500))
        query = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(1))
        everything = index.search(query, 300)
        # The second leaves so few that an engine may take another way.
        for text, wanted in [
            ("color = red and not n > 400", lambda p: p["color"] == "red" and p["n"] <= 400),
            ("n < 3 or n = 500", lambda p: p["n"] in (0, 1, 2, 500)),
        ]:
            found = index.search(query, 300, [["item0"], []], parse_filter(text))
            for row, left_out in enumerate(("item0", None)):
                right = [hit for hit in everything[row] if wanted(hit.payload) and hit.id != left_out]
                assert [hit.id for hit in found[row]] == [hit.id for hit in right]
        with pytest.raises(FilterError, match="did you mean 'color'"):
            index.search(query, 3, where=parse_filter("colour = red"))

    def test_orders_read_numbers_as_people_write_them_and_equals_do_not(self, tmp_path):
        prices = ["€ 9.90", "20", 30, "1.299,50 €", "12 EUR", "12", "ask", "20.0", "-0"]
        batch = ItemBatch(
            [str(place) for place in range(len(prices))],
            torch.randn(len(prices), self.header.tokens, 8, generator=torch.Generator().manual_seed(0)),
            [{"price": price} for price in prices],
        )
        index = self.engine.build(tmp_path / "shop", self.header, iter([batch]))
        for text, places in {
            "price < 12": {0, 8},
            'price >= "€ 20"': {1, 2, 3, 7},
            "price = 12": {5},
            'price = "12 EUR"': {4},
            "price = 20": {1, 7},
            "price = 0": {8},
            "price in {30, ASK}": {2, 6},
        }.items():
            found = index.search(torch.ones(1, 1, 8), 20, where=parse_filter(text))[0]
            assert {int(hit.id) for hit in found} == places, text

    def test_columns_say_which_attributes_hold_numbers(self, tmp_path):
        batch = ItemBatch(
            ["a", "b"],
            torch.randn(2, self.header.tokens, 8),
            [{"price": "€ 5", "color": "red"}, {"size": "m"}],
        )
        index = self.engine.build(tmp_path / "shop", self.header, iter([batch]))
        index.add(self.item("c", 1, size=38))
        columns = index.columns()
        assert {name for part in columns for name in part.names} == {"price", "color", "size"}
        numeric = [name for name in ("price", "color", "size", "other") if has_numbers(columns, name)]
        assert numeric == ["price", "size"]

    def test_another_opener_sees_changes_once_it_looks(self, index, tmp_path):
        other = self.engine.open(tmp_path / "index")
        other.add(self.item("new", 1))
        assert ("new" in index) is self.sees_at_once
        index.refresh()
        assert "new" in index
        index.delete(["new", "item1"])
        other.add(self.item("item2", 2))
        assert "new" not in other
        assert len(other) == 9

    def test_a_handle_does_not_write_into_another_models_index(self, index, tmp_path):
        self.engine.build(tmp_path / "index", self.header.model_copy(update={"model": "m2"}), self.batches(4))
        with pytest.raises(EngineError, match="another model"):
            index.add(self.item("new", 1))
        assert len(self.engine.open(tmp_path / "index")) == 4

    def test_searches_go_on_while_others_write(self, index, tmp_path):
        """Ten items never change; the pair x, y is added and removed together, under one version."""
        wrong, done, searches, searched = [], threading.Event(), [], threading.Condition()

        def wait_for_a_search():
            # Two may have begun before, one of each reader.
            with searched:
                wanted = len(searches) + 3
                assert searched.wait_for(lambda: wrong or len(searches) >= wanted, PATIENCE)

        def write():
            try:
                writer = self.engine.open(tmp_path / "index")
                for version in range(15):
                    pair = [{"version": version}] * 2
                    writer.add(ItemBatch(["x", "y"], self.full(2, 1.0 + version), pair))
                    wait_for_a_search()
                    if version % 5 == 4:
                        writer.delete(["x", "y"])
            except Exception as error:
                wrong.append(error)
            finally:
                done.set()

        def read():
            reader = self.engine.open(tmp_path / "index")
            while not done.is_set():
                reader.refresh()
                hits = reader.search(torch.ones(1, 1, 8), 20)[0]
                own = {hit.id: hit for hit in hits if hit.id in "xy"}
                versions = {hit.payload["version"] for hit in own.values()}
                if len(hits) - len(own) != 10 or len(own) == 1 or len(versions) > 1:
                    wrong.append(hits)
                if any(hit.score != pytest.approx(8 * (1 + hit.payload["version"])) for hit in own.values()):
                    wrong.append(hits)
                with searched:
                    searches.append(len(own))
                    searched.notify_all()

        def guarded():
            try:
                read()
            except Exception as error:
                with searched:
                    wrong.append(error)
                    searched.notify_all()

        threads = [threading.Thread(target=job) for job in (write, guarded, guarded)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not wrong and not any(thread.is_alive() for thread in threads)
        assert 2 in searches
        index.refresh()
        assert len(index) == 10

    def test_no_search_waits_for_a_writer(self, index, tmp_path):
        """A search runs, and an index opens, during a build that replaces the index."""
        answers = []

        def slow():
            for batch in self.batches(8, prefix="other"):
                answers.append([hit.id for hit in index.search(torch.ones(1, 1, 8), 1)[0]])
                answers.append(
                    [hit.id for hit in self.engine.open(tmp_path / "index").search(torch.ones(1, 1, 8), 1)[0]]
                )
                yield batch

        before = [hit.id for hit in index.search(torch.ones(1, 1, 8), 1)[0]]
        self.engine.build(tmp_path / "index", self.header, slow())
        assert answers == [before] * 4

    def test_pages_through_its_items(self, index):
        late = torch.ones(3, index.header.tokens, 8)
        index.add(ItemBatch(["late", "item3", "later"], late, [{"n": 1}, {"n": 2}, {"n": 3}]))
        index.delete(["item0"])
        for where in (None, parse_filter("n > 1"), parse_filter("not n > 1")):
            right = [(item_id, index.payload(item_id)) for item_id in index.ids(where)]
            found, after, pages = [], None, 0
            while pages == 0 or after is not None:
                entries, after = index.page(3, after, where)
                found += entries
                pages += 1
            assert found == right
            assert pages == max(1, -(-len(right) // 3))
        assert index.page(2, "item3") == ([("later", {"n": 3})], None)
        with pytest.raises(EngineError, match="no item 'item0'"):
            index.page(3, "item0")
        with pytest.raises(FilterError, match="did you mean 'n'"):
            index.page(3, None, parse_filter("nn = 1"))
        index.delete(index.ids())
        assert index.page(3) == ([], None)
