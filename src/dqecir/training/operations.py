"""Counting the operations of training, so that methods are compared at equal compute.

Seconds depend on the machine and its load; multiplications and additions do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from dqecir.model.compose import compose
from dqecir.training.loop import Trainer

COUNTED = 64
"""Queries and candidates whose operations are counted for a refresh; the others cost as much each."""


@dataclass(frozen=True)
class TrainingCost:
    """Operations of one step, and of one refresh of the negatives (0 where there is none)."""

    step: float
    refresh: float
    parameters: int
    """Numbers that a step gives a gradient to."""


def training_cost(trainer: Trainer) -> TrainingCost:
    """Count one step after the warm-up, forward and backward, and one refresh.

    Weights and negatives of the run are not touched.
    """
    trainer.miner.fill_at_random(torch.Generator().manual_seed(0))
    trainer.method.train()
    batch = trainer.batch(trainer.refresh_steps)  # the first step whose negatives would be mined
    with FlopCounterMode(display=False) as counter:
        terms = trainer.method(batch)
        torch.stack(list(terms.values())).sum().backward()
    parameters = sum(p.numel() for p in trainer.method.parameters() if p.grad is not None)
    trainer.optimizer.zero_grad()
    refresh = _refresh_operations(trainer) if trainer.recipe.negatives.mined else 0.0
    return TrainingCost(float(counter.get_total_flops()), refresh, parameters)


def _refresh_operations(trainer: Trainer) -> float:
    """Return every query and every candidate embedded once, and each pair of a category scored once."""
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
