"""Count the operations of training, to compare methods at equal compute.

Unlike seconds, multiplications and additions do not depend on the machine and its load.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from dqecir.model.compose import compose
from dqecir.training.loop import Trainer

COUNTED = 64
"""Queries and candidates whose operations of a refresh are counted; each other one costs the same."""


@dataclass(frozen=True)
class TrainingCost:
    """Operations of one step, and of one refresh of the negatives (0 without refreshes)."""

    step: float
    refresh: float
    parameters: int
    """Number of trained numbers, which get a gradient."""


def training_cost(trainer: Trainer) -> TrainingCost:
    """Count the operations of one step after the warm-up, forward and backward, and of one refresh.

    Weights and negatives of the run are not changed.
    """
    trainer.miner.fill_at_random(torch.Generator().manual_seed(0))
    trainer.method.train()
    batch = trainer.batch(trainer.refresh_steps)  # The first step with mined negatives.
    with FlopCounterMode(display=False) as counter:
        terms = trainer.method(batch)
        torch.stack(list(terms.values())).sum().backward()
    parameters = sum(p.numel() for p in trainer.method.parameters() if p.grad is not None)
    trainer.optimizer.zero_grad()
    refresh = _refresh_operations(trainer) if trainer.recipe.negatives.mined else 0.0
    return TrainingCost(float(counter.get_total_flops()), refresh, parameters)


def _refresh_operations(trainer: Trainer) -> float:
    """Count embedding every query and every candidate once, and scoring each pair of a category once."""
    data, method = trainer.data, trainer.model.method
    some = torch.arange(min(COUNTED, len(data)))
    tokens = data.store.gather(data.references[some]).to(method.device)
    with FlopCounterMode(display=False) as queries:
        compose(method, tokens, data.texts[some])
    with FlopCounterMode(display=False) as candidates:
        method.embed_target(tokens)
    per_query = queries.get_total_flops() / len(some)
    per_candidate = candidates.get_total_flops() / len(some)
    count, width = method.target_shape
    total = 0.0
    for category, rows in data.rows.items():
        corpus = len(data.corpus(category, trainer.recipe.negatives.corpus))
        scores = 2.0 * len(rows) * corpus * count * width
        total += len(rows) * per_query + corpus * per_candidate + scores
    return total
