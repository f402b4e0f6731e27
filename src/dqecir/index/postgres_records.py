"""Records of the engine ``postgres``: one row for each index, and what killed builds have left."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Literal, Self

import psycopg
from pydantic import Field

from dqecir.errors import EngineError
from dqecir.index.postgres_connections import SCHEMA, Connection, plain_errors, pool, run
from dqecir.index.postgres_graph import GRAPH_ENDS
from dqecir.index.postgres_tables import Store, StoreRecord, hash64
from dqecir.index.remote_items import StoreLocation

_PREFIX = "dqecir_"
_RECORDS = "dqecir_indexes"
"""Name of the table with one row for each index of a schema."""

_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"


class DatabaseLocation(StoreLocation):
    """Where an index is in the database: its schema, and the name of its row."""

    format: int = 1
    engine: Literal["postgres"] = "postgres"
    namespace: str = Field(pattern=_NAME)
    """Name of the schema."""
    name: str = Field(pattern=r"^[a-z0-9_]{1,40}$")
    """Key of the index's row; also the name of a view that users can query with their own SQL."""

    @classmethod
    def new(cls, folder: str) -> Self:
        """Return a new location for an index whose folder has the name ``folder``.

        Raises as :func:`own_namespace`. Its schema is that of ``DQECIR_DATABASE_SCHEMA``. Default: the first
        schema of the role's search path.
        """
        readable = re.sub("[^a-z0-9]+", "_", folder.lower())[:20].strip("_")
        return cls(namespace=own_namespace(), name=f"{_PREFIX}{readable}_{uuid.uuid4().hex[:6]}")

    @property
    def records(self) -> str:
        return f'"{self.namespace}"."{_RECORDS}"'

    @property
    def lock(self) -> int:
        """Number of the database's advisory lock that a build of this index holds."""
        return hash64(f"{self.namespace}.{self.name}")

    def store(self, name: str) -> Store:
        """Return the tables whose names begin with ``name``."""
        return Store(self.namespace, name, pool().extension())


@contextmanager
def bounded(connection: Connection, seconds: int = 30) -> Iterator[None]:
    """Open a transaction that waits up to ``seconds`` for each lock; its statements may take any time."""
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{seconds}s'; SET LOCAL statement_timeout = 0".encode())
        yield


def record_of(connection: Connection, location: DatabaseLocation) -> StoreRecord | None:
    """Return the record of an index; None if no build has finished."""
    rows = run(connection, f"SELECT record FROM {location.records} WHERE name = %s", [location.name])
    return StoreRecord.model_validate_json(rows[0][0]) if rows and rows[0][0] else None


def busy(building: str | None) -> EngineError:
    """Return the error for a change or a build while another process builds the index or a graph.

    ``building`` is the record's note of that build, as JSON; None if only a graph is made.
    """
    if building is None:
        return EngineError("the index is being audited, or its graph made: try again when that has ended")
    by = json.loads(building)
    return EngineError(
        f"the index is being built on {by['host']} since {by['since']}: try again when that has ended"
    )


def is_built(connection: Connection, location: DatabaseLocation) -> bool:
    """Return whether a process is building the index or a graph of it now.

    After a kill, the result is True until the server notices, a moment later.
    """
    try:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '500ms'")
            run(connection, f"SELECT pg_advisory_xact_lock_shared({location.lock})")
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def leftover_stores(namespace: str | None) -> list[tuple[str, Callable[[], None]]]:
    """Return the names of tables and graphs that killed builds and audits have left, each with its remover.

    ``namespace`` is the schema. Default: the schema of new indexes.
    """
    with plain_errors():
        connections = pool()
        namespace = namespace or own_namespace()
        extension = connections.extension()
        with closing(connections.dedicated()) as connection:
            stores = set(stores_of(connection, namespace))
            if not stores:
                return []
            found = stores.union(_beginnings(connection, namespace, GRAPH_ENDS))
            records = f'SELECT name, record, building FROM "{namespace}".{_RECORDS}'
            for name, record, building in run(connection, records):
                own = {one for one in found if one.startswith(f"{name}_")}
                kept, built = set(), building and json.loads(building)["store"]
                if record is not None and (finished := json.loads(record))["store"] != built:
                    kept = {finished["store"], (finished["graph"] or {}).get("name")}
                if own - kept and is_built(connection, DatabaseLocation(namespace=namespace, name=name)):
                    kept = own
                found -= kept
    return [
        (f"{namespace}.{name} in the database", partial(_remove, Store(namespace, name, extension)))
        for name in sorted(found)
        if name.rpartition("_")[0] not in found  # A graph goes with its tables.
    ]


def _remove(store: Store) -> None:
    """Remove what a killed build has left: the tables of ``store``, or an unfinished graph of that name."""
    with plain_errors(), closing(pool().dedicated()) as connection:
        with bounded(connection):
            discard(connection, store)
        for end in GRAPH_ENDS:
            run(connection, f'DROP INDEX CONCURRENTLY IF EXISTS "{store.schema}"."{store.name}{end}"')


def discard(connection: Connection, store: Store) -> None:
    """Drop the tables of an unfinished build and the row that names only it; finished tables stay."""
    records = f'"{store.schema}".{_RECORDS}'
    own = "%s IN (record::json->>'store', building::json->>'store')"
    statement = f"SELECT name, record, building FROM {records} WHERE {own} FOR UPDATE"
    for name, record, building in run(connection, statement, [store.name]):
        if building is None or json.loads(building)["store"] != store.name:
            return
        is_new = record is None or json.loads(record)["store"] == store.name
        change = "DELETE FROM {}" if is_new else "UPDATE {} SET building = NULL"
        run(connection, f"{change.format(records)} WHERE name = %s", [name])
    store.drop(connection)


def confirm(connection: Connection, location: DatabaseLocation) -> None:
    """Remove the note of a build from the index's record, because the build is complete."""
    run(connection, f"UPDATE {location.records} SET building = NULL WHERE name = %s", [location.name])


def stores_of(connection: Connection, namespace: str) -> list[str]:
    """Return the names of all stores (the tables of one build of an index) in a schema."""
    return _beginnings(connection, namespace, ("_items",))


def _beginnings(connection: Connection, namespace: str, ends: Sequence[str]) -> list[str]:
    """Return what stands before one of the endings ``ends`` in names of tables and indexes of a schema."""
    pattern = f"^({_PREFIX}.*)({'|'.join(ends)})$"
    rows = run(
        connection,
        "SELECT DISTINCT (regexp_match(relname, %s))[1] FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname ~ %s",
        [pattern, namespace, pattern],
    )
    return [name for (name,) in rows]


def own_namespace() -> str:
    """Return the schema for new indexes; raises :class:`EngineError` if its name cannot be used."""
    name = os.environ.get(SCHEMA, "")
    if not name:
        with pool().transaction("BEGIN; SELECT current_schema()") as (_, rows):
            name = rows[0][0] or ""
    if not re.fullmatch(_NAME, name):
        raise EngineError(
            f"the schema {name!r} cannot be used: name one of letters, digits and _ in {SCHEMA}"
            if name
            else f"the role's search path has no schema: name one in {SCHEMA}"
        )
    return name
