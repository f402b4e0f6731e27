"""Find the best items of segments: score all items, or those that quantized tokens rank first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dqecir.index.contract import SearchSettings
from dqecir.index.filters import Filter
from dqecir.index.item_preferences import Scores
from dqecir.index.quantized_tokens import QuantizedTokens
from dqecir.index.segments import Segment
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.scoring import best_columns, top_scores

FEW = 0.4
"""If a smaller share of a segment may be found, its tokens are gathered instead of scoring all."""


def best_of_segments(
    segments: Sequence[Segment],
    queries: Tensor,
    k: int,
    rule: ScoreRule,
    exclude: Sequence[Sequence[str]] | None = None,
    where: Filter | None = None,
    settings: SearchSettings | None = None,
    added: Sequence[Scores | None] | None = None,
) -> list[list[tuple[float, int]]]:
    """Return (score, place) of each query's best ``k`` items, best first.

    ``added`` holds, for each segment, numbers to add to its scores [B, N]. Places count the rows of all
    segments consecutively; equal scores are ordered by place.
    """
    found = [
        best_of_segment(segment, queries, k, rule, exclude, where, settings, own)
        for segment, own in zip(segments, added or [None] * len(segments), strict=True)
    ]
    starts = [0, *accumulate(segment.entry.items for segment in segments)]
    places = torch.cat([rows + start for (_, rows), start in zip(found, starts[:-1], strict=True)], dim=1)
    scores, columns = best_columns(torch.cat([values for values, _ in found], dim=1), k)
    places = places.gather(1, columns)
    return [
        [one for one in zip(*row, strict=True) if one[0] > -torch.inf]
        for row in zip(scores.tolist(), places.tolist(), strict=True)
    ]


def best_of_segment(
    segment: Segment,
    queries: Tensor,
    k: int,
    rule: ScoreRule,
    exclude: Sequence[Sequence[str]] | None = None,
    where: Filter | None = None,
    settings: SearchSettings | None = None,
    added: Scores | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (scores, rows), both [B, at most k], best first; excluded items have -inf.

    Equal scores are ordered by row. ``added`` [B, N] is added to the scores. ``settings`` decides when the
    segment's quantized tokens choose candidates; without quantized tokens, all allowed items are scored.
    """
    allowed = segment.allowed(where)
    left_out = [
        [row for row in segment.rows(ids).tolist() if row >= 0] for ids in (exclude or [()] * len(queries))
    ]
    if settings is not None and segment.quantized is not None and allowed.sum() > settings.exact_up_to:
        count = max(k, settings.candidates)
        found = [
            _of_candidates(
                segment,
                segment.quantized,
                query,
                k,
                rule,
                count,
                allowed,
                left_out[row],
                None if added is None else added[row],
            )
            for row, query in enumerate(queries)
        ]
        return torch.stack([scores for scores, _ in found]), torch.stack([rows for _, rows in found])
    hidden = None
    if not allowed.all() or any(left_out):
        hidden = torch.from_numpy(~allowed).repeat(len(queries), 1)
        for mask, rows in zip(hidden, left_out, strict=True):
            mask[rows] = True
    more = None if added is None else torch.from_numpy(added)
    if hidden is None or allowed.mean() > FEW:
        return top_scores(queries, segment.tokens, k, rule, hidden, added=more)
    chosen = torch.from_numpy(np.flatnonzero(allowed))
    more = None if more is None else more[:, chosen]
    scores, places = top_scores(queries, segment.tokens, k, rule, hidden[:, chosen], chosen, more)
    return scores, chosen[places]


def _of_candidates(
    segment: Segment,
    quantized: QuantizedTokens,
    query: Tensor,
    k: int,
    rule: ScoreRule,
    count: int,
    allowed: NDArray[np.bool_],
    left_out: Sequence[int],
    added: Scores | None,
) -> tuple[Tensor, Tensor]:
    """Return the best ``k`` of ``count`` items that quantized tokens rank first: (scores, rows), both [k]."""
    if left_out:
        allowed = allowed.copy()
        allowed[list(left_out)] = False
    threads = max(1, torch.get_num_threads())
    rows = torch.from_numpy(quantized.best(query.numpy(), rule, count, allowed, threads, added))
    more = None if added is None else torch.from_numpy(added)[None, rows]
    scores, places = top_scores(query[None], segment.tokens[rows], k, rule, added=more)
    lacking = k - scores.shape[1]
    return F.pad(scores[0], (0, lacking), value=-torch.inf), F.pad(rows[places[0]], (0, lacking))
