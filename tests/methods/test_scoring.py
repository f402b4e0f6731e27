"""The score rules compared with their definitions, for all cuts of the targets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.methods import scoring
from dqecir.methods.scoring import RULES, best_columns, score

PRODUCT_RULES = sorted(set(RULES) - {"likelihood", "product", "harris"})


def by_definition(queries, targets, rule):
    products = np.einsum("bqd,nkd->bnqk", queries.double().numpy(), targets.double().numpy())
    return products.mean((2, 3)) if rule == "mean_mean" else products.max((2, 3))


def shaped(rule, rows, items, tokens, seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(rows, 1 if rule in ("dot", "max_t") else 3, 6, generator=generator)
    return queries, torch.randn(items, 1 if rule == "dot" else tokens, 6, generator=generator)


@settings(max_examples=60)
@given(
    rule=st.sampled_from(PRODUCT_RULES),
    rows=st.integers(1, 4),
    items=st.integers(1, 9),
    tokens=st.integers(1, 5),
    block=st.integers(1, 60),
    half=st.booleans(),
)
def test_rules_equal_their_definition_in_any_chunks(rule, rows, items, tokens, block, half):
    queries, targets = shaped(rule, rows, items, tokens)
    targets = targets.half() if half else targets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BLOCK", block)
        patch.setattr(scoring, "CONVERTED", block)
        found = score(queries, targets, rule)
    assert found.dtype == torch.float32
    assert np.allclose(found.numpy(), by_definition(queries, targets, rule), atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "right"), [("product", [[0.12, 0.0], [0.0, 0.0]]), ("harris", [[0.071, 0.0], [-0.004, 0.0]])]
)
def test_two_similarities_are_multiplied_by_hand(rule, right):
    queries = torch.tensor([[[0.3, 0.0], [0.4, 0.0]], [[0.0, 0.2], [-0.5, 0.0]]])
    targets = torch.tensor([[[1.0, 1.0]], [[0.0, -1.0]]])
    assert torch.allclose(score(queries, targets, rule), torch.tensor(right))
    assert torch.allclose(score(queries, targets.half(), rule), torch.tensor(right), atol=1e-3)


@pytest.mark.parametrize("rule", PRODUCT_RULES)
def test_gradients_are_those_of_the_definition(rule):
    queries, targets = (part.requires_grad_() for part in shaped(rule, 3, 5, 4))
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(5))
    (score(queries, targets, rule) * weights).sum().backward()
    plain = [part.detach().double().requires_grad_() for part in (queries, targets)]
    products = torch.einsum("bqd,nkd->bnqk", *plain)
    reduced = products.mean((2, 3)) if rule == "mean_mean" else products.amax((2, 3))
    (reduced * weights).sum().backward()
    for ours, theirs in zip((queries, targets), plain, strict=True):
        assert torch.allclose(ours.grad.double(), theirs.grad, atol=1e-5)


def test_scores_stay_exact_under_autocast():
    queries, targets = shaped("max_t", 4, 6, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = score(queries, targets, "max_t")
    assert found.dtype == torch.float32
    assert torch.equal(found, score(queries, targets, "max_t"))


def test_gradients_flow_to_the_best_token_alone():
    queries = torch.randn(2, 1, 4, requires_grad=True)
    targets = torch.randn(3, 5, 4, requires_grad=True)
    score(queries, targets, "max_t").sum().backward()
    best = (queries.detach()[:, 0] @ targets.detach().flatten(0, 1).T).unflatten(1, (3, 5)).argmax(2)
    touched = targets.grad.abs().sum(2) > 0
    assert torch.equal(touched, torch.zeros(3, 5, dtype=torch.bool).scatter(1, best.T, True))


def test_a_rule_that_does_not_fit_the_shapes_is_refused():
    with pytest.raises(ValueError, match="one query vector"):
        score(torch.zeros(1, 2, 3), torch.zeros(4, 5, 3), "max_t")
    with pytest.raises(ValueError, match="compares one vector with one"):
        score(torch.zeros(1, 1, 3), torch.zeros(4, 5, 3), "dot")
    with pytest.raises(ValueError, match="compare two vectors with one, not 1 with 5"):
        score(torch.zeros(1, 1, 3), torch.zeros(4, 5, 3), "harris")
    with pytest.raises(ValueError, match=r"\[1, 1, 3\] and targets \[4, 5, 2\]"):
        score(torch.zeros(1, 1, 3), torch.zeros(4, 5, 2), "max_t")
    with pytest.raises(ValueError, match="of one width D"):
        score(torch.zeros(1, 3), torch.zeros(4, 5, 3), "max_t")


def test_best_columns_prefer_the_lower_of_equals():
    values, columns = best_columns(torch.tensor([[1.0, 3.0, 3.0]]), 2)
    assert (values.tolist(), columns.tolist()) == ([[3.0, 3.0]], [[1, 2]])


def distributions(rows, count, generator):
    return torch.rand(rows, count, 6, generator=generator).softmax(dim=2)


@pytest.mark.parametrize("block", [7, 1 << 20])
@pytest.mark.parametrize("half", [False, True])
def test_the_likelihood_is_the_base_score_and_weighted_log_probabilities(block, half, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    base, tokens = torch.randn(3, 6, generator=generator), torch.randn(5, 4, 6, generator=generator)
    wanted, shown = distributions(3, 2, generator), distributions(5, 2, generator)
    masses = torch.tensor([[0.5, 2.0], [1.0, 0.0], [0.1, 0.3]])
    queries = torch.cat([base[:, None], masses[..., None] * wanted], dim=1)
    targets = torch.cat([tokens, shown], dim=1)
    monkeypatch.setattr(scoring, "BLOCK", block)
    monkeypatch.setattr(scoring, "CONVERTED", block)
    found = score(queries, targets.half() if half else targets, "likelihood")
    for row in range(3):
        for item in range(5):
            expected = max(float(base[row] @ token) for token in tokens[item])
            for column in range(2):
                share = float(wanted[row, column] @ shown[item, column])
                expected += float(masses[row, column]) * math.log(share + scoring.SMOOTHING)
            assert float(found[row, item]) == pytest.approx(expected, abs=1e-2 if half else 1e-5)


def test_what_is_no_probability_counts_as_none():
    query = torch.tensor([[[0.5, 0.0], [0.0, 2.0]]])
    shown = torch.tensor([[[1.0, 0.0], [1.0, -0.4]], [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    negative, absent, sure = score(query, shown, "likelihood")[0].tolist()
    assert negative == absent == pytest.approx(0.5 + 2 * math.log(scoring.SMOOTHING))
    assert sure > absent


def test_the_likelihood_refuses_targets_without_a_token_for_each_distribution():
    with pytest.raises(ValueError, match="likelihood"):
        score(torch.zeros(1, 3, 6), torch.zeros(4, 2, 6), "likelihood")
    with pytest.raises(ValueError, match="likelihood"):
        score(torch.zeros(1, 1, 6), torch.zeros(4, 2, 6), "likelihood")
