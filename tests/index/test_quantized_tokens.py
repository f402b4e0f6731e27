"""Quantized tokens: what they find, that they hide nothing, and that no search waits for them."""

import threading

import numpy as np
import pytest
import torch

from dqecir.index import codebooks, exact, ranking
from dqecir.index.codebooks import joined_quantized, quantize
from dqecir.index.contract import IndexHeader, ItemBatch, SearchSettings
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.index.quantized_tokens import FILE, SCAN_PLANS
from dqecir.methods.score_rules import SINGLE, SMOOTHING
from dqecir.methods.scoring import RULES, score
from tests.conftest import PATIENCE
from tests.index.contract import HEADER, EngineContract, batches, item

ALL = SearchSettings(candidates=10_000, exact_up_to=0)
SOME = SearchSettings(candidates=150, exact_up_to=0)


class QuantizedIndex(ExactIndex):
    """The exact engine with every segment quantized, and every item among the candidates."""

    @classmethod
    def build(cls, folder, header, batches):
        super().build(folder, header, batches).configure(ALL)
        return cls.open(folder)


class TestQuantized(EngineContract):
    engine = QuantizedIndex

    def test_quantized_tokens_are_searched(self, index, monkeypatch):
        asked = []
        best = ranking.best_of_segment
        monkeypatch.setattr(
            ranking, "best_of_segment", lambda *given: asked.append(given[0].quantized) or best(*given)
        )
        index.add(item("new", 1))
        index.search(torch.ones(1, 1, 8), 3)
        assert len(asked) == 2
        assert None not in asked


def shop(rule: str, count: int = 3000) -> tuple[IndexHeader, torch.Tensor, torch.Tensor]:
    """Items that are as real ones: tokens of few dimensions, for likelihood two peaked distributions too."""
    draw = torch.Generator().manual_seed(3)
    latent = torch.randn(count, 1, 4, generator=draw) + 0.3 * torch.randn(count, 4, 4, generator=draw)
    tokens = torch.nn.functional.normalize(latent @ torch.randn(4, 16, generator=draw), dim=2)
    queries = torch.randn(20, 1, 16, generator=draw)
    if rule == "likelihood":
        shown = (3 * torch.randn(count, 2, 6, generator=draw)).softmax(dim=2)
        tokens = torch.cat([tokens, torch.nn.functional.pad(shown, (0, 10))], dim=1)
        wanted = (4 * torch.randn(20, 2, 6, generator=draw)).softmax(dim=2)
        masses = torch.tensor([0.3, 0.0])[:, None]  # the second column is asked of by nobody
        queries = torch.cat([queries, masses * torch.nn.functional.pad(wanted, (0, 10))], dim=1)
    elif rule in ("mean_mean", "max_max"):
        queries = torch.randn(20, 2, 16, generator=draw)
    elif rule in SINGLE:
        tokens = tokens[:, :1]
        queries = torch.randn(20, 1 if rule == "dot" else 2, 16, generator=draw)
    header = IndexHeader(model="m1", tokens=tokens.shape[1], size=16, score_rule=rule)
    return header, tokens.half(), queries


def as_batch(tokens: torch.Tensor) -> ItemBatch:
    return ItemBatch(
        [f"i{n}" for n in range(len(tokens))], tokens, [{"n": n, "tenth": n % 10} for n in range(len(tokens))]
    )


@pytest.mark.parametrize("rule", sorted(RULES))
def test_few_candidates_hold_the_best(tmp_path, rule):
    header, tokens, queries = shop(rule)
    index = ExactIndex.build(tmp_path / "i", header, iter([as_batch(tokens)]))
    index.configure(SOME)
    for where in (None, parse_filter("tenth = 3")):
        right = index.with_settings(None).search(queries, 10, where=where)
        found = index.search(queries, 10, where=where)
        share = [
            len({hit.id for hit in one} & {hit.id for hit in other}) / 10
            for one, other in zip(found, right, strict=True)
        ]
        assert np.mean(share) > 0.97
        # The scorer scores the results; quantized tokens only choose candidates.
        own = {hit.id: hit.score for hits in right[:1] for hit in hits}
        assert all(hit.score == pytest.approx(own[hit.id], abs=1e-5) for hit in found[0] if hit.id in own)
        assert where is None or all(hit.payload["tenth"] == 3 for hits in found for hit in hits)


def test_codes_say_what_the_scorer_says(tmp_path):
    """With as many centroids as there are different tokens quantized tokens are exact."""
    _, tokens, queries = shop("likelihood", 200)
    quantized = quantize(tokens)
    assert quantized.roots.tolist() == [False] * 4 + [True] * 2
    for query in queries[:5]:
        right = score(query[None], tokens, "likelihood")[0]
        told = torch.from_numpy(quantized.scores(query.numpy(), "likelihood"))
        assert (told - right).abs().max() < 0.01
    # The look-ups of one item, by hand.
    place, row = 4, 17
    high, low = divmod(int(quantized.codes[place, row]), 256)
    shown = np.square(quantized.coarse[place, high] + quantized.fine[place, low])
    wanted = queries[0, 1].numpy()
    fit = np.log(wanted @ shown / wanted.sum() + SMOOTHING) * wanted.sum()
    table = SCAN_PLANS["likelihood"](queries[0].numpy(), 6).table(quantized, place)
    assert table[quantized.codes[place, row]] == pytest.approx(fit, abs=1e-5)


