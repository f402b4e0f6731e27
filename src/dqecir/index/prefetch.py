"""Find candidates of a score rule in an engine of inner products; the scorer then orders them.

A rule becomes a maximum over tokens (MAX_SIM, exact), or one inner product of a vector (line) of each item
and one of the query: exact for means, approximate for ``likelihood``, because of its logarithms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dqecir.errors import EngineError
from dqecir.methods.score_rules import ScoreRule

CANDIDATES = 500
"""Items that are fetched and scored if the inner product only approximates the rule.

It is the least number tried by ``benchmarks/index/prefetch.py`` that contained all of the exact first ten on
4,524 photos with the shipped model.
"""

_FLOOR = 0.01
"""Added to a target's probabilities before their logarithm; more than the rule adds, because a value of
probability near 0 must not outweigh all other columns."""


@dataclass(frozen=True)
class Prefetch:
    """The vectors that an engine stores for a score rule, and its queries."""

    line: Callable[[Tensor, int], Tensor]
    """Tokens [N, n_t, D], and how many of the last are distributions -> lines [N, L]."""
    question: Callable[[Tensor, int], Tensor]
    """Query [n_q, D], and the same number -> the vector that lines are multiplied with [L]."""
    line_is_exact: bool = False
    """Whether that product equals the rule."""
    by_tokens: bool = False
    """Whether MAX_SIM over tokens equals the rule."""

    def is_exact(self, candidates: int | None) -> bool:
        """Return whether the engine ranks exactly by the rule.

        ``candidates`` is the configured number, if any.
        """
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

    s·log(t) equals the rule's log(s·t) if s is certain of one value, as after a text names one.
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
    """Raise :class:`EngineError` for a rule that engines of inner products cannot compute."""
    if rule not in PREFETCHES:
        raise EngineError(
            f"the engine server searches by one inner product, and scores by the rule {rule} multiply two: "
            "use the engine exact"
        )


def distributions_of(tokens: Tensor, rule: ScoreRule) -> int:
    """Return how many of the last tokens [N, n_t, D] are distributions, by their sums; 0 for other rules."""
    if rule != "likelihood":
        return 0
    values = tokens.float()
    good = ((values.sum(dim=2) - 1).abs() < 0.02) & (values >= 0).all(dim=2)
    every = good.all(dim=0).flip(0)
    return min(int(every.int().cumprod(dim=0).sum()), tokens.shape[1] - 1)
