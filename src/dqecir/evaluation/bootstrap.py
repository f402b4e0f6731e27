"""Decide whether one model ranks better than another, with a paired bootstrap over the same questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dqecir.errors import DataError
from dqecir.evaluation.metrics import RetrievalResults

DRAWS = 2000
"""Number of bootstrap samples from which the interval is computed."""
FEWEST_REFERENCES = 10
"""With fewer references than this, no interval is computed."""


@dataclass(frozen=True)
class PairedGain:
    """The difference of two models' mAP@10 on the same questions, in percentage points."""

    difference: float
    low: float
    high: float
    """Upper end of the 95 % interval of the difference; ``low`` is the lower end."""
    questions: int

    @property
    def is_certain(self) -> bool:
        """Whether the interval does not contain 0, so that one model is better."""
        return self.low > 0 or self.high < 0


def paired_gain(after: RetrievalResults, before: RetrievalResults, seed: int = 0) -> PairedGain:
    """Compare the mAP@10 of two models on the questions of one benchmark: ``after`` minus ``before``.

    Questions about the same reference (the same product, if there are products) are drawn together, because
    they are not independent. With fewer than ``FEWEST_REFERENCES`` references the interval contains every
    possible difference. ``seed`` draws the samples. Raises :class:`DataError` if the results are of different
    questions.
    """
    benchmark = after.benchmark
    if before.benchmark is not benchmark:
        raise DataError(
            "two models can only be compared on the same questions, but these results are of different "
            "ones: measure both on one benchmark"
        )
    differences = 100 * (after.average_precision_10 - before.average_precision_10)
    references = np.array([triplet.reference for triplet in benchmark.triplets])
    units = np.array(benchmark.products)[references] if benchmark.products else references
    _, unit = np.unique(units, return_inverse=True)
    sums, sizes = np.bincount(unit, weights=differences), np.bincount(unit)
    low, high = -100.0, 100.0
    if len(sums) >= FEWEST_REFERENCES:
        drawn = np.random.default_rng(seed).integers(len(sums), size=(DRAWS, len(sums)))
        means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        low, high = map(float, np.quantile(means, (0.025, 0.975)))
    return PairedGain(float(differences.mean()), low, high, len(differences))
