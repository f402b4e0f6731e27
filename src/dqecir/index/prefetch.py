"""How an engine of inner products finds candidates for a score rule; the scorer then orders them.

A rule is a maximum over tokens (MAX_SIM, exact), or one inner product of a line an item with a line a
query: exact for means, near for ``likelihood``, whose logarithms no inner product is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dqecir.errors import EngineError
from dqecir.methods.score_rules import ScoreRule

CANDIDATES = 500
"""Items that are fetched and scored where an inner product comes only near to the rule.

The least of the numbers that ``benchmarks/index/prefetch.py`` tries which held all of the exact first ten on
4,524 photos under the shipped model.
"""

_FLOOR = 0.01
"""Added to a target's probabilities before their logarithm; somewhat more than the rule's own, because what
is nearly impossible must not outweigh all other columns."""


@dataclass(frozen=True)
class Prefetch:
    """The vectors that an engine stores for a score rule, and the queries that it gets."""

    line: Callable[[Tensor, int], Tensor]
    """Tokens [N, n_t, D] of which the last so many are distributions -> lines [N, L]."""
    question: Callable[[Tensor, int], Tensor]
    """A query [n_q, D], with the same number -> what lines are multiplied with [L]."""
    line_is_exact: bool = False
    """Whether that product is the rule."""
    by_tokens: bool = False
    """Whether MAX_SIM over tokens, asked for each query vector alone, is the rule."""

    def is_exact(self, candidates: int | None) -> bool:
        """Return whether the engine follows the rule, when told to choose so many candidates or nothing."""
        return self.line_is_exact or (self.by_tokens and candidates is None)


def _mean(tokens: Tensor, distributions: int) -> Tensor:
    return tokens.mean(dim=-2)


def _logarithms(tokens: Tensor, distributions: int) -> Tensor:
    """Return the mean of the first tokens, then the logarithm of every probability of the distributions."""
    count = tokens.shape[1] - distributions
    logs = (tokens[:, count:].clamp(min=0) + _FLOOR).log()
    return torch.cat([tokens[:, :count].mean(dim=1), logs.flatten(1)], dim=1)


def _expected(query: Tensor, distributions: int) -> Tensor:
    """Return the expectation of the target's logarithms under the query's distributions, by their masses.

    s·log(t) is the rule's log(s·t) where s is sure of one value, as it is where a text names one.
    """
    return query.flatten()


PREFETCHES: dict[ScoreRule, Prefetch] = {
    "dot": Prefetch(_mean, _mean, line_is_exact=True),
    "mean_mean": Prefetch(_mean, _mean, line_is_exact=True),
    "max_t": Prefetch(_mean, _mean, by_tokens=True),
    "max_max": Prefetch(_mean, _mean, by_tokens=True),
    "likelihood": Prefetch(_logarithms, _expected),
}


def check_followed(rule: ScoreRule) -> None:
    """Raise :class:`EngineError` for a rule that engines of inner products cannot follow."""
    if rule not in PREFETCHES:
        raise EngineError(
            f"the engine server searches by one inner product, and scores by the rule {rule} multiply two: "
            "use the engine exact"
        )


def distributions_of(tokens: Tensor, rule: ScoreRule) -> int:
    """How many of the last tokens [N, n_t, D] are distributions, which their sums show; 0 for other rules."""
    if rule != "likelihood":
        return 0
    values = tokens.float()
    good = ((values.sum(dim=2) - 1).abs() < 0.02) & (values >= 0).all(dim=2)
    every = good.all(dim=0).flip(0)
    return min(int(every.int().cumprod(dim=0).sum()), tokens.shape[1] - 1)
