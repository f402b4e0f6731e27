"""Every loss compared with a case computed by hand."""

import math

import pytest
import torch

from dqecir.methods.losses import (
    attribute_margin,
    contrastive,
    grouped_contrast,
    hardness_weighted,
    margin_ranking,
    pairwise_kl,
    preference,
    several_positives,
    soft_triplet,
)

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


def test_hardness_weighs_harder_negatives_more():
    # s/τ: target 2, negatives 1 and 0. β = 1: weights 2e/(e + 1) and 2/(e + 1).
    scores, targets = torch.tensor([[0.2, 0.1, 0.0]]), torch.tensor([0])
    weights = 2 * math.e / (math.e + 1), 2 / (math.e + 1)
    wrong = weights[0] * math.e + weights[1]
    expected = math.log((math.exp(2) + wrong) / math.exp(2))
    assert hardness_weighted(scores, targets, TAU, 1.0).item() == pytest.approx(expected, abs=1e-6)
    assert hardness_weighted(scores, targets, TAU, 0.0).item() == pytest.approx(
        contrastive(scores, targets, TAU).item(), abs=1e-6
    )
    left_out = torch.tensor([[True, False, True]])
    only = hardness_weighted(scores, targets, TAU, 1.0, left_out)
    assert only.item() == pytest.approx(math.log1p(math.exp(-1)), abs=1e-6)
    assert hardness_weighted(scores, targets, TAU, 1.0, torch.ones(1, 3, dtype=torch.bool)).item() == 0


def test_several_positives_do_not_compete_with_each_other():
    # s/τ: right answers 2 and 0, one wrong 1.
    scores = torch.tensor([[0.2, 0.0, 0.1]], requires_grad=True)
    both = several_positives(scores, torch.tensor([[True, True, False]]), TAU)
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2
    assert both.item() == pytest.approx(expected, abs=1e-6)
    one = several_positives(scores, torch.tensor([[True, False, False]]), TAU)
    assert one.item() == pytest.approx(contrastive(scores, torch.tensor([0]), TAU).item(), abs=1e-6)
    everything = several_positives(scores, torch.ones(1, 3, dtype=torch.bool), TAU)
    everything.backward()
    assert everything.item() == 0 and torch.isfinite(scores.grad).all()


def test_grouped_contrast_counts_the_few_before_the_target_as_much_as_the_many_after():
    # s/τ: target 2; before it 3, after it 1 and 1.
    positive, negative = torch.tensor([0.2]), torch.tensor([[0.1, 0.3, 0.1]])
    before, after = math.log1p(math.e), math.log1p(2 * math.exp(-1))
    assert grouped_contrast(positive, negative, TAU).item() == pytest.approx((before + after) / 2, abs=1e-6)
    # Where none stands before it, the other group is all there is.
    temperature = torch.tensor(0.1, requires_grad=True)
    loss = grouped_contrast(positive, negative[:, [0, 2]], temperature)
    assert loss.item() == pytest.approx(after, abs=1e-6)
    loss.backward()
    assert torch.isfinite(temperature.grad)


def test_preference_asks_for_a_margin():
    positive, negative = torch.tensor([0.3]), torch.tensor([[0.1, 0.3]])
    # (m - s⁺ + s⁻) / τ: -1.5 and 0.5.
    expected = (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(0.5))) / 2
    assert preference(positive, negative, TAU, margin=0.05).item() == pytest.approx(expected, abs=1e-6)
