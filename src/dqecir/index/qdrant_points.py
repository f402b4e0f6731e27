"""Store items in Qdrant: points, their payloads, and our filters as Qdrant's conditions.

A point is one version of an item. Its number is its place in the order of adding. ``born`` and ``died`` are
the first generation that has it and the first that does not, so that a change of many points takes effect at
once: the record, which is a point of its own, names the current generation. ``writer`` and ``killer`` name
the changes that wrote the point and that marked it as deleted. Conditions are in the JSON form of Qdrant's
REST API.
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

from dqecir.data.cells import as_number, folded
from dqecir.data.payload_fields import RESERVED
from dqecir.errors import EngineError
from dqecir.index.contract import ItemBatch
from dqecir.index.filters import And, Compare, Equal, Filter, Not, Or
from dqecir.index.payload_columns import numbers_in, values_in
from dqecir.index.remote_items import ItemsRecord, StoredItem
from dqecir.methods.score_rules import ScoreRule

FORMAT = 3
RECORD = 0
"""Id of the point that holds the record; ids of other points are UUIDs, so two writers never write the same
one."""

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
"""Payload fields that every collection indexes; a field of an attribute's numbers is added when it first
appears."""

FOLLOWED: tuple[ScoreRule, ...] = ("dot", "max_t", "max_max")
"""The score rules that Qdrant can compute: one inner product, and the largest of several."""

CHANGED = {"writer": "born", "killer": "died"}
"""Field that names a change -> field with the generation of that change."""

Condition = dict[str, Any]
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class IndexRecord(ItemsRecord):
    """The record of a collection: its generation, and facts about the items."""

    format: int = FORMAT
    writer: str
    """Name of the change that made the generation; points that other changes wrote for it are ignored."""
    claim: str
    """Name of the only change that may make the next generation."""
    oldest: int
    """The oldest generation that can still be searched."""


@dataclass(frozen=True)
class StoredPoint(StoredItem):
    """An item as it was read from a point."""

    point: str
    """Id of the point."""


def points_of(
    batch: ItemBatch, stored: Tensor, first: int, generation: int, writer: str
) -> Iterator[models.PointStruct]:
    """Yield the points for the items of a batch, numbered from ``first``.

    ``stored`` are their float16 tokens. ``writer`` names the change that makes ``generation``.
    """
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
    """Return the payload of an item's point: the item as JSON, and the fields for filters and counts."""
    known = {name: values_in(value) for name, value in payload.items()}
    numbers = {safe_name(folded(name)): numbers_in(value) for name, value in payload.items()}
    return {
        "item": item,
        "payload": json.dumps(dict(payload)),
        "facts": [fact for name, values in known.items() for value in values for fact in _facts(name, value)],
        # A sign before each, because Qdrant would change the spelling of values that look like UUIDs.
        "values": {
            f"_{safe_name(name)}": [f"={value}" for value in values]
            for name, values in known.items()
            if name not in RESERVED
        },
        "numbers": {name: own[0] if len(own) == 1 else own for name, own in numbers.items() if own},
    }


def number_key(name: str) -> str:
    """Return the payload field of an attribute's numbers; names that differ only in case share a field."""
    return f"numbers.{safe_name(folded(name))}"


def value_key(name: str) -> str:
    """Return the payload field of an attribute's values, spelled as they are shown."""
    return f"values._{safe_name(name)}"


def safe_name(name: str) -> str:
    """Return an attribute's name as it can safely stand in the path of a field."""
    return "".join(
        sign if sign.isascii() and (sign.isalnum() or sign == "_") else f"-{ord(sign):x}-" for sign in name
    )


def visible(generation: int, *more: Condition) -> Condition:
    """Return the condition for points that belong to ``generation`` and fulfil all of ``more``."""
    born, died = within("born", lte=generation), within("died", lte=generation)
    return {"must": [born, *more], "must_not": [died]}


def among(key: str, values: Iterable[str | int]) -> Condition:
    """Return the condition for points whose field ``key`` has one of these values."""
    return {"key": key, "match": {"any": list(values)}}


def within(key: str, **limits: float) -> Condition:
    """Return the condition for points whose field ``key`` has a number within limits such as ``gte=3``."""
    return {"key": key, "range": limits}


def unfinished(by: str, record: IndexRecord) -> Condition:
    """Return the condition for points that unfinished changes have left; ``by`` is a key of :data:`CHANGED`.

    Such points have a later generation than the record, or the same generation but another change's name.
    """
    key, own = CHANGED[by], among(by, [record.writer])
    same = {"must": [among(key, [record.generation])], "must_not": [own]}
    return {"should": [within(key, gt=record.generation), same]}


def condition(where: Filter) -> Condition:
    """Translate a filter to a condition on payloads that :func:`point_payload` makes.

    Raises :class:`EngineError` for a kind of filter that the engine does not know.
    """
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
    raise EngineError(f"the engine server cannot apply the filter {where!r}: use another filter or engine")


def _range(name: str, orders: Sequence[Compare]) -> Condition:
    """Return the condition that one number of an attribute fulfils all of ``orders``."""
    limits: dict[str, float] = {}
    for one in orders:
        key = _BOUNDS[one.order]
        tighter = min if key.startswith("l") else max
        limits[key] = tighter(limits.get(key, one.bound), one.bound)
    return within(number_key(name), **limits)


def _facts(name: str, value: object) -> list[str]:
    """Return the keys that equal values of an attribute share: by text in lower case, and by number."""
    number, key = as_number(value), safe_name(folded(name))
    # Adding 0.0 turns -0.0 into 0.0.
    same = [f"{key}#{number + 0.0!r}"] if math.isfinite(number) else []
    return [f"{key}={folded(str(value))}", *same]
