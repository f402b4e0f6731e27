"""Rank by predicted attributes with the exact log-probability, for a parsed text or a perfect parse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.triplets import Benchmark, Triplet
from dqecir.encoders.store import Store
from dqecir.evaluation.metrics import Scores
from dqecir.methods.predicted_attributes import PREDICTION_SMOOTHING, PredictedAttributes
from dqecir.model.compose import CHUNK

Parse = Literal["text", "perfect"]


@torch.no_grad()
def predicted_scores(
    method: PredictedAttributes, store: Store, benchmark: Benchmark, parse: Parse
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    """Yield (category, numbers of q triplets, scores [q, |gallery|]); a score is Σ_c log P(candidate fits c).

    A candidate fits a requested column c if it has a requested value, and any other column if it has the
    reference's value, both by the heads' probabilities. ``parse``: whether the requested values are read in
    the ``text``, or are the true ones of the triplets (``perfect``), as a parser without errors would read
    them. ``store`` has the images of ``benchmark`` in order.
    """
    every = torch.arange(len(store))
    chunks = [method.shown(store.gather(some).to(method.device)) for some in every.split(CHUNK)]
    shown = {column: torch.cat([chunk[column] for chunk in chunks]).cpu() for column in method.columns}
    for category, gallery in benchmark.galleries.items():
        numbers = np.flatnonzero([triplet.category == category for triplet in benchmark.triplets])
        candidates = {column: shares[torch.from_numpy(gallery)] for column, shares in shown.items()}
        for start in range(0, len(numbers), CHUNK):
            some = numbers[start : start + CHUNK]
            rows = [_scores(method, shown, candidates, benchmark.triplets[number], parse) for number in some]
            yield category, some, torch.stack(rows).numpy()


def _scores(
    method: PredictedAttributes,
    shown: dict[str, Tensor],
    candidates: dict[str, Tensor],
    triplet: Triplet,
    parse: Parse,
) -> Tensor:
    row = triplet.reference
    if parse == "perfect":
        asked = dict(triplet.asked)
    else:
        asked = method.parser.asked(method.text(triplet.captions), method.known(shown, row))
    total = torch.zeros(len(next(iter(candidates.values()))))
    for column, shares in candidates.items():
        admissible = method.admissible(column, asked)
        wanted = shown[column][row] if admissible is None else admissible
        total += (shares @ wanted + PREDICTION_SMOOTHING).log()
    return total
