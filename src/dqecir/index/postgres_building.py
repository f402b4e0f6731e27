"""Build an index of the engine ``postgres``, and make graphs for measuring settings.

A build writes new tables, and in the end makes the index's record (its row in the table of all indexes) name
them, in one short transaction. During a build its process holds a lock of the database; the lock shows
whether a build is running or was killed.
"""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Self

import psycopg

from dqecir.errors import EngineError
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.postgres_connections import Connection, pool, run
from dqecir.index.postgres_graph import add_graph, drop_graphs, is_outgrown
from dqecir.index.postgres_records import (
    DatabaseLocation,
    bounded,
    busy,
    confirm,
    discard,
    record_of,
    stores_of,
)
from dqecir.index.postgres_tables import Store, StoreRecord, VectorGraph, rows_of, vectors_of

_WIDEST = 16_000
"""Largest width of pgvector's halfvec."""


def build_store(
    location: DatabaseLocation,
    header: IndexHeader,
    batches: Iterator[ItemBatch],
    folder: AbstractContextManager[None],
) -> None:
    """Write all items into new tables, and make the index's record name them.

    ``folder`` is a context manager that makes the index's folder, which is complete at its end. Until then
    the record names the build, so that its tables can be found after a kill. Raises :class:`EngineError` for
    a score rule other than ``dot``, for vectors that are too wide, if another process builds the index, and
    as :meth:`Index.build`.
    """
    if header.score_rule != "dot" or header.size > _WIDEST:
        what = f"the score rule {header.score_rule}" if header.score_rule != "dot" else f"width {header.size}"
        raise EngineError(
            f"the engine postgres follows the score rule dot up to width {_WIDEST}, and not {what}: use the "
            "engine exact"
        )
    name = f"{location.name}_{uuid.uuid4().hex[:8]}"
    store = location.store(name)
    with _alone(location) as connection:
        with folder, _building(connection, location, store, header.size):
            record = StoreRecord(header=header, store=name, generation=0)
            for batch in ItemBatch.of_build(batches):
                vectors = vectors_of(batch.ids, batch.as_stored(header))
                rows = rows_of(batch.ids, batch.payloads)
                with bounded(connection):
                    store.insert(connection, rows, record.following(len(rows)), vectors, {})
                record = record.changed(0, batch.payloads)
                del batch
            with bounded(connection):
                store.add_indexes(connection)
            for table in (store.items, store.vectors, store.numbers):
                run(connection, f"VACUUM (ANALYZE) {table}")
            old = record_of(connection, location)
            if old and old.quick and old.header == header:
                # Keep settings only for the same model: how many candidates are enough depends on it.
                graph = add_graph(connection, store, header.size)
                record = record.model_copy(update={"quick": old.quick, "graph": graph})
            _switch(connection, location, store, record)
        confirm(connection, location)
        _drop_others(connection, location, store)


class TrialGraph:
    """A graph (HNSW index) that is made for measuring settings; the index's record may name it later.

    While it is open, others may search and change the index, but not build it again.
    """

    def __init__(self, location: DatabaseLocation) -> None:
        self._location = location
        self._held = ExitStack()
        self._connection: Connection | None = None
        self._graph: VectorGraph | None = None

    def open(self) -> Self:
        """Hold the lock of builds until :meth:`close`, unless it is already held.

        Raises :class:`EngineError` if another process holds it.
        """
        if self._connection is None:
            self._connection = self._held.enter_context(_alone(self._location))
            # Another build that began was killed; changes need not wait for it.
            confirm(self._connection, self._location)
        return self

    def made(self) -> VectorGraph | None:
        """Return a graph of all vectors, that of the index if it can be used; None if there are no items."""
        connection = self.open()._connection
        if self._graph is None and connection is not None:
            record, store = self._named(connection)
            self._graph = record.graph
            if self._graph is None or is_outgrown(connection, store, self._graph):
                self._graph = add_graph(connection, store, record.header.size)
        return self._graph

    def close(self) -> None:
        """Drop all graphs of the index that its record does not name, and release the lock of builds."""
        with self._held:
            # Where the database is away, `dqecir index leftovers` finds the graph.
            with suppress(psycopg.Error):
                if self._connection is not None:
                    record, store = self._named(self._connection)
                    drop_graphs(self._connection, store, record.graph)
            self._connection = self._graph = None

    def _named(self, connection: Connection) -> tuple[StoreRecord, Store]:
        record = record_of(connection, self._location)
        if record is None:
            raise EngineError(f"the database has no index {self._location.name}: build the index again")
        return record, self._location.store(record.store)


