"""Counting the operations of training, so that methods are compared at equal compute.

Seconds depend on the machine and its load; multiplications and additions do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from dqecir.training import Trainer


@dataclass(frozen=True)
class TrainingCost:
    """Operations of one step, and of one refresh of the negatives (0 where there is none)."""

    step: float
    refresh: float
    steps_between: int

    def steps_within(self, budget: float) -> int:
        """The most steps whose cost, refreshes included, stays within ``budget`` operations."""
        steps = int(budget // self.step)
        while steps > 1 and self.total(steps) > budget:
            steps -= max(1, int((self.total(steps) - budget) // self.step))
        return max(steps, 1)

    def total(self, steps: int) -> float:
        """Operations of ``steps`` steps; the first refresh comes after the warm-up."""
        return steps * self.step + ((steps - 1) // self.steps_between) * self.refresh


def training_cost(trainer: Trainer) -> TrainingCost:
    """Count one step after the warm-up, forward and backward, and one refresh.

    Nothing is changed: gradients are dropped and the pool is filled again by the run itself.
    """
    step = trainer.refresh_steps  # the first step whose negatives were mined
    options = trainer.recipe.negatives
    refresh = 0.0
    if options.mined:
        with FlopCounterMode(display=False) as counter:
            trainer.miner.refresh(trainer.model.method, torch.Generator().manual_seed(0))
        refresh = float(counter.get_total_flops())
    elif options.choose == "random":
        trainer.miner.fill_at_random(torch.Generator().manual_seed(0))
    trainer.method.train()
    batch = trainer.batch(step)
    with FlopCounterMode(display=False) as counter:
        terms = trainer.method(batch)
        torch.stack(list(terms.values())).sum().backward()
    trainer.optimizer.zero_grad()
    return TrainingCost(float(counter.get_total_flops()), refresh, trainer.refresh_steps)
