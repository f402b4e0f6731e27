"""The names of the rules by which scores are made; :mod:`dqecir.methods.scoring` computes them."""

from __future__ import annotations

from typing import Literal

ScoreRule = Literal["dot", "max_t", "mean_mean", "max_max", "likelihood"]

SMOOTHING = 0.003
"""Smoothing, added to a probability before its logarithm: attribute heads can be confidently wrong."""