@contextmanager
def _alone(location: DatabaseLocation) -> Iterator[Connection]:
    """Hold the lock of builds during the ``with`` block, and yield another connection for the work.

    The lock ends with the process. Raises :class:`EngineError` if another process holds it.
    """
    connections = pool()
    with closing(connections.dedicated()) as guard, closing(connections.dedicated()) as connection:
        try:
            # A statement without parameters leaves no snapshot open, for which VACUUM would wait.
            guard.execute(
                "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '2s'; "
                f"SELECT pg_advisory_xact_lock({location.lock})".encode()
            )
        except psycopg.errors.LockNotAvailable:
            statement = f"SELECT building FROM {location.records} WHERE name = %s"
            [(building,)] = run(connection, statement, [location.name])
            raise busy(building) from None
        try:
            yield connection
        finally:
            # The server notices a closed connection only later.
            with suppress(psycopg.Error):
                guard.rollback()


@contextmanager
def _building(connection: Connection, location: DatabaseLocation, store: Store, width: int) -> Iterator[None]:
    """Create the tables of a build, and name the build in the record; remove both after an error.

    The caller holds the lock of builds.
    """
    with suppress(psycopg.errors.UniqueViolation):  # Another process creates it at the same moment.
        columns = "(name text PRIMARY KEY, record text, building text)"
        run(connection, f"CREATE TABLE IF NOT EXISTS {location.records} {columns}")
    with bounded(connection):
        since = datetime.now(UTC).isoformat(" ", "seconds")
        building = json.dumps({"store": store.name, "host": platform.node(), "since": since})
        run(
            connection,
            f"INSERT INTO {location.records} (name, building) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET building = excluded.building",
            [location.name, building],
        )
        store.create(connection, width)
    try:
        yield
    except BaseException:
        # Where the database is away, `dqecir index leftovers` finds the tables.
        with suppress(psycopg.Error), bounded(connection, 1):
            discard(connection, store)
        raise


def _switch(connection: Connection, location: DatabaseLocation, store: Store, record: StoreRecord) -> None:
    """Make the index's record, and the view for users' own SQL, name the complete tables of a build.

    The note of the build in the record of a new index stays, because its folder is not complete yet. Raises
    :class:`EngineError` if another build of the index has begun meanwhile.
    """
    model = record.header.model.replace("'", "''").replace("%", "%%")
    with bounded(connection):
        statement = f"SELECT record, building FROM {location.records} WHERE name = %s FOR UPDATE"
        [(old, building)] = run(connection, statement, [location.name])
        if building is None or json.loads(building)["store"] != store.name:
            raise EngineError(
                "another build of the index has begun meanwhile, and this one is lost: build the index again"
            )
        generation = 1 + (json.loads(old)["generation"] if old else 0)
        run(
            connection,
            f"UPDATE {location.records} SET record = %s, "
            "building = CASE WHEN record IS NULL THEN building END WHERE name = %s",
            [record.model_copy(update={"generation": generation}).model_dump_json(), location.name],
        )
        run(
            connection,
            f'CREATE OR REPLACE VIEW "{location.namespace}"."{location.name}" AS SELECT \'{model}\'::text AS '
            f"model, i.number, i.id, i.payload::jsonb AS payload, v.vector FROM {store.items} i "
            f"JOIN {store.vectors} v USING (key)",
        )


def _drop_others(connection: Connection, location: DatabaseLocation, store: Store) -> None:
    """Drop the tables of an index except those of ``store``.

    Those that a long call still reads stay until the next build.
    """
    for name in stores_of(connection, location.namespace):
        if name.startswith(f"{location.name}_") and name != store.name:
            with suppress(psycopg.Error), bounded(connection, 1):
                location.store(name).drop(connection)
