"""Several references in one request: one query out of those that each reference composes with the text.

The query is the weighted mean of those queries, so that every index serves it and one search answers it.
If a method predicts the wanted values, these are mixed too: in a column that the text does not request, the
value of any of the references is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dqecir.methods.method import Query, QueryParts


def mixed(query: Query, groups: Sequence[Sequence[float]]) -> Query:
    """Return, for each group, the weighted mean of its queries.

    ``groups`` holds the positive weights of each group's successive queries; only their proportions count. If
    every group has one query, ``query`` is returned unchanged.
    """
    if all(len(group) == 1 for group in groups):
        return query
    shares = torch.zeros(len(groups), len(query.embeddings))
    start = 0
    for row, group in enumerate(groups):
        shares[row, start : start + len(group)] = torch.tensor(group) / sum(group)
        start += len(group)
    shares = shares.to(query.embeddings)
    parts = None if query.parts is None else _parts(query.parts, shares)
    embeddings = _mean(query.embeddings, shares) if parts is None else parts.embeddings()
    return Query(embeddings, parts=parts)


def mixed_cells(
    cells: Sequence[Mapping[str, Mapping[str, float]]], weights: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Return column -> value -> weighted mean of its shares in ``cells``, in the columns that all have."""
    total = sum(weights)
    columns = [column for column in cells[0] if all(column in own for own in cells)] if cells else []
    return {
        column: {
            value: sum(w * own[column].get(value, 0.0) for own, w in zip(cells, weights, strict=True)) / total
            for value in dict.fromkeys(value for own in cells for value in own[column])
        }
        for column in columns
    }


def _parts(parts: QueryParts, shares: Tensor) -> QueryParts:
    first = shares.argmax(dim=1).tolist()
    weights = shares @ parts.weights
    added = _mean(parts.weights[:, :, None, None] * parts.pieces, shares)
    # So that a piece times its weight is the mean of what the pieces of the references add.
    pieces = added / weights.clamp(min=torch.finfo(weights.dtype).tiny)[:, :, None, None]
    wanted = tuple(_mean(values, shares) for values in parts.wanted)
    return replace(
        parts,
        base=_mean(parts.base, shares),
        pieces=pieces if parts.slices is None else parts.slices.pieces(wanted),
        weights=weights,
        asked=None if parts.asked is None else _mean(parts.asked, shares),
        wanted=wanted,
        # What a text leaves unread is the same with every reference.
        unread=None if parts.unread is None else tuple(parts.unread[row] for row in first),
    )


def _mean(values: Tensor, shares: Tensor) -> Tensor:
    """Return weighted means [G, ...] of values [B, ...]."""
    return torch.einsum("gb,b...->g...", shares.to(values), values)
