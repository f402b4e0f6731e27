"""Store items in Qdrant: points, their payloads, and our filters as Qdrant's conditions.

A point is one version of an item. Its number is its place in the order of adding. ``born`` and ``died`` are
the generations from which it exists and is deleted, so that a change of many points takes effect at once:
the record, a point of its own, names the generation. ``writer`` and ``killer`` name the changes that wrote
the point and that marked it as gone. Conditions are in the JSON form of Qdrant's REST API.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models
from torch import Tensor

from dqecir.data.cells import as_number, folded, measured
from dqecir.data.payload_fields import RESERVED
from dqecir.errors import EngineError
from dqecir.index.contract import ItemBatch
from dqecir.index.filters import And, Compare, Equal, Filter, Not, Or
from dqecir.index.payload_columns import values_in
from dqecir.index.remote_items import ItemsRecord, StoredItem
from dqecir.methods.score_rules import ScoreRule

FORMAT = 3
RECORD = 0
"""Id of the point that holds the record; those of items are UUIDs, so that no two writers write one point."""

VECTOR = "vector"
NUMBER = "number"
INDEXED = {
    "item": "keyword",
    "facts": "keyword",
    NUMBER: "integer",
    "born": "integer",
    "died": "integer",
    "writer": "keyword",
    "killer": "keyword",
}
"""Payload fields with an index in every collection; numbers of attributes get one when they appear."""

FOLLOWED: tuple[ScoreRule, ...] = ("dot", "max_t", "max_max")
"""The score rules that Qdrant follows: one inner product, and the maximum of several."""

CHANGED = {"writer": "born", "killer": "died"}
"""Field that names the change that wrote or deleted a point -> field with the generation of that change."""

Condition = dict[str, Any]
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class IndexRecord(ItemsRecord):
    """The record of a collection: its generation and facts."""

    format: int = FORMAT
    writer: str
    """The change that made the generation; points that other changes wrote for it are ignored."""
    claim: str
    """The only change that can make the next generation."""
    oldest: int
    """The oldest generation that can still be searched."""


@dataclass(frozen=True)
class StoredPoint(StoredItem):
    """A point that was read."""

    point: str
    """Its id."""


def points_of(
    batch: ItemBatch, stored: Tensor, first: int, generation: int, writer: str
) -> Iterator[models.PointStruct]:
    """Yield the points of a batch whose tokens are ``stored`` as float16, numbered from ``first``."""
    vectors = (stored[:, 0] if stored.shape[1] == 1 else stored).float().numpy()
    for row, (item, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
        yield models.PointStruct(
            id=str(uuid.uuid4()),
            vector={VECTOR: vectors[row].tolist()},
            payload={
                **point_payload(item, payload),
                NUMBER: first + row,
                "born": generation,
                "writer": writer,
            },
        )


def point_payload(item: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return Qdrant's payload of an item: the item as text, and the fields that filters and counts use."""
    known = {name: values_in(value) for name, value in payload.items()}
    numbers = {
        safe_name(folded(name)): [number for number in map(measured, values) if math.isfinite(number)]
        for name, values in known.items()
    }
    return {
        "item": item,
        "payload": json.dumps(dict(payload)),
        "facts": [fact for name, values in known.items() for value in values for fact in _facts(name, value)],
        # With a sign before, because Qdrant spells UUIDs anew.
        "values": {
            f"_{safe_name(name)}": [f"={value}" for value in values]
            for name, values in known.items()
            if name not in RESERVED
        },
        "numbers": {name: own[0] if len(own) == 1 else own for name, own in numbers.items() if own},
    }


def number_key(name: str) -> str:
    """Return the payload key of an attribute's numbers; names that differ only in case have the same."""
    return f"numbers.{safe_name(folded(name))}"


def value_key(name: str) -> str:
    """Return the payload key of an attribute's values, as they are shown."""
    return f"values._{safe_name(name)}"


def safe_name(name: str) -> str:
    """Spell an attribute's name so that it is safe in a key path."""
    return "".join(
        sign if sign.isascii() and (sign.isalnum() or sign == "_") else f"-{ord(sign):x}-" for sign in name
    )


def visible(generation: int, *more: Condition) -> Condition:
    """Return the condition for points that a generation sees and that fulfil ``more``."""
    born, died = within("born", lte=generation), within("died", lte=generation)
    return {"must": [born, *more], "must_not": [died]}


def among(key: str, values: Iterable[str | int]) -> Condition:
    """Return the condition for points with one of these values in a field."""
    return {"key": key, "match": {"any": list(values)}}


def within(key: str, **limits: float) -> Condition:
    """Return the condition for points with a number within limits (``gte``, ``lt`` and others)."""
    return {"key": key, "range": limits}


def has_value(key: str) -> Condition:
    """Return the condition for points with a value in a field."""
    return {"must_not": [{"is_empty": {"key": key}}]}


def unfinished(by: str, record: IndexRecord) -> Condition:
    """Return the condition for points that changes left which did not finish, by a key of :data:`CHANGED`.

    Such points are of a later generation than the record's, or of the same one but by another change.
    """
    key, own = CHANGED[by], among(by, [record.writer])
    same = {"must": [among(key, [record.generation])], "must_not": [own]}
    return {"should": [within(key, gt=record.generation), same]}


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
    return within(number_key(name), **limits)


def _facts(name: str, value: object) -> list[str]:
    """Return keys that equal values share: their text in lower case, and their number."""
    number, key = as_number(value), safe_name(folded(name))
    # Adding 0.0 turns -0.0 into 0.0.
    same = [f"{key}#{number + 0.0!r}"] if math.isfinite(number) else []
    return [f"{key}={folded(str(value))}", *same]
