"""Losses as pure functions of scores. B: queries, K: negatives of a query, C: candidates of the batch.

Scores are cosines; functions with a temperature divide by it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pairwise_kl(positive: Tensor, negative: Tensor, temperature: Tensor) -> Tensor:
    """Return KL(p* ‖ softmax([s⁺, s⁻₁ … s⁻_K] / τ)), the mean over the batch (docs/method.md, E8).

    ``positive`` [B] are the scores s⁺ of targets, ``negative`` [B, K] those of negatives. p* is 1 for the
    target. With K = 1 the loss equals softplus(-(s⁺ - s⁻) / τ), which is QuRe's. τ is ``temperature``.
    """
    logits = torch.cat([positive[:, None], negative], dim=1) / temperature
    return -logits.log_softmax(dim=1)[:, 0].mean()


def margin_ranking(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return [m - s⁺ + s⁻]₊, the mean over all pairs of a target and a negative (E8).

    ``positive`` [B] are the scores s⁺ of targets, ``negative`` [B, K] the scores s⁻ of negatives; m is
    ``margin``.
    """
    return (margin - positive[:, None] + negative).clamp(min=0).mean()


def attribute_margin(positive: Tensor, negative: Tensor, weights: Tensor, margin: float) -> Tensor:
    """Return Σ_a ω_a [m_a - s(q_a, t) + s(q_a, n)]₊, the mean over queries and negatives (E8).

    ``positive`` [B, A] are the scores of each sub-query q_a with the target t, ``negative`` [B, A, K] those
    with negatives n; ``weights`` [B, A] are ω, and ``margin`` is m_a for all attributes.
    """
    hinge = (margin - positive[:, :, None] + negative).clamp(min=0).mean(dim=2)  # [B, A]
    return (weights * hinge).sum(dim=1).mean()


def draw_triplets(pairs: int) -> Tensor:
    """Draw triplets (anchor, positive, negative) [2B · n, 3], as places among 2B vectors.

    The vectors are B ``pairs``: i and B + i belong together. Every vector is an anchor n times, with its
    partner as positive and each time another negative; n is 3, or less if there are fewer others (TIRG).
    """
    rows = []
    for anchor in range(2 * pairs):
        positive = (anchor + pairs) % (2 * pairs)
        others = [place for place in range(2 * pairs) if place % pairs != anchor % pairs]
        for place in torch.randperm(len(others))[:3].tolist():
            rows.append((anchor, positive, others[place]))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


def soft_triplet(features: Tensor, triplets: Tensor, halved_gradient: bool = False) -> Tensor:
    """Return log(1 + exp(‖a - p‖² - ‖a - n‖²)), the mean over triplets [T, 3] of ``features`` [2B, D] (TIRG).

    ``halved_gradient`` halves the gradient, as the published code's own backward pass does, which forgets the
    factor 2 in the derivative of the square.
    """
    anchor, positive, negative = features[triplets].unbind(dim=1)
    near = (anchor - positive).square().sum(dim=1)
    far = (anchor - negative).square().sum(dim=1)
    loss = F.softplus(near - far).mean()
    return 0.5 * loss + 0.5 * loss.detach() if halved_gradient else loss


def contrastive(
    scores: Tensor, targets: Tensor, temperature: Tensor, left_out: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of each query's target among all candidates of the batch, mean over queries.

    ``scores`` [B, C] are divided by ``temperature``; ``targets`` [B] are the places of the targets.
    ``left_out`` [B, C] bool: candidates that do not count as negatives (known right answers); a target always
    counts. None: all count.
    """
    logits = scores / temperature
    if left_out is not None:
        own = F.one_hot(targets, scores.shape[1]).bool()
        logits = logits.masked_fill(left_out & ~own, -torch.inf)
    return F.cross_entropy(logits, targets)


def hardness_weighted(
    scores: Tensor, targets: Tensor, temperature: Tensor, hardness: float, left_out: Tensor | None = None
) -> Tensor:
    """Return :func:`contrastive` in which negative j has the weight w_j = n e^{β s_j/τ} / Σ_k e^{β s_k/τ}.

    The sum is over all n negatives. The weights have mean 1 and no gradient; β is ``hardness``, and 0 gives
    equal weights. s are ``scores`` [B, C], τ is ``temperature``; ``targets`` and ``left_out`` as in
    :func:`contrastive`. The weights are those of HN-NCE in CoVR (arXiv 2308.14746), but only from query to
    target.
    """
    logits = scores / temperature
    own = F.one_hot(targets, scores.shape[1]).bool()
    negatives = ~own if left_out is None else ~own & ~left_out
    weighed = (hardness * logits.detach()).masked_fill(~negatives, -torch.inf)
    count = negatives.sum(dim=1, keepdim=True).clamp(min=1)
    weights = count.log() + weighed.log_softmax(dim=1).nan_to_num(nan=-torch.inf)
    weights = torch.where(negatives, weights, -torch.inf).masked_fill(own, 0.0)
    return F.cross_entropy(logits + weights, targets)


def several_positives(scores: Tensor, positives: Tensor, temperature: Tensor) -> Tensor:
    """Return the cross-entropy of each right answer against all wrong ones.

    ``scores`` [B, C] are divided by ``temperature``; ``positives`` [B, C] bool mark at least one right answer
    for each query. Right answers do not compete with each other; with one right answer, the loss is
    :func:`contrastive`. Mean over a query's right answers, then over the batch.
    """
    logits = scores / temperature
    wrong = logits.masked_fill(positives, -torch.inf).logsumexp(dim=1, keepdim=True)
    each = torch.logaddexp(logits, wrong) - logits
    return ((each * positives).sum(dim=1) / positives.sum(dim=1)).mean()


def grouped_contrast(positive: Tensor, negative: Tensor, temperature: Tensor) -> Tensor:
    """Return the target's cross-entropy in two groups: negatives that score above it, and all others.

    ``positive`` [B] are the scores of targets, ``negative`` [B, K] those of negatives; both are divided by
    ``temperature``. Both groups count equally, whatever their sizes, so that a few candidates before the
    target matter as much as many after it; an empty group does not count. Mean over a query's groups, then
    over the batch.
    """
    before = negative.detach() > positive.detach()[:, None]
    # Mask after dividing: otherwise the temperature's gradient is 0 times infinity, which is NaN.
    own, others = positive[:, None] / temperature, negative / temperature
    terms, there = [], []
    for group in (before, ~before):
        logits = torch.cat([own, others.masked_fill(~group, -torch.inf)], dim=1)
        terms.append(-logits.log_softmax(dim=1)[:, 0])
        there.append(group.any(dim=1))
    counted = torch.stack(there).to(positive.dtype)
    return ((torch.stack(terms) * counted).sum(dim=0) / counted.sum(dim=0).clamp(min=1)).mean()


def preference(positive: Tensor, negative: Tensor, temperature: Tensor, margin: float) -> Tensor:
    """Return -log σ((s⁺ - s⁻ - m) / τ), the mean over all pairs of a target and a negative.

    ``positive`` [B] are the scores s⁺ of targets, ``negative`` [B, K] the scores s⁻ of negatives. The
    target's score should exceed each negative's by the margin m, as in preference optimisation. τ is
    ``temperature``.
    """
    return F.softplus((margin - positive[:, None] + negative) / temperature).mean()
