"""Score queries against targets; losses, mining, evaluation and the index use the same functions.

Queries are [B, n_q, D], targets [N, n_t, D]. Each rule uses the inner products of query vectors and target
tokens: their maximum, their mean, the product of two, or the logarithm of the overlap of distributions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dqecir.methods.score_rules import HARRIS, SMOOTHING, ScoreRule


def _dot(queries: Tensor, targets: Tensor) -> Tensor:
    if queries.shape[1] != 1 or targets.shape[1] != 1:
        raise ValueError(
            f"the rule dot compares one vector with one, not {queries.shape[1]} with {targets.shape[1]}"
        )
    return queries[:, 0] @ targets[:, 0].T


def _max_t(queries: Tensor, targets: Tensor) -> Tensor:
    if queries.shape[1] != 1:
        raise ValueError(f"the rule max_t takes one query vector, not {queries.shape[1]}")
    # One matrix product, then the maximum over tokens, so that no block is larger than B x N x n_t.
    scores = queries[:, 0] @ targets.flatten(0, 1).T
    return scores.unflatten(1, targets.shape[:2]).amax(dim=2)


def _mean_mean(queries: Tensor, targets: Tensor) -> Tensor:
    return queries.mean(dim=1) @ targets.mean(dim=1).T


def _max_max(queries: Tensor, targets: Tensor) -> Tensor:
    scores = torch.einsum("bqd,nkd->bnqk", queries, targets)
    return scores.amax(dim=(2, 3))


def log_probability(shares: Tensor) -> Tensor:
    """Return log(p + :data:`SMOOTHING`) of ``shares`` p of any shape; a negative p counts as 0."""
    return (shares.clamp(min=0) + SMOOTHING).log()


def _likelihood(queries: Tensor, targets: Tensor) -> Tensor:
    """Score queries [B, 1 + C, D] against targets [N, t + C, D], whose last C vectors are distributions.

    s = max_k q_0·t_k + Σ_c w_c log(q_c·t_c / w_c + ε), where w_c = Σ q_c is the weight of the distribution
    q_c / w_c, and ε is :data:`SMOOTHING`. q_c·t_c / w_c is the probability that the target's value is wanted.
    """
    count = queries.shape[1] - 1
    if count < 1 or targets.shape[1] <= count:
        raise ValueError(
            f"the rule likelihood needs queries of one vector and at least one distribution, and targets of "
            f"more tokens than distributions, not {queries.shape[1]} query vectors and {targets.shape[1]} "
            "target tokens"
        )
    base = _max_t(queries[:, :1], targets[:, :-count])
    mass = queries[:, 1:].sum(dim=2)  # [B, C]
    shares = queries[:, 1:] / mass.clamp(min=1e-6)[..., None]
    fits = torch.einsum("bcd,ncd->cbn", shares, targets[:, -count:])
    return base + torch.einsum("cbn,bc->bn", log_probability(fits), mass)


def _two_similarities(queries: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the similarities [B, N] of the first and of the second query vector to each target.

    Queries are [B, 2, D], targets [N, 1, D]. Negative similarities are set to 0. Raises ``ValueError`` for
    other shapes.
    """
    if queries.shape[1] != 2 or targets.shape[1] != 1:
        raise ValueError(
            f"the rules product and harris compare two vectors with one, not {queries.shape[1]} with "
            f"{targets.shape[1]}"
        )
    first, second = (queries @ targets[:, 0].T).clamp(min=0).unbind(dim=1)
    return first, second


def _product(queries: Tensor, targets: Tensor) -> Tensor:
    first, second = _two_similarities(queries, targets)
    return first * second


def _harris(queries: Tensor, targets: Tensor) -> Tensor:
    """Return ab - :data:`HARRIS` (a + b)² [B, N]; a and b are similarities to both query vectors.

    It is low if one similarity is much larger than the other.

    Source: the corner measure of Harris and Stephens, as BASIC uses it (arXiv 2510.25387).
    """
    first, second = _two_similarities(queries, targets)
    return first * second - HARRIS * (first + second).square()


RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dot": _dot,
    "max_t": _max_t,
    "mean_mean": _mean_mean,
    "max_max": _max_max,
    "likelihood": _likelihood,
    "product": _product,
    "harris": _harris,
}

BLOCK = 1 << 21
"""Largest number of scores in a block on a CPU. A block that stays in the caches until its maximum is taken
is 1.5 times as fast."""

LARGE_BLOCK = 1 << 25
"""Largest number of scores in a block on an accelerator, which is faster with large matrices."""

CONVERTED = 1 << 20
"""Largest number of values that are converted to float32 at a time; blocks that fit a cache are 3 to 5 times
as fast."""


def score(queries: Tensor, targets: Tensor, rule: ScoreRule) -> Tensor:
    """Return scores [B, N] of queries [B, n_q, D] against targets [N, n_t, D].

    They are in float64 if the queries are, else in float32, also under autocast. Targets are processed in
    blocks, so that memory is limited; targets of the scores' type are not copied. Raises ``ValueError`` for
    shapes that do not fit each other or the rule.
    """
    if queries.ndim != 3 or targets.ndim != 3 or queries.shape[2] != targets.shape[2]:
        raise ValueError(
            f"queries {list(queries.shape)} and targets {list(targets.shape)} are not [B, n_q, D] and "
            "[N, n_t, D] of one width D"
        )
    tokens, width = targets.shape[1:]
    block = BLOCK if queries.device.type == "cpu" else LARGE_BLOCK
    chunk = block // max(1, queries.shape[0] * queries.shape[1] * tokens)
    if targets.dtype != torch.float32:
        chunk = min(chunk, CONVERTED // max(1, tokens * width))
    with torch.autocast(queries.device.type, enabled=False):
        if queries.dtype != torch.float64:
            queries = queries.float()
        parts = [RULES[rule](queries, part.to(queries.dtype)) for part in targets.split(max(1, chunk))]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def score_of_results(queries: Tensor, targets: Tensor, rule: ScoreRule) -> Tensor:
    """Return the scores of :func:`score`, computed in float64 and rounded to float32.

    Thus equal targets get equal scores wherever they stand, which float32 alone does not guarantee.
    """
    return score(queries.double(), targets, rule).float()


def best_columns(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` highest scores in each row of scores [B, N]: (values, columns), both [B, min(k, N)].

    The best come first, equal scores in the order of columns, like a stable sort, but without sorting
    everything.
    """
    values, columns = scores.topk(min(k, scores.shape[1]), dim=1)
    last = values[:, -1:]
    # If several scores equal the last kept one, topk keeps any of them, so sort these rows completely.
    cut = (scores == last).sum(dim=1) > (values == last).sum(dim=1)
    if cut.any():
        columns[cut] = scores[cut].argsort(dim=1, descending=True, stable=True)[:, : columns.shape[1]]
    columns = columns.sort(dim=1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
