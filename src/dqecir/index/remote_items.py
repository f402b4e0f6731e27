"""Items that a database or a server stores: the record of an index, and the scores of the items it found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dqecir.index.contract import Hit, IndexHeader
from dqecir.index.item_preferences import Preference
from dqecir.index.payload_columns import Columns, least_number
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.scoring import best_columns, score_of_results
from dqecir.settings import Strict

SPARE = 16
"""Items that are fetched beyond the wanted ones, because inner products there are of float16 numbers."""

PREFERRED = 256
"""Items that are fetched and reordered if the engine cannot add preferences to scores itself."""


class ItemsRecord(Strict):
    """Facts about the items of a generation."""

    header: IndexHeader
    generation: int
    items: int
    next: int = Field(ge=1)
    """Number of the next item."""
    attributes: dict[str, bool]
    """Name -> whether any item has a number there."""

    def columns(self) -> Columns:
        """Return the columns of one item with every attribute, for checking a filter."""
        return Columns.of([{name: 0 if numeric else "" for name, numeric in self.attributes.items()}])

    def attributes_with(self, payloads: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
        """Return the attributes of the items and of further payloads."""
        found = dict(self.attributes)
        for payload in payloads:
            for name, value in payload.items():
                found[name] = found.get(name, False) or math.isfinite(least_number(value))
        return found


def best_hits(
    query: Tensor,
    tokens: Tensor,
    items: Sequence[tuple[str, str]],
    k: int,
    rule: ScoreRule,
    preference: Preference,
) -> list[Hit]:
    """Return the best of the items with ``tokens`` [N, n_t, D] for a query [n_q, D].

    ``items`` are ids and payloads as JSON, in the order of adding, which is that of equal scores.
    """
    if not items:
        return []
    scores = score_of_results(query[None], tokens, rule)
    if preference:
        columns = Columns.of([json.loads(payload) for _, payload in items])
        scores += torch.from_numpy(preference.of_cells(columns))
    values, places = best_columns(scores, k)
    return [
        Hit(items[place][0], value, json.loads(items[place][1]))
        for value, place in zip(values[0].tolist(), places[0].tolist(), strict=True)
    ]
