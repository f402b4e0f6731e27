"""Search in an engine of inner products: candidates are the engine's, scores and order are ours."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dqecir.index.contract import Hit, IndexHeader
from dqecir.index.prefetch import CANDIDATES, PREFETCHES
from dqecir.index.qdrant_layout import LINE, TOKENS, Ask, Condition, Found, Record
from dqecir.index.qdrant_store import Store
from dqecir.methods.scoring import best_columns, score

SPARE = 16
"""Candidates of an exact rule beyond the number that is wanted, so that one search mostly does."""

TIED = 1 << 14
"""Candidates of an exact rule up to which those that score like the last one are all looked at."""

HELD = 1 << 13
"""Candidates in memory at once, as far as one query needs no more; searches of others come between."""


class Search:
    """Candidates from the engine, scores from the one scorer."""

    def __init__(self, store: Store, record: Record, k: int, candidates: int | None) -> None:
        self.store, self.record, self.k, self.candidates = store, record, k, candidates
        self.rule = record.header.score_rule

    def answer(self, queries: Tensor, limits: Sequence[Condition]) -> list[list[Hit]]:
        """The best of each query [B, n_q, D] among the points that fulfil its condition."""
        plan = PREFETCHES[self.rule]
        exact = plan.is_exact(self.candidates)
        limit = self.k + SPARE if exact else max(self.candidates or CANDIDATES, self.k)
        if self.rule == "likelihood" and queries.shape[1] - 1 != self.record.distributions:
            # No line was made for such queries, so everything is a candidate.
            limit = self.record.items
        answers: dict[int, list[Hit]] = {}
        while open_rows := [row for row in range(len(queries)) if row not in answers]:
            together = max(1, HELD // limit)
            for start in range(0, len(open_rows), together):
                rows = open_rows[start : start + together]
                asks = [self._asks(queries[row], limits[row], limit) for row in rows]
                found = iter(self.store.search([ask for own in asks for ask in own]))
                for row, own in zip(rows, asks, strict=True):
                    answer = self._answer(queries[row], [(ask, next(found)) for ask in own], exact)
                    if answer is not None:
                        answers[row] = answer
            limit *= 4
        return [answers[row] for row in range(len(queries))]

    def _asks(self, query: Tensor, where: Condition, limit: int) -> list[Ask]:
        plan = PREFETCHES[self.rule]
        if plan.by_tokens and self.candidates is None:
            return [Ask(TOKENS, vector.numpy(), limit, where) for vector in query]
        if self.rule == "likelihood" and len(query) - 1 != self.record.distributions:
            return [Ask(LINE, np.zeros(self._line_width(), dtype=np.float32), limit, where)]
        return [Ask(LINE, plan.question(query, self.record.distributions).numpy(), limit, where)]

    def _line_width(self) -> int:
        header = self.record.header
        line = PREFETCHES[self.rule].line
        return line(torch.zeros(1, header.tokens, header.size), self.record.distributions).shape[1]

    def _answer(
        self, query: Tensor, found: Sequence[tuple[Ask, list[Found]]], exact: bool
    ) -> list[Hit] | None:
        """Hits of one query, or None where points that were not fetched might belong among them."""
        # By number, because equal scores stand in the order of adding.
        points = sorted(
            {point.number: point for _, own in found for point in own}.values(),
            key=lambda point: point.number,
        )
        if not points:
            return []
        tokens = as_tokens([point.tokens for point in points], self.record.header)
        values, columns = best_columns(score(query[None], tokens, self.rule), self.k)
        cut = [own[-1].score for ask, own in found if len(own) == ask.limit]
        if exact and cut and len(points) < TIED:
            # The engine's products are of float16 vectors.
            length = max(float(np.linalg.norm(ask.vector)) for ask, _ in found)
            doubt = 2.0**-9 * length * float(tokens.float().norm(dim=2).max())
            if values.shape[1] < self.k or float(values[0, -1]) <= max(cut) + doubt:
                return None
        return [
            Hit(points[column].item, value, json.loads(points[column].payload))
            for value, column in zip(values[0].tolist(), columns[0].tolist(), strict=True)
        ]


def as_tokens(parts: Sequence[bytes], header: IndexHeader) -> Tensor:
    data = np.frombuffer(bytearray(b"".join(parts)), dtype=np.float16)
    return torch.from_numpy(data.reshape(len(parts), header.tokens, header.size))
