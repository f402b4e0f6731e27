"""The one scorer: loss, mining, evaluation and index all score with it.

Every rule is a maximum or a mean of inner products between query vectors and target tokens
(METHODS.md §2). Queries are [B, n_q, D], targets [N, n_t, D].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

ScoreRule = Literal["dot", "max_t", "mean_mean", "max_max"]


def _dot(queries: Tensor, targets: Tensor) -> Tensor:
    if queries.shape[1] != 1 or targets.shape[1] != 1:
        raise ValueError(
            f"the rule dot compares one vector with one, not {queries.shape[1]} with {targets.shape[1]}"
        )
    return queries[:, 0] @ targets[:, 0].T


def _max_t(queries: Tensor, targets: Tensor) -> Tensor:
    if queries.shape[1] != 1:
        raise ValueError(f"the rule max_t takes one query vector, not {queries.shape[1]}")
    # One product and a maximum within rows: no block larger than B x N x n_t is ever made.
    scores = queries[:, 0] @ targets.flatten(0, 1).T
    return scores.unflatten(1, targets.shape[:2]).amax(dim=2)


def _mean_mean(queries: Tensor, targets: Tensor) -> Tensor:
    return queries.mean(dim=1) @ targets.mean(dim=1).T


def _max_max(queries: Tensor, targets: Tensor) -> Tensor:
    scores = torch.einsum("bqd,nkd->bnqk", queries, targets)
    return scores.amax(dim=(2, 3))


RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dot": _dot,
    "max_t": _max_t,
    "mean_mean": _mean_mean,
    "max_max": _max_max,
}

BLOCK = 1 << 25
"""Numbers that one intermediate block of scores may hold."""


def score(queries: Tensor, targets: Tensor, rule: ScoreRule) -> Tensor:
    """Scores [B, N] of queries [B, n_q, D] against targets [N, n_t, D], in float32.

    Targets are taken in chunks, so that memory stays bounded however many there are.
    """
    rows = queries.shape[0] * queries.shape[1] * targets.shape[1]
    chunk = max(1, BLOCK // max(rows, 1))
    queries = queries.float()
    parts = [RULES[rule](queries, part.float()) for part in targets.split(chunk)]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def top_scores(
    queries: Tensor, targets: Tensor, k: int, rule: ScoreRule, left_out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The ``k`` best targets of each query: (scores [B, k], positions [B, k]), best first.

    ``targets`` may be memory-mapped float16. ``left_out`` [B, N] bool marks targets that may not be
    found. Equal scores are ordered by position. Where fewer than k remain, scores are -inf.
    """
    scores = score(queries, targets, rule)
    if left_out is not None:
        scores = scores.masked_fill(left_out, -torch.inf)
    ordered = scores.sort(dim=1, descending=True, stable=True)
    return ordered.values[:, :k], ordered.indices[:, :k]
