"""Count the operations of training, to compare methods at the same compute.

Unlike seconds, the number of multiplications and additions does not depend on the machine and its load.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from dqecir.model.compose import compose
from dqecir.training.loop import Trainer

COUNTED = 64
"""Number of queries and candidates whose operations are counted; the rest of a refresh is extrapolated."""


@dataclass(frozen=True)
class TrainingCost:
    """Number of operations of one step, and of one refresh of the negatives (0 if there are none)."""

    step: float
    refresh: float
    parameters: int
    """Number of trained numbers: those that get a gradient."""


def training_cost(trainer: Trainer) -> TrainingCost:
    """Count the operations of one step after the warm-up, forward and backward, and of one refresh.

    The weights do not change. The pool of negatives is filled at random, as at the start of a run.
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
    """Return the operations of embedding all queries and candidates, and of scoring them in each category.

    Those of embedding are extrapolated from :data:`COUNTED` of each.
    """
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
