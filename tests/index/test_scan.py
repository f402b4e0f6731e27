"""The scan: approximate scores never hide the best items, for all exclusions and all cuts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.index import scan
from dqecir.index.scan import Scan
from dqecir.methods import scoring
from dqecir.methods.scoring import RULES, score, score_of_results


def scan_of(targets: torch.Tensor, rule: str = "dot") -> Scan:
    return Scan(targets, rule, float(targets.float().norm(dim=2).max()))


def everything(targets: torch.Tensor) -> np.ndarray:
    return np.ones(len(targets), dtype=np.bool_)


def nothing(queries: torch.Tensor) -> list[np.ndarray]:
    return [np.empty(0, dtype=np.int64)] * len(queries)


def by_sorting(queries: torch.Tensor, targets: torch.Tensor, rule: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores by one product in float64, rounded, and rows, in a stable order."""
    scores = score_of_results(queries, targets, rule)
    return scores.sort(dim=1, descending=True, stable=True)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 30),
    k=st.integers(1, 35),
    part=st.integers(1, 40),
    few=st.sampled_from([0.0, 0.5, 1.0]),
    rule=st.sampled_from(["dot", "max_t"]),
    many=st.sampled_from([1, 2, 5]),
    preferred=st.booleans(),
)
def test_it_is_a_stable_sort_in_any_parts(seed, items, k, part, few, rule, many, preferred):
    random = np.random.default_rng(seed)
    targets = torch.from_numpy(random.integers(-2, 3, (items, 1, 2)).astype(np.float16))
    queries = torch.from_numpy(random.integers(-2, 3, (many, 1, 2)).astype(np.float32))
    allowed = random.random(items) < 0.7
    left_out = [random.integers(-1, items, 3) for _ in queries]
    added = torch.from_numpy(random.integers(0, 3, (many, items)).astype(np.float32)) if preferred else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "SCORED", part)
        patch.setattr(scan, "COPIED", part)
        patch.setattr(scan, "FEW", few)
        found = scan_of(targets, rule).best(queries, k, allowed, left_out, added)
    scores = score(queries, targets, rule) + (0 if added is None else added)
    scores[:, ~torch.from_numpy(allowed)] = -torch.inf
    for row, own in enumerate(left_out):
        scores[row, own[own >= 0]] = -torch.inf
    ordered = scores.sort(dim=1, descending=True, stable=True)
    for values, rows, best in zip(ordered.values.tolist(), ordered.indices.tolist(), found, strict=True):
        right = [pair for pair in zip(values, rows, strict=True) if pair[0] > -torch.inf]
        assert best == right[:k]


@pytest.mark.parametrize("many", [1, 5])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_equal_items_have_equal_scores_wherever_they_stand(rule, many):
    draw = torch.Generator().manual_seed(0)
    one = torch.rand(
        1, 3 if rule in ("max_t", "mean_mean", "max_max", "likelihood") else 1, 332, generator=draw
    )
    targets = one.half().expand(1003, -1, -1).contiguous()
    queries = torch.rand(many, 1 if rule in ("dot", "max_t") else 2, 332, generator=draw)
    for best in scan_of(targets, rule).best(queries, 7, everything(targets), nothing(queries)):
        assert [row for _, row in best] == list(range(7))
        assert len({value for value, _ in best}) == 1


@pytest.mark.parametrize("many", [1, 5])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("apart", [0.0, 1e-3, 0.05, 1.0])
def test_what_float16_cannot_tell_apart_is_told_apart(many, scale, apart):
    """Items differ by less than the rounding of their products, like items with a large common part."""
    draw = torch.Generator().manual_seed(1)
    targets = (
        20 * torch.randn(1, 1, 64, generator=draw) + apart * torch.randn(3000, 1, 64, generator=draw)
    ).half()
    queries = scale * torch.randn(many, 1, 64, generator=draw)
    values, rows = by_sorting(queries, targets, "dot")
    found = scan_of(targets).best(queries, 10, everything(targets), nothing(queries))
    for number, best in enumerate(found):
        assert [row for _, row in best] == rows[number, :10].tolist()
        assert [value for value, _ in best] == values[number, :10].tolist()


def test_a_query_of_zeros_finds_the_first():
    targets = torch.randn(50, 1, 8).half()
    [best] = scan_of(targets).best(torch.zeros(1, 1, 8), 3, everything(targets), nothing(torch.zeros(1)))
    assert best == [(0.0, 0), (0.0, 1), (0.0, 2)]


def test_few_items_are_scored_exactly(monkeypatch):
    draw = torch.Generator().manual_seed(2)
    targets = torch.randn(20_000, 1, 332, generator=draw).half()
    queries = torch.randn(1, 1, 332, generator=draw)
    exactly = []
    monkeypatch.setattr(
        scan, "score_of_results", lambda *given: exactly.append(len(given[1])) or score_of_results(*given)
    )
    scan_of(targets).best(queries, 10, everything(targets), nothing(queries))
    assert 10 <= exactly[0] < 60


def test_memory_mapped_targets_are_never_converted_whole(tmp_path, monkeypatch):
    np.save(tmp_path / "t.npy", np.random.default_rng(0).random((500, 4, 8)).astype(np.float16))
    targets = torch.from_numpy(np.load(tmp_path / "t.npy", mmap_mode="c"))
    seen = []
    monkeypatch.setattr(scoring, "CONVERTED", 320)
    rule = RULES["max_t"]
    monkeypatch.setitem(RULES, "max_t", lambda q, t: seen.append(t.numel()) or rule(q, t))
    scan_of(targets, "max_t").best(torch.ones(1, 1, 8), 5, everything(targets), nothing(torch.ones(1)))
    assert max(seen) == 320
    assert targets.numel() <= sum(seen) < 1.1 * targets.numel()
