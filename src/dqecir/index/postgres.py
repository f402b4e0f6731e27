"""The engine ``postgres``: items in tables of a PostgreSQL database with pgvector.

The folder holds a manifest that names a schema and the index's row in that schema. The database is that of
``DQECIR_DATABASE_URL``, else the one in libpq's own settings; its address is never stored. A call reads one
snapshot. A change is one transaction that locks the row, so that writers on all machines take turns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

import psycopg

from dqecir.data.payload_fields import PRODUCT, RESERVED
from dqecir.errors import DataError, EngineError, FilterError, UnknownItemError
from dqecir.index.column_facts import ColumnFacts, facts_of_counts
from dqecir.index.contract import (
    Hit,
    IndexHeader,
    ItemBatch,
    Page,
    Search,
    SearchSettings,
    check_replaceable,
)
from dqecir.index.filters import Filter
from dqecir.index.payload_columns import values_in
from dqecir.index.postgres_building import TrialGraph, build_store
from dqecir.index.postgres_connections import URL, Connection, Row, may_repeat, plain_errors, pool
from dqecir.index.postgres_graph import MOST, graph_settings, near, why_no_graph
from dqecir.index.postgres_records import DatabaseLocation, busy, confirm, is_built
from dqecir.index.postgres_search import (
    Condition,
    both,
    but_not,
    condition,
    of_ids,
    preferred,
    query_text,
    scan,
)
from dqecir.index.postgres_tables import (
    ENTRY,
    Store,
    StoreRecord,
    VectorGraph,
    rows_of,
    stored_item,
    vectors_of,
)
from dqecir.index.remote_items import PREFERRED, SPARE, RemoteIndex, StoredItem, best_hits, page_of
from dqecir.io.files import whole_folder
from dqecir.settings import parse_settings

READ = 1024
"""Number of items that one request reads, when all items are read."""

FEW = 10_000
"""If a filter allows at most this many items, all are compared, because this is as fast as the graph
(HNSW index), and exact."""

READ_MS = 25_000
"""Most milliseconds that a reader's statement may take."""

WRITE_MS = 300_000
"""Most milliseconds that a writer's statement may take."""

LOCK_MS = 30_000
"""Most milliseconds that a writer waits for other writers."""

_PLANNER = {"jit": "off", "max_parallel_workers_per_gather": "0", "random_page_cost": "1"}
"""Settings of PostgreSQL for short statements on tables in memory, where compiled and parallel plans start
too slowly."""

_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "", READ_MS
_WRITING = "BEGIN", " FOR UPDATE", WRITE_MS
"""How a transaction of a reader and of a writer begins: first statement, SQL that locks the record, most
milliseconds of a statement."""

ReadT = TypeVar("ReadT")


@dataclass(frozen=True)
class _Snapshot:
    """One transaction of the database: its connection, and the record (row) and tables of the index."""

    connection: Connection
    record: StoreRecord
    store: Store
    building: str | None = None
    """The record's note of a build that is running; None if there is none or the record was not read."""

    def all_rows(self, statements: Sequence[Condition]) -> list[list[Row]]:
        """Return the rows of each statement; all statements are sent together."""
        with self.connection.pipeline():
            cursors = [self.send(*statement) for statement in statements]
        return [cursor.fetchall() for cursor in cursors]

    def allows_more_than(self, few: int, limit: Condition) -> bool:
        """Return whether the SQL ``limit`` allows more than ``few`` items, without counting all of them."""
        if limit[0] == "TRUE":
            return self.record.items > few
        some = f"SELECT FROM {self.store.items} i WHERE {limit[0]} LIMIT %s"
        [(count,)] = self.send(f"SELECT count(*) FROM ({some}) AS found", [*limit[1], few + 1]).fetchall()
        return bool(count > few)

    def send(self, statement: str, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Row]:
        return self.connection.cursor(binary=True).execute(statement.encode(), parameters)

    def items(self, columns: str, allowed: Condition, more: str = "") -> Condition:
        """Return SQL that selects ``columns`` of the items that ``allowed`` allows, followed by ``more``."""
        return f"SELECT {columns} FROM {self.store.items} i WHERE {allowed[0]} {more}", allowed[1]

    def rows(self, columns: str, allowed: Condition, more: str = "") -> list[Row]:
        return self.send(*self.items(columns, allowed, more)).fetchall()

    def remove(self, keys: Sequence[int], kept: Collection[int] = ()) -> None:
        """Delete the items with these keys, and their vectors except for those of the keys ``kept``."""
        for table in (self.store.items, self.store.numbers):
            self.send(f"DELETE FROM {table} WHERE key = ANY(%s::bigint[])", [list(keys)])
        gone = [key for key in keys if key not in kept]
        self.send(f"DELETE FROM {self.store.vectors} WHERE key = ANY(%s::bigint[])", [gone])

    def limit(self, where: Filter | None) -> Condition:
        """Return SQL for a filter; raises ``FilterError`` as :meth:`Filter.check`."""
        if where is None:
            return "TRUE", []
        columns = self.record.columns()
        where.check([columns])
        return condition(where, columns, self.store)


