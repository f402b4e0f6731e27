"""Every loss against a case worked by hand."""

import math

import pytest
import torch

from dqecir.methods.losses import attribute_margin, contrastive, margin_ranking, pairwise_kl, soft_triplet

TAU = torch.tensor(0.1)


def test_pairwise_kl_is_softplus_of_the_scaled_difference():
    positive, negative = torch.tensor([0.5, 0.1]), torch.tensor([[0.3], [0.4]])
    expected = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(3.0))) / 2
    assert pairwise_kl(positive, negative, TAU).item() == pytest.approx(expected, abs=1e-6)


def test_pairwise_kl_compares_the_target_with_all_its_negatives():
    loss = pairwise_kl(torch.tensor([0.0]), torch.zeros(1, 3), TAU)
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


def test_margin_ranking_counts_only_pairs_within_the_margin():
    loss = margin_ranking(torch.tensor([0.5, 0.5]), torch.tensor([[0.45], [0.2]]), margin=0.15)
    assert loss.item() == pytest.approx(0.10 / 2)


def test_attribute_margin_weighs_attributes():
    positive = torch.tensor([[0.5, 0.5]])
    negative = torch.tensor([[[0.5], [0.6]]])
    weights = torch.tensor([[1.0, 0.25]])
    loss = attribute_margin(positive, negative, weights, margin=0.1)
    assert loss.item() == pytest.approx(0.1 + 0.25 * 0.2)


def test_contrastive_leaves_out_right_answers_but_never_the_target():
    scores = torch.tensor([[0.2, 0.2, 0.1]])
    targets = torch.tensor([0])
    everything = torch.tensor([[True, True, True]])
    assert contrastive(scores, targets, TAU).item() == pytest.approx(math.log(2 + math.exp(-1)), abs=1e-6)
    assert contrastive(scores, targets, TAU, everything).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("halved", "size"), [(False, 1.0), (True, 0.5)])
def test_soft_triplet_compares_squared_distances(halved, size):
    features = torch.tensor([[0.0], [1.0], [2.0], [0.5]], requires_grad=True)
    loss = soft_triplet(features, torch.tensor([[0, 1, 2], [0, 1, 3]]), halved)
    near_then_far = [1.0 - 4.0, 1.0 - 0.25]
    expected = sum(math.log1p(math.exp(x)) for x in near_then_far) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    slope = [1 / (1 + math.exp(-x)) / 2 for x in near_then_far]
    # d(near - far) by the anchor, the partner and either stranger, all on one line
    anchor = slope[0] * (-2.0 + 4.0) + slope[1] * (-2.0 + 1.0)
    gradient = [anchor, 2.0 * sum(slope), -4.0 * slope[0], -1.0 * slope[1]]
    assert features.grad.flatten().tolist() == pytest.approx([size * g for g in gradient], abs=1e-6)
