"""The graph of the engine ``postgres``: an HNSW index of pgvector, which finds near vectors fast.

A graph of raw inner products finds few of the best items, because long vectors are near to all queries. So
the mean c is subtracted from each vector x, and one more number is appended: sqrt(M² - |x - c|²), where M is
the largest |x - c| when the graph is made. Then all vectors have the length M (the graph stores them divided
by M), and their inner products with (q, 0) have the same order as those of x with the query q. A later vector
with a larger |x - c| cannot be in the graph; searches scan such vectors separately, until an audit or a build
makes a new graph.
"""

from __future__ import annotations

import uuid

from dqecir.index.contract import SearchSettings
from dqecir.index.postgres_connections import Connection, pool, run
from dqecir.index.postgres_search import Condition, with_rows
from dqecir.index.postgres_tables import Store, VectorGraph

WIDEST_GRAPH = 3_999
"""Largest width of vectors in a graph: pgvector's limit for halfvec less 1, for the appended number."""

MOST = 1_000
"""Largest number of candidates of a graph: pgvector's limit for ef_search."""

GRAPH_ENDS = ("_far", "_near")
"""How the names of a graph's two database indexes end: that of the vectors that are too long for the graph,
and that of the others."""

_NEWEST = (0, 8, 4)
"""First version of pgvector without known faults in building graphs and in VACUUM."""


def why_no_graph(width: int, settings: SearchSettings) -> str | None:
    """Return why a graph (HNSW index) cannot be used for this width and these settings; None if it can."""
    if pool().extension().version < _NEWEST:
        newest = ".".join(map(str, _NEWEST))
        return (
            f"graphs need pgvector {newest} or newer, so every item is compared: let the database's owner "
            "run ALTER EXTENSION vector UPDATE"
        )
    if width > WIDEST_GRAPH:
        return (
            f"graphs hold vectors of at most {WIDEST_GRAPH} numbers, so every item of this index is "
            "compared: set no candidates"
        )
    if settings.candidates > MOST:
        return f"a graph finds at most {MOST} candidates: name at most so many"
    return None


def add_graph(connection: Connection, store: Store, width: int) -> VectorGraph | None:
    """Make a graph of the vectors of a store (the tables of an index); None if the store has no items.

    Others may change the store meanwhile. ``width`` is the number of numbers in a vector.
    """
    vector = store.extension.named("vector")
    mean = f"SELECT {store.extension.named('avg')}(vector::{vector})::text FROM {store.vectors}"
    [(centre,)] = run(connection, mean)
    if centre is None:
        return None
    graph = VectorGraph(name=f"{store.name}_{uuid.uuid4().hex[:4]}", centre=centre, bound=0.0)
    [(bound,)] = run(connection, f"SELECT max({_length(store, graph)}) FROM {store.vectors} v")
    graph = graph.model_copy(update={"bound": bound})
    [(backend,)] = run(connection, "SELECT pg_backend_pid()")
    if backend == connection.info.backend_pid:
        # A connection pooler would keep this setting for other clients, so the server's own stays.
        connection.execute("SET maintenance_work_mem = '1GB'")
    for definition in (
        f'"{graph.name}_far" ON {store.vectors} (key) WHERE {_far(store, graph)}',
        f'"{graph.name}_near" ON {store.vectors} USING hnsw ({_line(store, graph, width)} '
        f"{store.extension.named('halfvec_ip_ops')}) WITH (m = 16, ef_construction = 100) "
        f"WHERE {_near(store, graph)}",
    ):
        run(connection, f"CREATE INDEX CONCURRENTLY {definition}".replace("v.vector", "vector"))
    return graph


def drop_graphs(connection: Connection, store: Store, but: VectorGraph | None) -> None:
    """Drop all graphs of a store (the tables of an index) except ``but``, also unfinished ones."""
    kept = [but.name + end for end in GRAPH_ENDS] if but else []
    names = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass"
    for (name,) in run(connection, f"{names} AND NOT indisprimary", [store.vectors]):
        bare = name.split(".")[-1].strip('"')
        if bare.startswith(store.name) and bare not in kept:
            run(connection, f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def is_outgrown(connection: Connection, store: Store, graph: VectorGraph) -> bool:
    """Return whether the store (the tables of an index) has vectors that are too long for the graph."""
    far = f"SELECT FROM {store.vectors} v WHERE {_far(store, graph)}"
    return bool(run(connection, f"SELECT EXISTS ({far})")[0][0])


def graph_settings(candidates: int) -> Condition:
    """Return SQL that makes the planner use the graph until the end of a transaction.

    ``candidates``: how many items the graph finds before the best are chosen.
    """
    wanted = {
        "hnsw.ef_search": str(candidates),
        "hnsw.iterative_scan": "strict_order",
        **{f"enable_{way}": "off" for way in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin")},
    }
    calls = ", ".join("set_config(%s, %s, true)" for _ in wanted)
    return f"SELECT {calls}", [one for pair in wanted.items() for one in pair]


def near(
    store: Store, graph: VectorGraph, width: int, query: str, allowed: Condition, count: int
) -> Condition:
    """Return SQL that finds about ``count`` nearest items: by the graph, and a scan of longer vectors.

    ``query`` is the query vector as text, ``width`` the number of its numbers, ``allowed`` the SQL of a
    filter.
    """
    text, parameters = allowed
    # OFFSET keeps the planner from looking at the few far vectors after all items.
    far = f"(SELECT * FROM {store.vectors} v WHERE {_far(store, graph)} OFFSET 0)"
    nearest = f"v.vector {store.product} %s::{store.half}"
    keys = (
        f"(SELECT i.key FROM {store.vectors} v JOIN {store.items} i USING (key) WHERE {_near(store, graph)} "
        f"AND {text} ORDER BY {nearest.replace('v.vector', _line(store, graph, width))} LIMIT %s) UNION ALL "
        f"(SELECT i.key FROM {far} v JOIN {store.items} i USING (key) WHERE {text} ORDER BY {nearest} "
        "LIMIT %s)"
    )
    return with_rows(store, keys), [*parameters, f"{query[:-1]},0]", count, *parameters, query, count]


def _length(store: Store, graph: VectorGraph) -> str:
    return f"{store.extension.named('vector_norm')}({_centred(store, graph)})"


def _centred(store: Store, graph: VectorGraph) -> str:
    vector = store.extension.named("vector")
    return f"(v.vector::{vector} {store.extension.operator('-')} '{graph.centre}'::{vector})"


def _near(store: Store, graph: VectorGraph) -> str:
    return f"{_length(store, graph)} <= '{graph.bound!r}'::float8"


def _far(store: Store, graph: VectorGraph) -> str:
    return f"{_length(store, graph)} > '{graph.bound!r}'::float8"


def _line(store: Store, graph: VectorGraph, width: int) -> str:
    """Return SQL for a vector as it is in the graph: centred, with the appended number, of length 1."""
    named, joined = store.extension.named, store.extension.operator("||")
    rest = f"sqrt(greatest('{graph.bound!r}'::float8 ^ 2 - {_length(store, graph)} ^ 2, 0))"
    whole = f"{_centred(store, graph)} {joined} ARRAY[{rest}]::{named('vector')}"
    return f"({named('l2_normalize')}({whole})::{store.half}({width + 1}))"
