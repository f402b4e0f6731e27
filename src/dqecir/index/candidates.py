"""Search an engine of inner products: it finds candidates, which the scorer scores and orders."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dqecir.index.contract import Hit, IndexHeader
from dqecir.index.prefetch import CANDIDATES, PREFETCHES
from dqecir.index.qdrant_collection import Collection
from dqecir.index.qdrant_points import (
    LINE,
    TOKENS,
    Condition,
    IndexRecord,
    PointQuery,
    StoredPoint,
    vector_sizes,
)
from dqecir.methods.scoring import best_columns, score

SPARE = 16
"""Additional candidates of an exact rule, so that one search is mostly enough."""

TIED = 1 << 14
"""Most candidates of an exact rule that are fetched to include all that score like the last one."""

HELD = 1 << 13
"""Most candidates in memory, unless one query needs more; other searches take turns."""


class Search:
    """A search: candidates from the engine, scores from :mod:`dqecir.methods.scoring`."""

    def __init__(self, collection: Collection, record: IndexRecord, k: int, candidates: int | None) -> None:
        self.collection, self.record, self.k, self.candidates = collection, record, k, candidates
        self.rule = record.header.score_rule

    def answer(self, queries: Tensor, limits: Sequence[Condition]) -> list[list[Hit]]:
        """Return the best items of each query [B, n_q, D] among the points that fulfil its condition."""
        exact = PREFETCHES[self.rule].is_exact(self.candidates)
        limit = self.k + SPARE if exact else max(self.candidates or CANDIDATES, self.k)
        if self._has_no_line(queries.shape[1]):
            limit = self.record.items
        answers: dict[int, list[Hit]] = {}
        while open_rows := [row for row in range(len(queries)) if row not in answers]:
            together = max(1, HELD // limit)
            for start in range(0, len(open_rows), together):
                rows = open_rows[start : start + together]
                point_queries = [self._point_queries(queries[row], limits[row], limit) for row in rows]
                found = iter(self.collection.search([query for own in point_queries for query in own]))
                for row, own in zip(rows, point_queries, strict=True):
                    answer = self._answer(queries[row], [(query, next(found)) for query in own], exact)
                    if answer is not None:
                        answers[row] = answer
            limit *= 4
        return [answers[row] for row in range(len(queries))]

    def _has_no_line(self, vectors: int) -> bool:
        """Return whether no line was stored for queries of so many vectors.

        Then every item is a candidate.
        """
        return self.rule == "likelihood" and vectors - 1 != self.record.distributions

    def _point_queries(self, query: Tensor, where: Condition, limit: int) -> list[PointQuery]:
        plan, distributions = PREFETCHES[self.rule], self.record.distributions
        if plan.by_tokens and self.candidates is None:
            return [PointQuery(TOKENS, vector.numpy(), limit, where) for vector in query]
        if self._has_no_line(len(query)):
            line = np.zeros(vector_sizes(self.record.header, distributions)[LINE], dtype=np.float32)
            return [PointQuery(LINE, line, limit, where)]
        return [PointQuery(LINE, plan.question(query, distributions).numpy(), limit, where)]

    def _answer(
        self, query: Tensor, found: Sequence[tuple[PointQuery, list[StoredPoint]]], exact: bool
    ) -> list[Hit] | None:
        """Return the hits of one query, or None if points that were not fetched might be among them."""
        # Sort by number, because equal scores are in the order of adding.
        points = sorted(
            {point.number: point for _, own in found for point in own}.values(),
            key=lambda point: point.number,
        )
        if not points:
            return []
        tokens = as_tokens([point.tokens for point in points], self.record.header)
        values, columns = best_columns(score(query[None], tokens, self.rule), self.k)
        cut = [own[-1].score for query, own in found if len(own) == query.limit]
        if exact and cut and len(points) < TIED:
            # The engine multiplies float16 vectors.
            length = max(float(np.linalg.norm(query.vector)) for query, _ in found)
            doubt = 2.0**-9 * length * float(tokens.float().norm(dim=2).max())
            if values.shape[1] < self.k or float(values[0, -1]) <= max(cut) + doubt:
                return None
        return [
            Hit(points[column].item, value, json.loads(points[column].payload))
            for value, column in zip(values[0].tolist(), columns[0].tolist(), strict=True)
        ]


def as_tokens(parts: Sequence[bytes], header: IndexHeader) -> Tensor:
    """Return raw float16 tokens of N items as a tensor [N, n_t, D]."""
    data = np.frombuffer(bytearray(b"".join(parts)), dtype=np.float16)
    return torch.from_numpy(data.reshape(len(parts), header.tokens, header.size))
