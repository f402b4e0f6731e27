"""The four rules against the definition, however the targets are cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir import scoring
from dqecir.scoring import RULES, score, top_scores


def by_definition(queries, targets, rule):
    products = np.einsum("bqd,nkd->bnqk", queries.double().numpy(), targets.double().numpy())
    return products.mean((2, 3)) if rule == "mean_mean" else products.max((2, 3))


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    rows=st.integers(1, 4),
    items=st.integers(1, 9),
    tokens=st.integers(1, 5),
    block=st.integers(1, 40),
)
def test_rules_equal_their_definition_in_any_chunks(rule, rows, items, tokens, block):
    generator = torch.Generator().manual_seed(rows * 100 + items)
    per_query = 1 if rule in ("dot", "max_t") else 3
    queries = torch.randn(rows, per_query, 6, generator=generator)
    targets = torch.randn(items, 1 if rule == "dot" else tokens, 6, generator=generator)
    before, scoring.BLOCK = scoring.BLOCK, block
    try:
        found = score(queries, targets, rule)
    finally:
        scoring.BLOCK = before
    assert np.allclose(found.numpy(), by_definition(queries, targets, rule), atol=1e-5)


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


def test_top_scores_are_in_order_ties_by_position_and_left_out_last():
    targets = torch.tensor([[[0.5]], [[1.0]], [[1.0]], [[2.0]]])
    left_out = torch.tensor([[False, False, False, True]])
    scores, places = top_scores(torch.ones(1, 1, 1), targets, 4, "max_t", left_out)
    assert places.tolist() == [[1, 2, 0, 3]]
    assert scores[0, :3].tolist() == [1.0, 1.0, 0.5]
    assert scores[0, 3] == -float("inf")