def test_no_generation_counts_before_its_tokens_are_quantized(tmp_path, monkeypatch):
    header, tokens, _ = shop("likelihood")
    batch = as_batch(tokens)
    index = ExactIndex.build(tmp_path / "i", header, iter([batch]))
    index.configure(SOME)
    seen, learned = [], []
    write, learn = exact.write_manifest, codebooks.quantize
    monkeypatch.setattr(exact, "write_manifest", lambda *given: seen.append(given[1]) or write(*given))
    monkeypatch.setattr(codebooks, "quantize", lambda given: learned.append(len(given)) or learn(given))
    index.delete(batch.ids[:1600])  # more than half: what is left is written anew
    for start in range(4):
        index.add(ItemBatch([f"new{start}-{n}" for n in range(50)], tokens[:50], [{}] * 50))
    ExactIndex.build(tmp_path / "i", header, iter([batch]))
    assert len(seen) > 7
    assert all(entry.sketch_sha256 for manifest in seen for entry in manifest.segments)
    # Neither the shrunken segment nor one that grew by a few learned codebooks again.
    assert learned.count(1400) == 0
    assert learned[-1] == 3000


def test_codes_are_kept_where_segments_are_joined():
    _, tokens, queries = shop("likelihood")
    quantized = quantize(tokens[:2000])
    left, few = np.arange(2000) % 4 > 0, np.ones(1000, dtype=np.bool_)
    joined = joined_quantized([(quantized, tokens[:2000], left), (None, tokens[2000:], few)])
    assert joined.codes.shape == (6, 2500)
    told = joined.scores(queries[0].numpy(), "likelihood")
    assert (told[:1500] == quantized.scores(queries[0].numpy(), "likelihood")[left]).all()
    right = score(queries[:1], tokens[2000:], "likelihood")[0].numpy()
    assert np.corrcoef(told[1500:], right)[0, 1] > 0.98
    assert (
        joined_quantized([(quantized, tokens[:2000], left), (None, tokens[:1600], np.ones(1600, bool))])
        is None
    )


def test_of_equals_the_first_are_candidates(tmp_path):
    tokens = torch.ones(500, 3, 8)
    index = ExactIndex.build(tmp_path / "i", HEADER, iter([as_batch(tokens)]))
    index.configure(SearchSettings(candidates=5, exact_up_to=0))
    found = index.search(torch.ones(1, 1, 8), 3, [["i1"]])[0]
    assert [hit.id for hit in found] == ["i0", "i2", "i3"]


@pytest.mark.parametrize("harm", ["missing", "cut off", "changed", "of another segment"])
def test_without_whole_quantized_tokens_the_search_is_exact(tmp_path, harm):
    header, tokens, queries = shop("max_t")
    index = ExactIndex.build(tmp_path / "i", header, iter([as_batch(tokens)]))
    right = index.search(queries, 10)
    index.configure(SearchSettings(candidates=10, exact_up_to=0))
    [path] = (tmp_path / "i").glob(f"s*/{FILE}")
    data = path.read_bytes()
    match harm:
        case "missing":
            path.unlink()
        case "cut off":
            path.write_bytes(data[:1000])
        case "changed":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case _:
            other = ExactIndex.build(tmp_path / "j", header, iter([as_batch(tokens.flip(0))]))
            other.configure(ALL)
            path.write_bytes(next((tmp_path / "j").glob(f"s*/{FILE}")).read_bytes())
    opened = ExactIndex.open(tmp_path / "i")
    assert opened.info()["sketched items"] == 0
    assert opened.search(queries, 10) == right
    # The next change makes it again.
    opened.delete(["i7"])
    assert ExactIndex.open(tmp_path / "i").info()["sketched items"] == 3000


def test_settings_outlive_a_rebuild_by_the_same_model_alone(tmp_path):
    header, tokens, _ = shop("max_t", 50)
    index = ExactIndex.build(tmp_path / "i", header, iter([as_batch(tokens)]))
    index.configure(SOME)
    again = ExactIndex.build(tmp_path / "i", header, iter([as_batch(tokens[:40])]))
    assert (again.info()["sketch"], again.info()["sketched items"]) == (SOME.model_dump(), 40)
    again.configure(None)
    assert not list((tmp_path / "i").glob(f"s*/{FILE}"))
    again.configure(SOME)
    other = header.model_copy(update={"model": "m2"})
    assert ExactIndex.build(tmp_path / "i", other, iter([as_batch(tokens)])).info()["sketch"] is None


def test_neither_searches_nor_writers_wait_while_tokens_are_quantized(tmp_path, monkeypatch):
    index = ExactIndex.build(tmp_path / "i", HEADER, batches(40))
    begun, go_on = threading.Event(), threading.Event()

    def slow(tokens):
        begun.set()
        assert go_on.wait(PATIENCE)
        return quantize(tokens)

    monkeypatch.setattr(codebooks, "quantize", slow)
    tuning = threading.Thread(target=index.configure, args=(SOME,))
    tuning.start()
    assert begun.wait(PATIENCE)
    other = ExactIndex.open(tmp_path / "i")
    other_done = threading.Thread(target=lambda: (other._quantizing.acquire(), other.delete(["item3"])))
    other_done.start()
    other_done.join(PATIENCE)
    assert not other_done.is_alive()
    assert len(index.search(torch.ones(1, 1, 8), 50)[0]) == 40
    go_on.set()
    tuning.join(PATIENCE)
    reopened = ExactIndex.open(tmp_path / "i")
    assert len(reopened.search(torch.ones(1, 1, 8), 50)[0]) == 39
    assert reopened.info()["sketched items"] == 40


def test_an_error_while_tokens_are_quantized_keeps_no_later_change_from_it(tmp_path, monkeypatch):
    def broken(tokens):
        raise RuntimeError("out of memory")

    index = ExactIndex.build(tmp_path / "i", HEADER, batches(40))
    with monkeypatch.context() as patch:
        patch.setattr(codebooks, "quantize", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            index.configure(SOME)
    index.delete(["item3"])
    assert index.info()["sketched items"] == 40
