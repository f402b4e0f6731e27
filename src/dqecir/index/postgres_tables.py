"""The tables of the engine ``postgres``, their rows, and the values that filters compare.

Each index has a row in the table of records, and three tables that the row names: ``items`` with payloads,
``vectors``, and ``numbers``, which < and > compare. A key joins the three. An item whose payload alone
changes keeps its key and its vector, so that the graph is not touched; only its number, which is the place in
the order of adding, changes. The values that filters compare are computed here, because no database has our
rules for equal texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import UUID

import numpy as np
from torch import Tensor

from dqecir.data.cells import as_number, folded
from dqecir.data.payload_fields import PRODUCT
from dqecir.errors import EngineError
from dqecir.index.contract import SearchSettings
from dqecir.index.payload_columns import numbers_in, values_in
from dqecir.index.postgres_connections import Connection, VectorExtension, run
from dqecir.index.remote_items import ItemsRecord, StoredItem
from dqecir.settings import Strict

INLINE = 3_900
"""Largest width of a vector that fits into a page of the table; a wider one is stored outside of its row."""

ENTRY = "i.number, i.id, i.payload"
"""The SQL columns of a row of items with the alias ``i``, without the vector."""

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL in JSON text."""


class VectorGraph(Strict):
    """A graph (HNSW index, ``postgres_graph.py``) of vectors: its name, and how they are centred."""

    name: str
    centre: str
    """The mean vector, which is subtracted, as pgvector writes it."""
    bound: float
    """Largest length of a centred vector in the graph; longer vectors are scanned separately."""


class StoreRecord(ItemsRecord):
    """The record of an index: its tables, generation, settings and graph."""

    store: str
    """Name with which the tables' names begin."""
    quick: SearchSettings | None = None
    """Settings of searches with the graph; None: every item is compared."""
    graph: VectorGraph | None = None

    def following(self, count: int) -> range:
        """Return the numbers of the next ``count`` items."""
        return range(self.next, self.next + count)

    def changed(self, gone: int, payloads: Collection[Mapping[str, Any]] = ()) -> StoreRecord:
        """Return the record of the next generation: ``gone`` items fewer, and new items with ``payloads``."""
        update = {"generation": self.generation + 1, "items": self.items - gone}
        return self.model_copy(update=update).with_items(payloads)


@dataclass(frozen=True)
class Store:
    """The three tables of one build of an index."""

    schema: str
    name: str
    extension: VectorExtension

    def table(self, kind: str) -> str:
        return f'"{self.schema}"."{self.name}_{kind}"'

    @property
    def items(self) -> str:
        return self.table("items")

    @property
    def vectors(self) -> str:
        return self.table("vectors")

    @property
    def numbers(self) -> str:
        return self.table("numbers")

    @property
    def half(self) -> str:
        return self.extension.named("halfvec")

    @property
    def vector(self) -> str:
        """SQL for the vector of the item in a row with the alias ``i``."""
        return f"(SELECT v.vector FROM {self.vectors} v WHERE v.key = i.key)"

    @property
    def entry(self) -> str:
        """The SQL columns of a row of items with the alias ``i``, with the vector."""
        return f"{ENTRY}, {self.vector}"

    @property
    def product(self) -> str:
        """pgvector's operator for the negative inner product, with its schema."""
        return self.extension.operator("<#>")

    def create(self, connection: Connection, width: int) -> None:
        vectors = "MAIN" if width <= INLINE else "EXTERNAL"
        for statement in (
            f"CREATE TABLE {self.items} (key bigint NOT NULL, number bigint NOT NULL, id text NOT NULL, "
            "hash bigint NOT NULL, product bigint, facts uuid[] NOT NULL, payload text NOT NULL)",
            f"CREATE TABLE {self.vectors} (key bigint NOT NULL, vector {self.half} NOT NULL)",
            f"ALTER TABLE {self.vectors} ALTER vector SET STORAGE {vectors}",
            f"CREATE TABLE {self.numbers} (key bigint NOT NULL, name uuid NOT NULL, value float8 NOT NULL)",
        ):
            run(connection, statement)

    def add_indexes(self, connection: Connection) -> None:
        for statement in (
            f"ALTER TABLE {self.items} ADD PRIMARY KEY (key)",
            f"CREATE UNIQUE INDEX ON {self.items} (number)",
            f"CREATE INDEX ON {self.items} (hash)",
            f"CREATE INDEX ON {self.items} (product, number) WHERE product IS NOT NULL",
            f"CREATE INDEX ON {self.items} USING gin (facts) WITH (fastupdate = off)",
            f"ALTER TABLE {self.vectors} ADD PRIMARY KEY (key)",
            f"CREATE INDEX ON {self.numbers} (name, value, key)",
            f"CREATE INDEX ON {self.numbers} (key)",
        ):
            run(connection, statement)

    def drop(self, connection: Connection) -> None:
        run(connection, f"DROP TABLE IF EXISTS {self.items}, {self.vectors}, {self.numbers} CASCADE")

    def insert(
        self,
        connection: Connection,
        rows: Sequence[ItemRow],
        numbers: Sequence[int],
        vectors: Mapping[str, bytes],
        kept: Mapping[str, int],
    ) -> None:
        """Copy items into the tables; ``numbers`` are their places in the order of adding.

        ``vectors``: id -> vector in pgvector's binary form. ``kept``: id -> key, for items whose vectors are
        already stored.
        """
        keys = [kept.get(row.id, number) for number, row in zip(numbers, rows, strict=True)]
        # pgvector reads the bytes that are sent as those of its own type.
        for table, types, found in (
            (
                self.items,
                ("int8", "int8", "text", "int8", "int8", "uuid[]", "text"),
                (
                    (key, number, row.id, hash64(row.id), row.product, row.facts, row.payload)
                    for key, number, row in zip(keys, numbers, rows, strict=True)
                ),
            ),
            (
                self.vectors,
                ("int8", "bytea"),
                ((key, vectors[row.id]) for key, row in zip(keys, rows, strict=True) if row.id not in kept),
            ),
            (
                self.numbers,
                ("int8", "uuid", "float8"),
                ((key, *pair) for key, row in zip(keys, rows, strict=True) for pair in row.numbers),
            ),
        ):
            with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT binary)".encode()) as copy:
                copy.set_types(types)
                for line in found:
                    copy.write_row(line)


