"""The scan: score all allowed items roughly, and the best of them exactly.

A rough score is an inner product in float16 for the rule ``dot``, else the rule's score in float32. Its
largest possible error is known, so that every item that may belong to the best becomes a candidate.
Candidates are scored in float64 and rounded to float32, so that equal items get equal scores wherever they
are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.index.contract import Search, SearchSettings
from dqecir.index.item_preferences import Scores
from dqecir.index.segments import Segment
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.scoring import best_columns, score, score_of_results

FEW = 0.25
"""If a filter allows at most this share of a segment's items, only these are copied and scored."""

COPIED = 1 << 14
"""Most allowed items that are copied at a time."""

SCORED = 1 << 22
"""Most rough scores that are in memory at a time."""

SINGLE_PRODUCTS = 3
"""Up to this many queries are multiplied one by one in float16; more are multiplied together in float32."""

_PEAK = 256.0
"""Queries are scaled so that no inner product in float16 is larger than this. Products down to a
four-millionth of it are then as precise."""

Best = list[tuple[float, int]]
"""Pairs (score, row), the best first; equal scores in the order of rows."""


def best_of_segments(
    segments: Sequence[Segment],
    asked: Search,
    rule: ScoreRule,
    settings: SearchSettings | None,
    added: Sequence[Scores] | None,
) -> list[Best]:
    """Return the best ``k`` items of each query, or all that are allowed if there are fewer.

    If a segment has more than ``settings.exact_up_to`` allowed items, its projected vectors choose the items
    to score, if it has them; without ``settings``, or with ``added``, all allowed items are scored.
    ``added`` is what the preferences add: for each segment, numbers [B, N] to add to the scores of its N
    items. Rows are counted through all segments. ``rule`` is the score rule.
    """
    queries, k = asked.queries, asked.k
    found: list[Best] = [[] for _ in queries]
    start = 0
    for number, segment in enumerate(segments):
        allowed = segment.allowed(asked.where)
        left_out = [segment.rows(ids) for ids in asked.exclude]
        more = None if added is None else torch.from_numpy(added[number])
        scan = Scan(segment.tokens, rule, segment.longest)
        # Numbers that are added may make any item the best, so score all.
        projected = segment.projected if more is None else None
        if settings is None or projected is None or allowed.sum() <= settings.exact_up_to:
            best = scan.best(queries, k, allowed, left_out, more)
        else:
            best = []
            for row, query in enumerate(queries):
                one = slice(row, row + 1)
                # candidates() may return only half as many, which must still be enough for the results.
                needed = len(left_out[row]) + k
                count = max(2 * needed, settings.candidates + len(left_out[row]))
                chosen = projected.candidates(query[0], count, allowed)
                best += scan.best(queries[one], k, chosen, left_out[one])
        for own, hits in zip(found, best, strict=True):
            own += [(value, start + row) for value, row in hits]
        start += segment.entry.items
    # Segments stand in the order of adding, and sorting keeps it among equals.
    return [sorted(own, key=lambda one: -one[0])[:k] for own in found]


@dataclass(frozen=True)
class Scan:
    """Finds the best of N items: their target embeddings [N, n_t, D] in float16, and the score rule."""

    targets: Tensor
    rule: ScoreRule
    longest: float
    """Largest length of a target vector; only the rule ``dot`` needs it."""

    def best(
        self,
        queries: Tensor,
        k: int,
        allowed: NDArray[np.bool_],
        left_out: Sequence[NDArray[np.int64]],
        added: Tensor | None = None,
    ) -> list[Best]:
        """Return the best ``k`` of the ``allowed`` rows [N] for each query [B, n_q, D], or all of them.

        ``left_out``: for each query, rows to leave out; -1 is ignored. ``added`` [B, N] is added to the
        scores.
        """
        rows = hidden = None
        share = allowed.mean()
        if share <= FEW:
            rows = torch.from_numpy(np.flatnonzero(allowed))
        elif share < 1:
            hidden = torch.from_numpy(~allowed)
        # Rows that are left out may be the best, so choose that many more candidates.
        wanted = k + max(map(len, left_out), default=0)
        candidates = []
        least = torch.full((len(queries), 1), -torch.inf)
        count = len(self.targets if rows is None else rows)
        part = max(1, SCORED // max(1, len(queries)))
        part = part if rows is None else min(part, COPIED)
        for start in range(0, count, part):
            chosen = slice(start, start + part) if rows is None else rows[start : start + part]
            rough, doubts = self._rough(queries, self._chosen(chosen))
            if added is not None:
                rough += added[:, chosen]
            if hidden is not None:
                rough.masked_fill_(hidden[chosen], -torch.inf)
            if wanted <= rough.shape[1]:
                last = rough.topk(wanted, dim=1).values[:, -1:]
                least = torch.maximum(least, last - 2 * doubts)
            good = ((rough >= least) & (rough > -torch.inf)).nonzero()
            candidates.append(good + torch.tensor([0, start]))
        numbers, places = torch.cat([torch.empty(0, 2, dtype=torch.int64), *candidates]).unbind(dim=1)
        best = []
        for number, own in enumerate(left_out):
            found = places[numbers == number]
            found = found if rows is None else rows[found]
            found = found[~torch.isin(found, torch.from_numpy(own))]
            exact = score_of_results(queries[number, None], self._chosen(found), self.rule)
            if added is not None:
                exact = exact + added[number, found]
            values, columns = best_columns(exact, k)
            best.append(list(zip(values[0].tolist(), found[columns[0]].tolist(), strict=True)))
        return best

    def _chosen(self, rows: slice | Tensor) -> Tensor:
        """Return the targets of ``rows``: a view of a slice, else a copy.

        Numpy copies rows several times as fast as torch.
        """
        if isinstance(rows, slice):
            return self.targets[rows]
        return torch.from_numpy(self.targets.numpy()[rows.numpy()])

    def _rough(self, queries: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return rough scores [B, N] of B queries, and for each query the largest possible error [B, 1]."""
        queries = queries.float()
        lengths = queries.flatten(1).norm(dim=1)
        if self.rule == "dot" and queries.shape[1] == 1 and len(queries) <= SINGLE_PRODUCTS:
            return self._rough_products(queries[:, 0], lengths * self.longest, targets[:, 0])
        rough = score(queries, targets, self.rule)
        sizes = torch.maximum(rough.abs().amax(dim=1), lengths * self.longest)
        return rough, (sizes * 2.0**-16)[:, None]

    def _rough_products(self, queries: Tensor, bounds: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return inner products [B, N] of queries [B, D] and targets [N, D], and their largest error [B, 1].

        They are computed in float16 with sums in float32. ``bounds`` [B]: no product of a query is larger.
        """
        scales = (_PEAK / bounds.clamp(min=1e-30))[:, None]
        scaled = queries * scales
        halves = scaled.half()
        rough = torch.stack([torch.mv(targets, half) for half in halves]).float() / scales
        # Add up the errors of rounding the query, the products and the sum.
        lost = (scaled - halves.float()).norm(dim=1) * self.longest / scales[:, 0]
        sums = bounds * (2.0**-11 + queries.shape[1] * 2.0**-24)
        return rough, (lost + sums)[:, None]
