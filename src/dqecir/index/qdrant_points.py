"""Store items in Qdrant: points, their payloads, and our filters as Qdrant's conditions.

A point is one version of an item. Its number is its place in the order of adding. ``born`` and ``died`` are
the generations from which it exists and is deleted, so that a change of many points takes effect at once:
when the record, a separate point, names the generation. Conditions have the JSON form of Qdrant's REST API.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.cells import as_number, folded, measured
from dqecir.errors import EngineError
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.filters import And, Compare, Equal, Filter, Not, Or
from dqecir.index.payload_columns import Columns, least_number, values_in
from dqecir.index.prefetch import PREFETCHES
from dqecir.settings import Strict

FORMAT = 2
RECORD = 0
"""Number of the point that holds the record; items begin at 1."""

LINE, TOKENS = "line", "tokens"
INDEXED = {"item": "keyword", "facts": "keyword", "born": "integer", "died": "integer"}
"""Payload fields with an index in every collection; numbers of attributes get one when they appear."""

Condition = dict[str, Any]
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class IndexRecord(Strict):
    """The record of a collection: its generation and facts."""

    format: int = FORMAT
    header: IndexHeader
    distributions: int
    """How many of the last tokens of an item are distributions."""
    generation: int
    oldest: int
    """The oldest generation that can still be searched."""
    next: int
    """Number of the next point."""
    items: int
    attributes: dict[str, bool]
    """Name -> whether any item has a number there."""

    def columns(self) -> Columns:
        """Return the columns of one item with every attribute, for checking a filter."""
        return Columns.of([{name: 0 if numeric else "" for name, numeric in self.attributes.items()}])


@dataclass(frozen=True)
class Point:
    """A point to write; the record has no vectors."""

    number: int
    payload: Mapping[str, Any]
    vectors: Mapping[str, NDArray[np.float16]]


@dataclass(frozen=True)
class StoredPoint:
    """A point that was read; ``tokens`` are raw float16 [n_t, D]."""

    number: int
    score: float
    item: str
    payload: str
    tokens: bytes


@dataclass(frozen=True)
class PointQuery:
    """One search: find the nearest ``limit`` points to a vector, by inner product or by MAX_SIM of tokens."""

    name: str
    vector: NDArray[np.float32]
    limit: int
    where: Condition


def vector_sizes(header: IndexHeader, distributions: int) -> dict[str, int]:
    """Return the named vectors of a collection and their widths; ``tokens`` is a multivector."""
    plan = PREFETCHES[header.score_rule]
    line = plan.line(torch.zeros(1, header.tokens, header.size), distributions)
    return {LINE: line.shape[1]} | ({TOKENS: header.size} if plan.by_tokens else {})


def points_of(
    batch: ItemBatch, stored: Tensor, first: int, generation: int, header: IndexHeader, distributions: int
) -> list[Point]:
    """Return the points of a batch whose tokens are ``stored`` as float16, numbered from ``first``."""
    plan = PREFETCHES[header.score_rule]
    lines = plan.line(stored.float(), distributions).half().numpy()
    tokens = stored.numpy()
    return [
        Point(
            first + row,
            point_payload(item, tokens[row], payload, generation),
            {LINE: lines[row]} | ({TOKENS: tokens[row]} if plan.by_tokens else {}),
        )
        for row, (item, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True))
    ]


def point_payload(
    item: str, tokens: NDArray[np.float16], payload: Mapping[str, Any], generation: int
) -> dict[str, Any]:
    """Return Qdrant's payload of an item: the item as text, unchanged, and the facts that filters use.

    The tokens are also stored as text, because reading vectors as lists of numbers takes ten times as long.
    """
    known = {name: values_in(value) for name, value in payload.items()}
    numbers = {
        safe_name(name): [number for number in map(measured, values) if math.isfinite(number)]
        for name, values in known.items()
    }
    return {
        "item": item,
        "payload": json.dumps(dict(payload)),
        "bytes": base64.b64encode(tokens.tobytes()).decode("ascii"),
        "facts": [fact for name, values in known.items() for value in values for fact in _facts(name, value)],
        "numbers": {name: own[0] if len(own) == 1 else own for name, own in numbers.items() if own},
        "born": generation,
    }


def attributes_of(payloads: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return the attributes of payloads, and whether any has a number there."""
    found: dict[str, bool] = {}
    for payload in payloads:
        for name, value in payload.items():
            found[name] = found.get(name, False) or math.isfinite(least_number(value))
    return found


def number_key(name: str) -> str:
    """Return the payload key of an attribute's numbers."""
    return f"numbers.{safe_name(name)}"


def safe_name(name: str) -> str:
    """Spell an attribute's name so that it is safe in a key path.

    Names that differ only in case become equal.
    """
    return "".join(
        sign if sign.isascii() and (sign.isalnum() or sign == "_") else f"-{ord(sign):x}-"
        for sign in folded(name)
    )


def visible(generation: int, *more: Condition) -> Condition:
    """Return the condition for points that a generation sees and that fulfil ``more``."""
    born = {"key": "born", "range": {"lte": generation}}
    died = {"key": "died", "range": {"lte": generation}}
    return {"must": [born, *more], "must_not": [died]}


def has_item(ids: Sequence[str]) -> Condition:
    """Return the condition for versions of these items."""
    return {"key": "item", "match": {"any": list(ids)}}


def has_number(numbers: Sequence[int]) -> Condition:
    """Return the condition for points with these numbers."""
    return {"has_id": list(numbers)}


def condition(where: Filter) -> Condition:
    """Translate a filter to a condition on the payloads of :func:`point_payload`."""
    match where:
        case Equal(name, values):
            facts = [fact for value in values for fact in _facts(name, value)]
            return {"must": [{"key": "facts", "match": {"any": facts}}]}
        case Compare(name):
            return _range(name, [where])
        case Not(part):
            return {"must_not": [condition(part)]}
        case And():
            orders, others = where.parted()
            return {"must": [*(_range(name, own) for name, own in orders.items()), *map(condition, others)]}
        case Or(parts):
            return {"should": [condition(part) for part in parts]}
    raise EngineError(f"Qdrant has no condition for {where!r}")


def _range(name: str, orders: Sequence[Compare]) -> Condition:
    """Return the condition that one number of an attribute fulfils all orders."""
    limits: dict[str, float] = {}
    for one in orders:
        key = _BOUNDS[one.order]
        tighter = min if key.startswith("l") else max
        limits[key] = tighter(limits.get(key, one.bound), one.bound)
    return {"key": number_key(name), "range": limits}


def _facts(name: str, value: object) -> list[str]:
    """Return keys that equal values share: their text in lower case, and their number."""
    number = as_number(value)
    # Adding 0.0 turns -0.0 into 0.0.
    same = [f"{safe_name(name)}#{number + 0.0!r}"] if math.isfinite(number) else []
    return [f"{safe_name(name)}={folded(str(value))}", *same]