@dataclass(frozen=True)
class ItemRow:
    """What the tables store of an item besides its vector.

    Filters compare ``facts``, the keys of its values (:func:`facts_of`), and ``numbers``, pairs (hash of the
    attribute's name, number). ``product`` is a hash of its product's id, None without one; ``payload`` is
    JSON.
    """

    id: str
    product: int | None
    facts: list[UUID]
    payload: str
    numbers: list[tuple[UUID, float]]


def rows_of(ids: Sequence[str], payloads: Sequence[Mapping[str, Any]]) -> list[ItemRow]:
    """Return the rows of items.

    Raises :class:`EngineError` that names every item whose id or payload PostgreSQL cannot store.
    """
    texts = [_json_of(payload) for payload in payloads]
    wrong = [item for item, text in zip(ids, texts, strict=True) if text is None or not is_storable(item)]
    if wrong:
        raise EngineError(
            f"PostgreSQL cannot store these items: {', '.join(map(ascii, wrong))}; their ids or payloads "
            "hold NUL, half of a surrogate pair, NaN or infinity: remove these"
        )
    return [
        ItemRow(
            id=item,
            product=product_hash(payload),
            facts=sorted({fact for cell in payload.items() for fact in _facts_in(*cell)}),
            payload=text or "",
            numbers=sorted(
                {(name_hash(name), number) for name, value in payload.items() for number in numbers_in(value)}
            ),
        )
        for item, payload, text in zip(ids, payloads, texts, strict=True)
    ]


def is_storable(item: str) -> bool:
    """Return whether PostgreSQL can store the characters of an id."""
    return _json_of({"id": item}) is not None


def _json_of(payload: Mapping[str, Any]) -> str | None:
    """Return a payload as ASCII JSON; None if PostgreSQL cannot read it."""
    try:
        json.dumps(payload, ensure_ascii=False).encode()
        text = json.dumps(payload, allow_nan=False)
    except ValueError:
        return None
    return None if _NUL.search(text) else text


def product_hash(payload: Mapping[str, Any]) -> int | None:
    """Return a hash of the product id in the payload's field :data:`PRODUCT`; None if it has none."""
    values = values_in(payload.get(PRODUCT))
    return hash64(str(values[0])) if values else None


def hash64(text: str) -> int:
    """Return a hash of a text that fits PostgreSQL's ``bigint``."""
    return int.from_bytes(_digest(text, 8), "big", signed=True)


def _digest(text: str, size: int) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def _facts_in(name: str, value: object) -> Iterator[UUID]:
    """Yield a key for "has a value", and keys for each value, which filters compare."""
    for one in values_in(value):
        yield name_hash(name)
        yield from facts_of(name, one)


def facts_of(name: str, value: object) -> list[UUID]:
    """Return the keys that equal values share: one of their number, or else one of their text in lower case.

    A number that is not written plainly, such as 1e+17, has both. ``name`` is the attribute.
    """
    number, texts = as_number(value), []
    if not math.isfinite(as_number(str(value))):
        texts.append(f"{len(name)}:{name}={folded(str(value))}")
    if math.isfinite(number):
        # Adding 0.0 turns -0.0 into 0.0.
        texts.append(f"{len(name)}:{name}#{number + 0.0!r}")
    return [UUID(bytes=_digest(text, 16)) for text in texts]


def name_hash(name: str) -> UUID:
    return UUID(bytes=_digest(name, 16))


def vectors_of(ids: Sequence[str], stored: Tensor) -> dict[str, bytes]:
    """Return id -> vector of ``stored`` [N, 1, D] in pgvector's binary form: width, two zero bytes, data."""
    head = stored.shape[2].to_bytes(2, "big") + b"\0\0"
    vectors = stored[:, 0].numpy().astype(">f2")
    return {item: head + vector.tobytes() for item, vector in zip(ids, vectors, strict=True)}


def stored_item(number: int, item: str, payload: str, vector: bytes | None = None) -> StoredItem:
    """Return an item from the columns of its row; ``vector`` is in pgvector's binary form."""
    read = None if vector is None else np.frombuffer(vector, dtype=">f2", offset=4)
    return StoredItem(number, item, payload, read)
