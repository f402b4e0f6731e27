"""Projected vectors: their results, no hidden items by default, and their storage."""

import numpy as np
import pytest
import torch

from dqecir.errors import EngineError
from dqecir.index import exact, projection
from dqecir.index.contract import ItemBatch, SearchSettings
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.index.item_preferences import CellPreference, Preference
from dqecir.index.projection import DIRECTIONS, PROJECTED, project
from dqecir.search import audit as auditing
from dqecir.search.audit import audit
from tests.index.contract import DOT, HEADER, EngineContract, batches

ALL = SearchSettings(candidates=10_000, exact_up_to=0)
SOME = SearchSettings(candidates=300, exact_up_to=0)
WIDE = DOT.model_copy(update={"size": 64})


class ProjectedIndex(ExactIndex):
    """The exact engine with every vector projected, and every item among the candidates."""

    @classmethod
    def build(cls, folder, header, batches):
        index = super().build(folder, header, batches)
        if header.score_rule == "dot":
            index.configure(ALL)
        return cls.open(folder)


class TestProjected(EngineContract):
    engine = ProjectedIndex


def shop(count: int = 3000) -> tuple[ItemBatch, torch.Tensor]:
    """Return items of few directions and some noise, and queries."""
    draw = torch.Generator().manual_seed(3)
    directions = torch.randn(12, 64, generator=draw)
    tokens = torch.randn(count, 12, generator=draw) @ directions + torch.randn(count, 64, generator=draw) / 10
    payloads = [{"tenth": row % 10} for row in range(count)]
    batch = ItemBatch([f"i{row}" for row in range(count)], (5 + tokens)[:, None].half(), payloads)
    return batch, torch.randn(20, 1, 64, generator=draw)


def built(folder, batch: ItemBatch) -> ExactIndex:
    return ExactIndex.build(folder, WIDE, iter([batch]))


def test_few_candidates_hold_the_best(tmp_path):
    batch, queries = shop()
    index = built(tmp_path / "i", batch)
    index.configure(SOME)
    prefer = [Preference((CellPreference("tenth", {"3": 30.0}),))] * len(queries)
    for more in ({}, {"where": parse_filter("not tenth = 3")}, {"prefer": prefer}):
        right = index.with_settings(None).search(queries, 10, [["i7"]] * len(queries), **more)
        found = index.search(queries, 10, [["i7"]] * len(queries), **more)
        shares = [
            len({hit.id for hit in one} & {hit.id for hit in other}) / 10
            for one, other in zip(found, right, strict=True)
        ]
        assert np.mean(shares) > 0.98
        # The scorer scores the results; projections only choose candidates.
        own = {hit.id: hit.score for hit in right[0]}
        assert all(hit.score == own[hit.id] for hit in found[0] if hit.id in own)
        assert "i7" not in {hit.id for hits in found for hit in hits}


def test_directions_are_few_where_few_hold_the_variance():
    batch, _ = shop()
    assert project(batch.tokens.numpy()).directions.shape == (64, 16)
    noise = torch.randn(500, 1, 64).half().numpy()
    assert project(noise).directions.shape == (64, 64)
    same = 60_000 * np.ones((5, 1, 64), dtype=np.float16)
    query = torch.ones(64)
    assert project(same).candidates(query, 1, np.ones(5, dtype=np.bool_)).any()
    narrow = np.ones((5, 1, 1), dtype=np.float16)
    assert project(narrow).candidates(query[:1], 1, np.ones(5, dtype=np.bool_)).any()


def test_a_filter_that_leaves_none_of_the_best_finds_all_the_same(tmp_path):
    batch, _ = shop()
    index = built(tmp_path / "i", batch)
    index.configure(SOME)
    query = batch.tokens[:1].float()
    scores = torch.einsum("ntd,qtd->n", batch.tokens.float(), query)
    # The half that no product brings up: a guess by the share of the half would not hold any of it.
    payloads = [{"half": "low" if score < scores.median() else "high"} for score in scores]
    index = built(tmp_path / "j", ItemBatch(batch.ids, batch.tokens, payloads))
    index.configure(SearchSettings(candidates=100, exact_up_to=0))
    where = parse_filter("half = low")
    assert index.search(query, 10, where=where) == index.with_settings(None).search(query, 10, where=where)


def test_a_filter_leaves_as_many_results_as_were_requested(tmp_path):
    batch, queries = shop()
    index = built(tmp_path / "i", batch)
    index.configure(SearchSettings(candidates=10, exact_up_to=0))
    for where in ("tenth >= 5", "tenth = 3"):
        found = index.search(queries, 10, [["i7"]] * len(queries), where=parse_filter(where))
        assert [len(hits) for hits in found] == [10] * len(queries)