class PostgresIndex(RemoteIndex):
    """An index whose items are in tables of a database; the folder holds only their names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._location = DatabaseLocation.read(folder)
        self._graph = TrialGraph(self._location)
        self._trial: tuple[SearchSettings | None, VectorGraph | None] | None = None
        with plain_errors(), self._transaction(*_READING) as now:
            self.header = now.record.header
        if now.building and json.loads(now.building)["store"] == now.record.store:
            # Its build was killed after the folder was complete. A role that may only read leaves it so.
            with suppress(EngineError, psycopg.Error), pool().transaction("BEGIN; SELECT") as (connection, _):
                confirm(connection, self._location)

    @classmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> Self:
        check_replaceable(folder)
        location = None
        with suppress(DataError):
            location = DatabaseLocation.read(folder)
        with plain_errors():
            if location:
                build_store(location, header, batches, nullcontext())
            else:
                location = DatabaseLocation.new(folder.name)
                build_store(location, header, batches, _new_folder(folder, location))
        return cls.open(folder)

    def add(self, batch: ItemBatch, instead_of: Sequence[str] = ()) -> None:
        if not batch.ids:
            return
        vectors = vectors_of(batch.ids, batch.as_stored(self.header))
        rows = rows_of(batch.ids, batch.payloads)
        with self._changing() as now:
            found = now.rows(f"i.id, i.key, {now.store.vector}", of_ids({*batch.ids, *instead_of}))
            # If only an item's payload has changed, its vector stays where it is.
            kept = {item: key for item, key, vector in found if vectors.get(item) == vector}
            now.remove([key for _, key, _ in found], set(kept.values()))
            now.store.insert(now.connection, rows, now.record.following(len(rows)), vectors, kept)
            self._store(now, now.record.changed(len(found), batch.payloads))

    def change_payloads(self, payloads: Mapping[str, Mapping[str, Any]]) -> int:
        with self._changing() as now:
            if found := now.rows("i.id, i.key, i.number", of_ids(set(payloads))):
                keys, new = {item: key for item, key, _ in found}, [payloads[item] for item, _, _ in found]
                now.remove([*keys.values()], keys.values())
                numbers = [number for _, _, number in found]
                now.store.insert(now.connection, rows_of([*keys], new), numbers, {}, keys)
                self._store(now, now.record.changed(len(found), new))
        return len(found)

    def delete(self, ids: Sequence[str]) -> int:
        with self._changing() as now:
            if gone := [key for (key,) in now.rows("i.key", of_ids(set(ids)))]:
                now.remove(gone)
                self._store(now, now.record.changed(len(gone)))
        return len(gone)

    def refresh(self) -> None:
        _ = self.record

    def _search(self, asked: Search) -> list[list[Hit]]:
        record, found = self._batch(lambda now: self._statements(asked, now))
        if len(found) > len(asked.queries):
            found = found[1:]  # The first statement sets up the graph.
            # A search of the graph may end before it has found enough items, mostly because of a filter.
            if any(len(rows) < asked.k for rows in found):
                found = self._read(lambda now: self._found_or_scanned(asked, now))
        return [
            best_hits(query, [stored_item(*row) for row in rows], asked.k, record.header, preference)
            for query, rows, preference in zip(asked.queries, found, asked.prefer, strict=True)
        ]

    def _statements(self, asked: Search, now: _Snapshot) -> list[Condition]:
        """Return the SQL of a search: scans, or the graph's settings and its searches.

        Without the graph, there is one scan for each query; with it, first the settings and then one search
        for each query. The graph is used if the index has one, and if the filter allows more than :data:`FEW`
        items (or ``exact_up_to``, if that is more). A scan adds preferences to the scores of all items; with
        the graph they are added only to the items that it finds first.
        """
        limit, record = now.limit(asked.where), now.record
        quick, graph = self._trial or (record.quick, record.graph)
        if quick is None or graph is None or not now.allows_more_than(max(FEW, quick.exact_up_to), limit):
            return _scans(asked, now, range(len(asked.queries)))
        count = SPARE + (max(asked.k, PREFERRED) if any(asked.prefer) else asked.k)
        ways = [
            near(now.store, graph, record.header.size, query_text(query[0]), both(limit, but_not(ids)), count)
            for query, ids in zip(asked.queries, asked.exclude, strict=True)
        ]
        return [graph_settings(min(MOST, max(quick.candidates, count))), *ways]

    def _found_or_scanned(self, asked: Search, now: _Snapshot) -> list[list[Row]]:
        """Return the rows of each query; where the graph finds too few items, those of a scan."""
        found = now.all_rows(self._statements(asked, now))[-len(asked.queries) :]
        few = [row for row, rows in enumerate(found) if len(rows) < min(asked.k, now.record.items)]
        for row, rows in zip(few, now.all_rows(_scans(asked, now, few)), strict=True):
            found[row] = rows
        return found

    def matching(self, where: Filter) -> dict[str, Mapping[str, Any]]:
        return {item.id: item.payload for item in self._found(lambda now: now.limit(where), False)}

    def _stored(self, ids: Sequence[str], tokens: bool) -> dict[str, StoredItem]:
        return {item.id: item for item in self._found(lambda now: of_ids(set(ids)), tokens)}

    def _found(self, allowed: Callable[[_Snapshot], Condition], tokens: bool) -> list[StoredItem]:
        def statement(now: _Snapshot) -> Condition:
            return now.items(now.store.entry if tokens else ENTRY, allowed(now), "ORDER BY i.number")

        return [stored_item(*row) for row in self._rows(statement)]

    def _parts(self, tokens: bool) -> Iterator[list[StoredItem]]:
        later, last = f"ORDER BY i.number LIMIT {READ}", 0
        with plain_errors():
            for is_repeated in (False, True):
                try:
                    with self._transaction(*_READING) as now:
                        columns = now.store.entry if tokens else ENTRY
                        while rows := now.rows(columns, ("i.number > %s", [last]), later):
                            last = rows[-1][0]
                            yield [stored_item(*row) for row in rows]
                    return
                except psycopg.Error as error:
                    if last or is_repeated or not may_repeat(error):
                        raise

    def ids(self, where: Filter | None = None) -> list[str]:
        found = self._rows(lambda now: now.items("i.id", now.limit(where), "ORDER BY i.number"))
        return [item for (item,) in found]

    def count(self, where: Filter | None = None) -> int:
        counted = "count(DISTINCT product) + count(*) FILTER (WHERE product IS NULL)"
        [(count,)] = self._rows(lambda now: now.items(counted, now.limit(where)))
        return int(count)

    def page(
        self, limit: int, after: str | None = None, where: Filter | None = None, seed: int | None = None
    ) -> Page:
        order = "number" if seed is None else f"{_drawn(seed)}, number"

        def statements(now: _Snapshot) -> list[Condition]:
            allowed, parameters = now.limit(where)
            last, before = now.items(order, of_ids([after or ""]))
            start = "TRUE" if after is None else f"({order}) > ({last})"
            # Within the inner query, i is another item that is allowed, too.
            earlier = "i.product = shown.product AND i.number < shown.number"
            page = (
                f"SELECT number, id, payload FROM (SELECT * FROM {now.store.items} i WHERE {allowed}) shown "
                f"WHERE {start} AND NOT EXISTS (SELECT FROM {now.store.items} i WHERE {earlier} "
                f"AND {allowed}) ORDER BY {order} LIMIT %s"
            )
            own = [] if after is None else before
            return [(last, before), (page, [*parameters, *own, *parameters, limit + 1])]

        _, (found, rows) = self._batch(statements)
        if after is not None and not found:
            raise UnknownItemError(after)
        return page_of([stored_item(*row) for row in rows], limit)

    def sample(self, count: int, seed: int) -> list[str]:
        def drawn(now: _Snapshot) -> list[str]:
            # Draw like the engine exact, so that both scale preferences in the same way.
            places = Random(seed).sample(range(now.record.items), min(count, now.record.items))
            numbered = f"SELECT id, row_number() OVER (ORDER BY number) - 1 AS place FROM {now.store.items}"
            chosen = f"SELECT place, id FROM ({numbered}) numbered WHERE place = ANY(%s::bigint[])"
            found: dict[int, str] = dict(now.send(chosen, [places]).fetchall())
            return [found[place] for place in places]

        return self._read(drawn)

    def column_facts(self, few: int, bins: int) -> dict[str, ColumnFacts]:
        def counted(now: _Snapshot) -> Condition:
            fields = f"{now.store.items} i, json_each(i.payload::json) cell (name, value)"
            counts = f"SELECT name, value::text, count(*) FROM {fields} WHERE name <> ALL(%s) GROUP BY 1, 2"
            return counts, [list(RESERVED)]

        found: dict[str, Counter[str]] = {}
        for name, value, count in self._rows(counted):
            for one in values_in(json.loads(value)):
                found.setdefault(name, Counter())[str(one)] += count
        return {name: facts_of_counts(counts, few, bins) for name, counts in found.items()}

    @property
    def has_products(self) -> bool:
        """Whether items are views of products.

        Asks the database only if no earlier call has read of products.
        """
        return PRODUCT in self._known.attributes or super().has_products

    @property
    def settings(self) -> SearchSettings | None:
        return self._known.quick

    @property
    def record(self) -> StoreRecord:
        """The facts about the newest generation of the index; each access reads the database."""
        return self._batch(lambda now: [])[0]

    def info(self) -> dict[str, Any]:
        record = self.record
        return {
            "engine": "postgres",
            **super().info(),
            "quick": record.quick and record.quick.model_dump(),
            "graph": record.graph and record.graph.name,
            "database": self._rows(lambda now: ("SELECT current_database()", []))[0][0],
            "view": f"{self._location.namespace}.{self._location.name}",
        }

    def with_settings(self, settings: SearchSettings | None) -> Self | None:
        """Return this index with other settings for searches, to measure them; None: every item is scored.

        If the index has no graph (HNSW index), or its graph is outgrown (:func:`is_outgrown`), a new graph is
        made. The result is None if no graph can be used (:func:`why_no_graph`).
        """
        graph = None
        if settings is not None:
            with plain_errors():
                if why_no_graph(self.header.size, settings):
                    return None
                graph = self._graph.made()
        # The handles of all settings share the graph.
        handle = copy(self)
        handle._trial = settings, graph
        return handle

    def end_trials(self) -> None:
        with plain_errors():
            self._graph.close()

    def configure(self, settings: SearchSettings | None) -> None:
        """Store ``settings`` for all later searches; None: every item is scored.

        Make the graph (HNSW index) that they need, or remove it if ``settings`` is None. Raises
        :class:`EngineError` if no graph can be used (:func:`why_no_graph`).
        """
        with plain_errors():
            if why := settings and why_no_graph(self.header.size, settings):
                raise EngineError(why)
            with closing(self._graph.open()):
                graph = self._graph.made() if settings else None
                with self._changing() as now:
                    self._store(now, now.record.model_copy(update={"quick": settings, "graph": graph}))

    def _rows(self, statement: Callable[[_Snapshot], Condition]) -> list[Row]:
        """Return the rows of one statement, read as by :meth:`_batch`."""
        _, [rows] = self._batch(lambda now: [statement(now)])
        return rows

    def _batch(
        self, statements: Callable[[_Snapshot], Sequence[Condition]]
    ) -> tuple[StoreRecord, list[list[Row]]]:
        """Read one snapshot: return its record (facts about the index), and the rows of each statement.

        ``statements`` makes SQL from a snapshot. It is first called with the record of the last call, and its
        SQL is sent together with the query for the newest record. This takes one round trip; only if the
        record has changed, a second one is needed.
        """
        try:
            with pool().transaction("") as (connection, _):
                now = _Snapshot(connection, self._known, self._location.store(self._known.store))
                with connection.pipeline():
                    *_, told = [now.send(text) for text in self._beginning(*_READING)]
                    cursors = [now.send(*statement) for statement in statements(now)]
                    now.send("COMMIT")
                record = self._snapshot(connection, told.fetchall()).record
                if _parts_of(record) == _parts_of(now.record):
                    return record, [cursor.fetchall() for cursor in cursors]
        except FilterError:
            pass  # An attribute may be new.
        except psycopg.Error as error:
            if not may_repeat(error):
                with plain_errors():
                    raise
        return self._read(lambda now: (now.record, now.all_rows(statements(now))))

    def _read(self, work: Callable[[_Snapshot], ReadT]) -> ReadT:
        """Call ``work`` with one snapshot, and return its result.

        Repeat it once if the connection broke or a build replaced the tables.
        """
        with plain_errors():
            try:
                with self._transaction(*_READING) as now:
                    return work(now)
            except psycopg.Error as error:
                if not may_repeat(error):
                    raise
            with self._transaction(*_READING) as now:
                return work(now)

    @contextmanager
    def _changing(self) -> Iterator[_Snapshot]:
        """Keep other writers out during the ``with`` block; raises :class:`EngineError` during a build."""
        with plain_errors(), self._transaction(*_WRITING) as now:
            if now.building and is_built(now.connection, self._location):
                raise busy(now.building)
            yield now

    def _store(self, now: _Snapshot, record: StoreRecord) -> None:
        """Make ``record`` that of the index."""
        update = f"UPDATE {self._location.records} SET record = %s WHERE name = %s"
        now.send(update, [record.model_dump_json(), self._location.name])

    @contextmanager
    def _transaction(self, begin: str, lock: str, milliseconds: int) -> Iterator[_Snapshot]:
        with pool().transaction("; ".join(self._beginning(begin, lock, milliseconds))) as (connection, rows):
            yield self._snapshot(connection, rows)

    def _beginning(self, begin: str, lock: str, milliseconds: int) -> list[str]:
        """Return the first statements of a transaction; the last one selects the record.

        The arguments are those of :data:`_READING` or :data:`_WRITING`.
        """
        settings = _PLANNER | {"statement_timeout": str(milliseconds), "lock_timeout": str(LOCK_MS)}
        calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
        location = self._location
        return [
            begin,
            f"SELECT {calls}",
            f"SELECT record, building FROM {location.records} WHERE name = '{location.name}'{lock}",
        ]

    def _snapshot(self, connection: Connection, rows: Sequence[Row]) -> _Snapshot:
        """Return the snapshot of a transaction whose first statements have returned ``rows``.

        Raises :class:`EngineError` if the index is missing, or if another model has built it again.
        """
        if not rows or rows[0][0] is None:
            raise EngineError(
                f"the database has no index {self._location.name} of {self.folder}: name its database in "
                f"{URL}, or build the index again"
            )
        record = parse_settings(json.loads(rows[0][0]), StoreRecord, f"the record of {self.folder}")
        if record.header != getattr(self, "header", record.header):
            raise EngineError(f"{self.folder} was built again by another model: open it again")
        self._known = record
        return _Snapshot(connection, record, self._location.store(record.store), rows[0][1])


@contextmanager
def _new_folder(folder: Path, location: DatabaseLocation) -> Iterator[None]:
    """Make the folder of an index; it is complete when the ``with`` block ends without an error.

    Its manifest is ``location``.
    """
    with whole_folder(folder) as draft:
        location.write(draft)
        yield


def _drawn(seed: int) -> str:
    """Return SQL that sorts items in a random order, which depends only on the seed and the ids."""
    return f"hashint8extended(hash, '{(seed + 2**63) % 2**64 - 2**63}')"


def _scans(asked: Search, now: _Snapshot, rows: Sequence[int]) -> list[Condition]:
    """Return the SQL that scores all allowed items for the queries in ``rows``."""
    columns, limit = now.record.columns(), now.limit(asked.where)
    scans = []
    for row in rows:
        query = asked.queries[row, 0]
        allowed = both(limit, but_not(asked.exclude[row]))
        added = preferred(asked.prefer[row], columns, query)
        scans.append(scan(now.store, query_text(query), allowed, added, asked.k + SPARE))
    return scans


def _parts_of(record: StoreRecord) -> tuple[object, ...]:
    """Return those parts of a record (facts about an index) on which the SQL of a call depends."""
    return record.store, record.attributes, record.quick, record.graph
