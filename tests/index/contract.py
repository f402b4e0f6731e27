"""What every engine must do; a test module of an engine inherits this."""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from dqecir.index.engine import EngineError, Index, IndexHeader, ItemBatch
from dqecir.scoring import score

HEADER = IndexHeader(model="m1", tokens=3, size=8)


def batches(count: int = 10, width: int = 8, prefix: str = "item"):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.nn.functional.normalize(torch.randn(count, 3, width, generator=generator), dim=-1)
    for start in range(0, count, 4):
        rows = range(start, min(start + 4, count))
        yield ItemBatch(
            [f"{prefix}{i}" for i in rows], tokens[rows.start : rows.stop], [{"path": f"/{i}"} for i in rows]
        )


class EngineContract:
    engine: ClassVar[type[Index]]

    @pytest.fixture
    def index(self, tmp_path) -> Index:
        return self.engine.build(tmp_path / "index", HEADER, batches())

    def test_finds_what_the_scorer_ranks_first(self, index):
        queries = torch.randn(5, 1, 8, generator=torch.Generator().manual_seed(1))
        tokens = torch.cat([batch.tokens for batch in batches()]).half()
        best = score(queries, tokens, "max_t").sort(dim=1, descending=True, stable=True)
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

    def test_refuses_another_model(self, index):
        index.check_model("m1")
        with pytest.raises(EngineError, match="another model"):
            index.check_model("m2")

    def test_refuses_queries_of_another_width(self, index):
        with pytest.raises(EngineError, match="width 9"):
            index.search(torch.randn(1, 1, 9), 3)

    def test_each_query_has_its_own_exclusions(self, index):
        queries = torch.randn(1, 1, 8).expand(3, 1, 8)
        best = [hit.id for hit in index.search(queries[:1], 2)[0]]
        found = index.search(queries, 1, [[best[0]], [], [best[1]]])
        assert [hits[0].id for hits in found] == [best[1], best[0], best[0]]

    def test_equals_come_in_the_order_of_adding(self, tmp_path):
        tokens = torch.ones(5, 3, 8)
        names = ["e", "b", "d", "a", "c"]
        same = self.engine.build(
            tmp_path / "same", HEADER, iter([ItemBatch(names, tokens, [{} for _ in names])])
        )
        assert [hit.id for hit in same.search(torch.ones(1, 1, 8), 3)[0]] == names[:3]

    def test_searches_by_the_rule_of_its_header(self, tmp_path):
        header = HEADER.model_copy(update={"score_rule": "mean_mean"})
        index = self.engine.build(tmp_path / "means", header, batches())
        assert self.engine.open(tmp_path / "means").header == header
        queries = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(2))
        tokens = torch.cat([batch.tokens for batch in batches()]).half()
        best = score(queries, tokens, "mean_mean").argmax(dim=1)
        assert [hits[0].id for hits in index.search(queries, 1)] == [f"item{i}" for i in best.tolist()]

    @pytest.mark.parametrize(
        ("queries", "k", "exclude", "message"),
        [
            (torch.ones(1, 1, 8), 0, None, "at least 1"),
            (torch.ones(1, 8), 3, None, r"shape \[1, 8\]"),
            (torch.full((1, 1, 8), torch.nan), 3, None, "not made of numbers"),
            (torch.ones(2, 1, 8), 3, [["item1"]], "2 queries came with 1 lists"),
        ],
    )
    def test_refuses_nonsense(self, index, queries, k, exclude, message):
        with pytest.raises(EngineError, match=message):
            index.search(queries, k, exclude)

    def test_holds_a_batch_at_a_time(self, tmp_path):
        alive = []

        def watched():
            for batch in batches(40):
                assert sum(reference() is not None for reference in alive) <= 2
                own = replace(batch, tokens=batch.tokens.clone())
                alive.append(weakref.ref(own.tokens))
                yield own
                del own

        assert len(self.engine.build(tmp_path / "many", HEADER, watched())) == 40
        assert len(alive) == 10

    @pytest.mark.parametrize(
        ("items", "message"),
        [
            (lambda: iter(()), "nothing to index"),
            (lambda: iter([*batches(), *batches()]), "'item0' comes twice"),
            (lambda: iter([ItemBatch(["a", "a"], torch.ones(2, 3, 8), [{}, {}])]), "'a' comes twice"),
            (lambda: batches(width=9), "do not belong"),
            (lambda: iter([ItemBatch(["a"], torch.ones(2, 3, 8), [{}])]), "do not belong"),
            (lambda: iter([ItemBatch(["a"], torch.ones(1, 3, 8), [])]), "1 items came with 0 payloads"),
            (lambda: iter([ItemBatch([""], torch.ones(1, 3, 8), [{}])]), "empty id"),
            (
                lambda: iter(
                    [ItemBatch(["a", "b"], torch.tensor([1.0, 1e6])[:, None, None].expand(2, 3, 8), [{}, {}])]
                ),
                "tokens of 'b' are not numbers",
            ),
        ],
    )
    def test_a_build_that_fails_leaves_the_old_index_as_it_was(self, index, tmp_path, items, message):
        with pytest.raises(EngineError, match=message):
            self.engine.build(tmp_path / "index", HEADER, items())
        assert len(self.engine.open(tmp_path / "index")) == 10
        assert [path.name for path in tmp_path.iterdir()] == ["index"]

    def test_a_new_index_takes_the_place_of_the_old(self, index, tmp_path):
        self.engine.build(tmp_path / "index", HEADER, batches(4, prefix="other"))
        assert "other3" in self.engine.open(tmp_path / "index")
        assert "item3" not in self.engine.open(tmp_path / "index")
        assert len(index.search(torch.randn(1, 1, 8), 50)[0]) == 10

    def test_a_folder_that_is_no_index_is_never_replaced(self, tmp_path):
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / "a.jpg").write_text("dear to someone")
        (tmp_path / "file").write_text("dear to someone")
        for name in ("pictures", "file"):
            with pytest.raises(EngineError, match="left alone"):
                self.engine.build(tmp_path / name, HEADER, batches())
        assert (tmp_path / "pictures" / "a.jpg").exists()
        assert (tmp_path / "file").read_text() == "dear to someone"

    def test_an_empty_folder_is_no_index(self, tmp_path):
        (tmp_path / "nothing").mkdir()
        with pytest.raises(EngineError, match="no index"):
            self.engine.open(Path(tmp_path / "nothing"))
