"""Searches of the engine ``postgres`` as SQL: filters, scans of all items, and preferences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from dqecir.errors import EngineError
from dqecir.index.filters import And, Compare, Equal, Filter, Not, Or
from dqecir.index.item_preferences import Preference
from dqecir.index.payload_columns import Columns
from dqecir.index.postgres_tables import Store, facts_of, hash64, is_storable, name_hash

Condition = tuple[str, list[Any]]
"""SQL about a row of items with the alias ``i``, and the parameters of that SQL."""


def condition(where: Filter, columns: Columns, store: Store) -> Condition:
    """Translate a filter to SQL; ``columns`` give the spelling of attribute names, ``store`` those of tables.

    Raises :class:`EngineError` for a kind of filter that the engine does not know.
    """
    match where:
        case Equal(name, values):
            facts = [fact for value in values for fact in facts_of(columns.written(name), value)]
            return "i.facts && %s::uuid[]", [facts]
        case Compare(name):
            return _between(columns.written(name), [where], store)
        case Not(part):
            text, parameters = condition(part, columns, store)
            return f"NOT ({text})", parameters
        case And():
            orders, others = where.parted()
            return _joined(
                "AND",
                [_between(columns.written(name), own, store) for name, own in orders.items()]
                + [condition(part, columns, store) for part in others],
            )
        case Or(parts):
            return _joined("OR", [condition(part, columns, store) for part in parts])
    raise EngineError(f"the engine postgres cannot apply the filter {where!r}: use another filter or engine")


def _joined(word: str, parts: Sequence[Condition]) -> Condition:
    texts = [f"({text})" for text, _ in parts]
    return f" {word} ".join(texts), [one for _, parameters in parts for one in parameters]


def _between(name: str, orders: Sequence[Compare], store: Store) -> Condition:
    """Return SQL that is true if one number of an attribute fulfils all of ``orders``."""
    bounds = "".join(f" AND n.value {one.order} %s" for one in orders)
    return (
        f"EXISTS (SELECT FROM {store.numbers} n WHERE n.key = i.key AND n.name = %s{bounds})",
        [name_hash(name), *(one.bound for one in orders)],
    )


def both(one: Condition, other: Condition) -> Condition:
    """Return SQL that is true if both conditions are."""
    return _joined("AND", [one, other])


def but_not(ids: Collection[str]) -> Condition:
    """Return SQL that is true for all items except those with these ids."""
    text, parameters = of_ids(ids)
    return (f"NOT ({text})", parameters) if ids else ("TRUE", [])


def of_ids(ids: Collection[str]) -> Condition:
    """Return SQL that is true for the items with these ids.

    Ids that the database cannot store are left out.
    """
    there = [one for one in ids if is_storable(one)]
    return "i.hash = ANY(%s::bigint[]) AND i.id = ANY(%s::text[])", [list(map(hash64, there)), there]


def scan(store: Store, query: str, allowed: Condition, added: Condition, count: int) -> Condition:
    """Return SQL that scores all allowed items, and selects the best ``count``.

    ``query`` is the query vector as text; ``added`` is SQL for a number that is added to each score.
    """
    text, parameters = allowed
    nearest = (
        f"SELECT i.key FROM {store.items} i JOIN {store.vectors} v USING (key) WHERE {text} "
        f"ORDER BY (v.vector {store.product} %s::{store.half}) - ({added[0]}), i.number LIMIT %s"
    )
    return with_rows(store, nearest), [*parameters, query, *added[1], count]


def preferred(preference: Preference, columns: Columns, query: Tensor) -> Condition:
    """Return SQL for the number that the cells of a preference add to a score for ``query`` [D].

    The number is divided by the same factor as the query in :func:`query_text`.
    """
    cases, parameters, scale = ["0"], [], _largest(query)
    for cell in preference.cells:
        name = columns.written(cell.column)
        # If an item has several of the values, the last one in this list counts.
        gains = [(facts_of(name, value), gain) for value, gain in reversed([*cell.values.items()])]
        gains.append(([name_hash(name)], cell.others))
        cases.append(f"CASE {'WHEN i.facts && %s::uuid[] THEN %s::float8 ' * len(gains)}ELSE 0 END")
        parameters += [one for facts, gain in gains for one in (facts, gain / scale)]
    return " + ".join(cases), parameters


def with_rows(store: Store, keys: str) -> str:
    """Return SQL for the items whose keys the subquery ``keys`` selects."""
    return f"SELECT {store.entry} FROM {store.items} i WHERE i.key = ANY(ARRAY({keys}))"


def query_text(vector: Tensor) -> str:
    """Return a query [D] as pgvector reads it, scaled so that float16 can hold it.

    Scaling does not change the order of results.
    """
    scaled = vector.double() / _largest(vector)
    return "[" + ",".join(f"{number:.6g}" for number in scaled.tolist()) + "]"


def _largest(vector: Tensor) -> float:
    return float(vector.abs().max()) or 1.0
