"""Refresh the negatives: score every training query against all candidates of its category, in parts.

These are steps 2 and 3 of the algorithm in docs/method.md. Scores of queries x candidates x tokens are never
all in memory, because the maximum over tokens is taken part by part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dqecir.evaluation.evaluate import embed_images
from dqecir.methods.method import Method
from dqecir.methods.negatives import (
    POOL_SIZE,
    LastWindow,
    NegativePool,
    NegativeSampling,
    around_target,
    steepest_drop_members,
    target_relative_scores,
    zone_bounds,
    zone_or_fallback,
)
from dqecir.methods.scoring import score
from dqecir.model.compose import CHUNK, compose
from dqecir.training.data import TrainingData


@dataclass(frozen=True)
class MiningReport:
    """What a refresh found, over all queries."""

    zone_size: tuple[float, float, float]
    """Quartiles of the number of candidates in a query's zone."""
    fallbacks: float
    """Share (0 to 1) of queries whose zone was empty, and which got other candidates instead."""
    target_rank: tuple[float, float, float]
    """Quartiles of the targets' ranks; the best rank is 0."""
    false_negatives: float
    """Share (0 to 1) of known right answers among the negatives in the pool."""

    def as_dict(self) -> dict[str, float]:
        """Return the report as a flat map, for logs."""
        flat: dict[str, float] = {"fallbacks": self.fallbacks, "false_negatives": self.false_negatives}
        for name in ("zone_size", "target_rank"):
            flat |= {f"{name}_q{q}": v for q, v in zip((25, 50, 75), getattr(self, name), strict=True)}
        return flat


class Miner:
    """Fills the pool of negatives as the options say."""

    def __init__(self, data: TrainingData, options: NegativeSampling) -> None:
        self.data = data
        self.options = options
        self.pool = NegativePool(len(data), POOL_SIZE)
        self._last_window: LastWindow | None = None

    def fill_at_random(self, generator: torch.Generator) -> None:
        """Fill the pool of each query with random eligible candidates: in the warm-up, or for ``random``."""
        for category, queries in self.data.rows.items():
            corpus = self.data.corpus(category, self.options.corpus)
            for some in queries.split(CHUNK):
                eligible = self.data.eligible(some, corpus, self.options)
                order = torch.rand(eligible.shape, generator=generator)
                self.pool.fill(some, order, eligible, corpus)

    @torch.no_grad()
    def refresh(self, method: Method, generator: torch.Generator) -> MiningReport:
        """Score all queries in evaluation mode, and fill the pool with the candidates in their zones."""
        was_training = method.training
        method.eval()
        self._last_window = LastWindow() if self.options.empty == "previous" else None
        sizes, fallbacks, ranks = [], [], []
        for category, queries in self.data.rows.items():
            corpus = self.data.corpus(category, self.options.corpus)
            # Score on the method's device, and copy only the maximum over tokens back to the CPU.
            embeddings = embed_images(method, self.data.store, corpus).to(method.device)
            images = self._mean_embeddings(embeddings)
            for some in queries.split(CHUNK):
                scores = self._scores(method, some, embeddings)
                targets = torch.searchsorted(corpus, self.data.targets[some])
                eligible = self.data.eligible(some, corpus, self.options)
                if images is not None and self.options.similar is not None:
                    eligible &= images[targets] @ images.T < self.options.similar
                own = scores.gather(1, targets[:, None])[:, 0]
                members, empty, order = self._choose(scores, own, targets, eligible, method, generator)
                self.pool.fill(some, order, members, corpus)
                sizes.append(members.sum(dim=1))
                fallbacks.append(empty)
                ranks.append((scores > own[:, None]).sum(dim=1))
        method.train(was_training)
        return MiningReport(
            _quartiles(torch.cat(sizes)),
            float(torch.cat(fallbacks).float().mean()),
            _quartiles(torch.cat(ranks)),
            self._false_negatives(),
        )

    def _scores(self, method: Method, queries: Tensor, embeddings: Tensor) -> Tensor:
        """Return scores [q, N] of ``queries`` [q] against target embeddings [N, n_t, D]."""
        tokens = self.data.store.gather(self.data.references[queries])
        query = compose(method, tokens, self.data.texts[queries])
        return score(query.embeddings, embeddings, method.score_rule).cpu()

    def _mean_embeddings(self, embeddings: Tensor) -> Tensor | None:
        if self.options.similar is None:
            return None
        return torch.nn.functional.normalize(embeddings.mean(dim=1), dim=-1).cpu()

    def _choose(
        self,
        scores: Tensor,
        own: Tensor,
        targets: Tensor,
        eligible: Tensor,
        method: Method,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the zone of each query [q, N], whether it was empty [q], and the order of drawing [q, N].

        ``scores`` [q, N] are those of the candidates, ``own`` [q] those of the targets, and ``targets`` [q]
        their places among the candidates. ``eligible`` [q, N] bool: candidates that may be drawn.
        """
        order = torch.rand(scores.shape, generator=generator)
        if self.options.choose == "steepest_drops":
            members, empty = steepest_drop_members(scores, targets, eligible, self._last_window)
            return members, empty, order
        delta = target_relative_scores(scores, own)
        if self.options.choose == "around_target":
            members = around_target(delta, eligible, self.options.around)
            empty = ~members.any(dim=1)
            return members | (eligible & empty[:, None]), empty, order
        bounds = zone_bounds(delta, eligible, self.options, float(method.backbone.temperature))
        members, empty = zone_or_fallback(delta, eligible, self.options, bounds)
        return members, empty, delta if self.options.draw == "hardest" else order

    def _false_negatives(self) -> float:
        wrong, total = 0, 0
        for query, (members, count) in enumerate(
            zip(self.pool.members.numpy(), self.pool.counts.tolist(), strict=True)
        ):
            known = self.data.relevant[query]
            wrong += int(np.isin(members[:count], list(known)).sum()) if len(known) > 1 else 0
            total += count
        return wrong / max(total, 1)


def _quartiles(values: Tensor) -> tuple[float, float, float]:
    found = torch.quantile(values.float(), torch.tensor([0.25, 0.5, 0.75]))
    return float(found[0]), float(found[1]), float(found[2])
