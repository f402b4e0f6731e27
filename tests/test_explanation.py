"""Explanations: what spoke for a result adds up to its score, and what was read is what was written."""

import pytest
import torch

from dqecir.explanation import OVERALL, Asked, asked_of, contributions, spoke_for
from dqecir.methods.method import Query, QueryParts
from dqecir.scoring import score
from dqecir.steering import Steering, steered

METHODS = ["dqe", "dqe_heads", "dqe_values"]
NAMES = ["colour", "shape", "pattern"]


@pytest.fixture
def asked(request, model):
    """(model, queries of two texts, tokens of eight items)."""
    model = model.with_method(request.param, {"attributes": NAMES}).eval()
    tokens = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        query = model.method.embed_query(
            tokens[:2], model.text_encoder(["is red and has long sleeves", "is not blue"])
        )
        return model, query, model.method.embed_target(tokens)


@pytest.mark.parametrize("asked", METHODS, indirect=True)
@pytest.mark.parametrize("moved", [False, True])
def test_contributions_add_up_to_the_score(asked, moved):
    model, query, targets = asked
    rule = model.method.score_rule
    if moved:
        wishes = Steering({"colour": 2.0}, more=targets[:2], less=targets[2:3])
        query = steered(query, [wishes, wishes], NAMES, rule)
    scores = score(query.embeddings, targets, rule)
    for row in range(2):
        parts = contributions(query, row, targets, rule)
        assert parts.shape == (8, 1 + query.parts.pieces.shape[1])
        torch.testing.assert_close(parts.sum(dim=1), scores[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("asked", METHODS, indirect=True)
def test_an_attribute_of_no_weight_says_nothing(asked):
    model, query, targets = asked
    rule = model.method.score_rule
    silent = steered(query, [Steering({"colour": 0.0})] * 2, NAMES, rule)
    parts = contributions(silent, 0, targets, rule)
    of_colour = [1 + piece for piece, owner in enumerate(query.parts.owners) if owner == 0]
    assert (parts[:, of_colour] == 0).all()
    assert (contributions(query, 0, targets, rule)[:, of_colour] != 0).any()


@pytest.mark.parametrize("asked", METHODS, indirect=True)
def test_shares_are_of_one_the_most_first(asked):
    model, query, targets = asked
    rows = spoke_for(query, [targets[:3], targets[3:4]], targets, NAMES, model.method.score_rule)
    assert [len(row) for row in rows] == [3, 1]
    known = {OVERALL, *(query.parts.columns or NAMES)}
    said = [spoke for row in rows for spoke in row if spoke]  # an item may be nowhere above the mean
    assert said
    for spoke in said:
        shares = [part.share for part in spoke]
        assert sum(shares) == pytest.approx(1) and shares == sorted(shares, reverse=True)
        assert {part.attribute for part in spoke} <= known


def test_the_column_that_sets_a_result_apart_speaks_for_it():
    wanted = torch.zeros(1, 3, 4)
    wanted[0, 0, 0] = 0.3
    wanted[0, 1, 1] = wanted[0, 2, 1] = 0.1  # two columns, each with its second value wanted
    items = torch.full((4, 4, 4), 0.25)
    items[:, :2] = torch.nn.functional.normalize(torch.ones(4), dim=0)
    items[0, 3] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # the first item shows what is wanted of the second
    pieces = torch.zeros(1, 2, 3, 4)
    pieces[0, 0, 1], pieces[0, 1, 2] = wanted[0, 1], wanted[0, 2]
    base = wanted.clone()
    base[:, 1:] = 0
    parts = QueryParts(base, pieces, torch.ones(1, 2), (0, 1), ("color", "sleeves"))
    (spoke,) = spoke_for(Query(wanted, parts=parts), [items[:1]], items, ["colour", "shape"], "likelihood")
    assert [part.attribute for part in spoke[0]] == ["sleeves"]


def test_methods_without_attributes_explain_nothing():
    query = Query(torch.ones(1, 1, 4))
    assert spoke_for(query, [torch.ones(2, 1, 4)], torch.ones(1, 1, 4), [], "dot") == [[(), ()]]
    assert asked_of(query, {}) == [()]


@pytest.mark.parametrize("asked", ["dqe_values"], indirect=True)
def test_what_was_read_is_said(asked):
    model, query, _ = asked
    values = model.heads.config.columns
    first, second = asked_of(query, values)
    assert set(first) == {Asked("color", "red"), Asked("sleeves", "long")}
    assert second == (Asked("color", "not blue"),)
