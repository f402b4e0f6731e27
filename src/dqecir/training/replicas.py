"""Compute the gradients of several parts of a batch in parallel threads.

On a few cores, one thread for each part is faster than all threads for each operation of a small network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

Part = TypeVar("Part")


class Replicas:
    """A module and copies of it that share its weights; each learns in its own thread.

    Each copy has its own gradients and running statistics.
    """

    def __init__(self, modules: nn.Module, count: int) -> None:
        """Make ``count - 1`` copies of ``modules``."""
        self.modules = modules
        self.copies = [copy.deepcopy(modules) for _ in range(count - 1)]
        for each in self.copies:
            for own, shared in zip(each.parameters(), modules.parameters(), strict=True):
                own.data = shared.data
        self.pool = ThreadPoolExecutor(count)

    def learn(self, loss_of: Callable[[nn.Module, Part], Tensor], parts: Sequence[Part]) -> Tensor:
        """Store the mean gradients of the losses of ``parts`` in the module; return the mean loss.

        There is one part for each copy, the module itself included. ``loss_of`` gets a copy and its part, in
        its own thread; therefore the random numbers of dropout differ from run to run. The running statistics
        become the mean of all copies' statistics.
        """
        if not self.copies:
            loss = loss_of(self.modules, parts[0])
            loss.backward()
            return loss.detach()
        everyone = [self.modules, *self.copies]
        for each in self.copies:
            each.train(self.modules.training)
            each.zero_grad()
            for own, shared in zip(each.buffers(), self.modules.buffers(), strict=True):
                own.copy_(shared)

        def work(place: int) -> Tensor:
            loss = loss_of(everyone[place], parts[place])
            loss.backward()
            return loss.detach()

        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // len(everyone)))
        try:
            losses = list(self.pool.map(work, range(len(everyone))))
        finally:
            torch.set_num_threads(threads)
        for parameters in zip(*(each.parameters() for each in everyone), strict=True):
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                parameters[0].grad = torch.stack(gradients).sum(dim=0) / len(everyone)
        for buffers in zip(*(each.buffers() for each in everyone), strict=True):
            if buffers[0].is_floating_point():
                buffers[0].copy_(torch.stack(buffers).mean(dim=0))
        return torch.stack(losses).mean()