def test_without_faiss_every_item_is_scored_and_that_is_said(tmp_path, monkeypatch):
    batch, queries = shop(500)
    index = built(tmp_path / "i", batch)
    right = index.search(queries, 10)
    index.configure(SearchSettings(candidates=10, exact_up_to=0))
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    index = ExactIndex.open(tmp_path / "i")
    assert index.search(queries, 10) == right
    assert "pip install 'dqecir[fast]'" in index.info()["quick"]
    index.add(ItemBatch(["new"], batch.tokens[:1], [{}]))
    with pytest.raises(EngineError, match=r"dqecir\[fast\]"):
        index.configure(SOME)
    monkeypatch.setattr(auditing, "QUICK", 0.0)
    assert "dqecir[fast]" in audit(index, None, count=5).reason
    ExactIndex.verify(tmp_path / "i")


def test_every_item_is_scored_where_few_may_be_found(tmp_path):
    batch, queries = shop()
    index = built(tmp_path / "i", batch)
    index.configure(SearchSettings(candidates=10, exact_up_to=300))
    where = parse_filter("tenth = 3")
    assert index.search(queries, 10, where=where) == index.with_settings(None).search(
        queries, 10, where=where
    )


def test_no_generation_counts_before_its_vectors_are_projected(tmp_path, monkeypatch):
    batch, _ = shop(300)
    index = built(tmp_path / "i", batch)
    index.configure(SOME)
    seen, write = [], exact.write_manifest
    monkeypatch.setattr(exact, "write_manifest", lambda *given: seen.append(given[1]) or write(*given))
    index.delete(batch.ids[:160])  # More than half: the rest is written anew.
    for start in range(4):
        index.add(ItemBatch([f"new{start}-{n}" for n in range(5)], batch.tokens[:5], [{}] * 5))
    built(tmp_path / "i", batch)
    assert len(seen) > 6
    assert all(entry.projected_sha256 for manifest in seen for entry in manifest.segments)
    ExactIndex.verify(tmp_path / "i")


@pytest.mark.parametrize("name", [PROJECTED, DIRECTIONS])
@pytest.mark.parametrize("harm", ["missing", "cut off", "changed"])
def test_without_whole_projections_every_item_is_scored(tmp_path, name, harm):
    batch, queries = shop(500)
    index = built(tmp_path / "i", batch)
    right = index.search(queries, 10)
    index.configure(SearchSettings(candidates=10, exact_up_to=0))
    [path] = (tmp_path / "i").glob(f"s*/{name}")
    match harm:
        case "missing":
            path.unlink()
        case "cut off":
            path.write_bytes(path.read_bytes()[:200])
        case _:
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert ExactIndex.open(tmp_path / "i").search(queries, 10) == right
    ExactIndex.open(tmp_path / "i").configure(ALL)
    ExactIndex.verify(tmp_path / "i")
    assert len(list((tmp_path / "i").glob(f"s*/{name}"))) == 1


def test_a_changed_byte_is_found_by_verifying(tmp_path):
    batch, _ = shop(50)
    built(tmp_path / "i", batch).configure(SOME)
    [path] = (tmp_path / "i").glob(f"s*/{PROJECTED}")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(EngineError, match="audit the index again"):
        ExactIndex.verify(tmp_path / "i")


def test_settings_outlive_a_rebuild_by_the_same_model_alone(tmp_path):
    batch, _ = shop(50)
    index = built(tmp_path / "i", batch)
    index.configure(SOME)
    again = built(tmp_path / "i", batch)
    assert again.info()["quick"] == SOME.model_dump()
    assert len(list((tmp_path / "i").glob(f"s*/{PROJECTED}"))) == 1
    again.configure(None)
    assert not list((tmp_path / "i").glob(f"s*/{PROJECTED}"))
    again.configure(SOME)
    other = WIDE.model_copy(update={"model": "m2"})
    assert ExactIndex.build(tmp_path / "i", other, iter([batch])).info()["quick"] is None


def test_rules_of_several_tokens_are_scanned(tmp_path):
    index = ExactIndex.build(tmp_path / "i", HEADER, batches())
    with pytest.raises(EngineError, match="scores every item by the rule max_t"):
        index.configure(SOME)
    assert index.with_settings(SOME) is None
    assert index.info()["quick"] is None
