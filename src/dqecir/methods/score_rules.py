"""The names of score rules; :mod:`dqecir.methods.scoring` computes the scores."""

from __future__ import annotations

from typing import Literal

ScoreRule = Literal["dot", "max_t", "mean_mean", "max_max", "likelihood", "product", "harris"]

SINGLE: tuple[ScoreRule, ...] = ("dot", "product", "harris")
"""Rules for which a target is one vector."""

SMOOTHING = 0.003
"""Added to a probability before its logarithm, because attribute heads are sometimes confidently wrong."""

HARRIS = 0.1
"""Weight of the squared sum that the rule ``harris`` subtracts from the product of two similarities."""
