"""Attribute heads: one inner product, frozen heads, and supervision by the table."""

import pytest
import torch

from dqecir.errors import DataError
from dqecir.methods.scoring import score
from tests.methods.test_dqe import TEXTS, batch_of


@pytest.fixture
def heads(model):
    return model.with_method("dqe_heads", {}).eval()


def test_the_score_is_the_base_cosine_plus_expected_log_probabilities(heads):
    batch = batch_of(heads)
    query, logits = heads.method.compose(batch.reference, batch.text)
    targets = heads.method.embed_target(batch.candidates)
    fused = score(query.embeddings, targets, "max_t")
    size = heads.backbone.config.embedding_size
    base = score(query.embeddings[..., :size], targets[..., :size], "max_t")
    shown = heads.method.shown_values(batch.candidates)
    expected = base.clone()
    for place, owner in enumerate(heads.method.owners):
        likelihood = (logits[place].softmax(1) + 1e-3).log() @ shown[place].T
        expected += 0.07 * query.attribute_weights[:, owner, None] * likelihood
    assert torch.allclose(fused, expected, atol=1e-5)


def test_targets_have_the_shape_that_an_index_is_told(heads):
    assert heads.method.embed_target(torch.randn(2, 16, 16)).shape == (2, *heads.method.target_shape)


def test_heads_stay_frozen_and_everything_else_learns(heads):
    method = heads.method.train()
    terms = method(batch_of(heads))
    assert set(terms) == {"contrast", "values"}
    sum(terms.values()).backward()
    assert all(parameter.grad is None for parameter in method.heads.parameters())
    assert method.keep.bias.grad.abs().sum() > 0
    assert not method.heads.training


def test_unknown_values_teach_nothing(heads):
    batch = batch_of(heads)
    batch.attribute_values.fill_(-1)
    assert set(heads.method(batch)) == {"contrast"}


def test_pairwise_losses_work_on_fused_scores(model):
    options = {"pair_weight": 1, "ranking_weight": 1, "attribute_weight": 1}
    heads = model.with_method("dqe_heads", options)
    assert set(heads.method(batch_of(heads))) == {"contrast", "pair", "ranking", "attribute", "values"}


def test_a_model_without_heads_is_refused(model):
    model.heads = None
    with pytest.raises(DataError, match="needs a model with attribute heads"):
        model.with_method("dqe_heads", {})


def test_weights_are_named(heads):
    query = heads.method.embed_query(torch.randn(3, 16, 16), heads.text_encoder(TEXTS))
    assert query.attribute_weights.shape == (3, 3)
    assert [v.name for v in heads.vocabularies] == ["colour", "shape", "pattern"]
