"""Compare the engine ``postgres`` with ``exact`` on one run, before and after many changes.

    export DQECIR_DATABASE_URL=postgresql://…   # a database with pgvector, on this machine
    python -m benchmarks.index.postgres --index INDEX --items 40000 --work WORK --out WORK/postgres.md

The vectors are the first of an index of the engine exact and the rule ``dot``; queries are mixed from them.
The audit chooses the settings of searches. Then half of the items are deleted, the payloads of the others
change until there were as many changes as items, VACUUM has run, and all is measured again. The size is that
of the tables with their indexes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from benchmarks.index.rivals import BEST, WHERES
from benchmarks.speed.timing import machine

from dqecir.index.contract import Index, ItemBatch
from dqecir.index.engines import move_index
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.index.postgres_connections import pool
from dqecir.io.files import write_text
from dqecir.search.audit import audit, token_queries

BATCH = 1_000


def measured(index: Index, asked: torch.Tensor, where: str | None) -> tuple[float, list[list[float]]]:
    """Return the median milliseconds of a search, and the scores of the best of each query."""
    limit, seconds, found = parse_filter(where) if where else None, [], []
    index.search(asked[:1], BEST, where=limit)
    for row in range(len(asked)):
        started = time.perf_counter()
        [hits] = index.search(asked[row : row + 1], BEST, where=limit)
        seconds.append(1000 * (time.perf_counter() - started))
        found.append([hit.score for hit in hits])
    return statistics.median(seconds), found


def recall(found: list[list[float]], right: list[list[float]]) -> float:
    """Return the share of right scores that was found; of equal items any is right."""
    shares = [
        sum(score >= scores[-1] - 1e-5 for score in own) / len(scores)
        for own, scores in zip(found, right, strict=True)
    ]
    return statistics.mean(shares)


def rows(exact: Index, own: Index, asked: torch.Tensor, state: str) -> list[str]:
    """Return a line of the table for everything and for each filter."""
    lines = []
    for name, where in WHERES.items():
        right_ms, right = measured(exact, asked, where)
        own_ms, found = measured(own, asked, where)
        cells = [f"{state}, {name}", f"{right_ms:.1f} ms", f"{own_ms:.1f} ms", f"{recall(found, right):.3f}"]
        lines.append(f"| {' | '.join(cells)} | {size(own):.0f} MB |")
    return lines


def size(index: Index) -> float:
    """Return the megabytes of an index's tables with their indexes."""
    schema, _, name = index.info()["view"].partition(".")
    query = (
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE relkind = 'r' AND nspname = %s AND starts_with(relname, %s)"
    )
    with pool().dedicated() as connection:
        return float(connection.execute(query, [schema, f"{name}_"]).fetchall()[0][0]) / 1e6


def change(index: Index, count: int) -> None:
    """Delete every second item, and change payloads of the others ``count`` times."""
    ids = index.ids()
    for start in range(0, len(ids), 2 * BATCH):
        index.delete(ids[start : start + 2 * BATCH : 2])
    entries: list[tuple[str, Mapping[str, Any]]] = list(index.entries())
    changed = 0
    while changed < count:
        part = [entries[place % len(entries)] for place in range(changed, changed + BATCH)]
        index.change_payloads({item: {**payload, "price": str(changed)} for item, payload in part})
        changed += BATCH


def first(source: Index, count: int) -> Iterator[ItemBatch]:
    """Yield the first items; each tenth, hundredth and thousandth of them can be filtered for."""
    row = 0
    for batch in source.items():
        rows = range(row, min(row + len(batch.ids), count))
        row = rows.stop
        payloads = [
            {"tenth": str(one % 10), "hundredth": str(one % 100), "thousandth": str(one % 1000)}
            for one in rows
        ]
        if payloads:
            yield ItemBatch(batch.ids[: len(rows)], batch.tokens[: len(rows)], payloads)


def vacuum() -> None:
    with pool().dedicated() as connection:
        connection.execute("VACUUM (ANALYZE)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True, help="an index of the rule dot")
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the indexes")
    parser.add_argument("--out", type=Path, required=True, help="the table, as Markdown")
    given = parser.parse_args()
    source = ExactIndex.open(given.index)
    ids = source.sample(2 * given.queries, seed=0)
    own_tokens, others = source.tokens(ids).float().chunk(2)
    asked = token_queries(own_tokens, others, "dot")
    exact: Index = ExactIndex.build(given.work / "exact", source.header, first(source, given.items))
    started = time.perf_counter()
    own = move_index(given.work / "exact", given.work / "postgres", "postgres")
    written = time.perf_counter() - started
    started = time.perf_counter()
    found = audit(own, None, apply=True)
    print(found.table(), flush=True)
    lines = [
        f"{len(exact):,} items of {source.header.size} numbers, written in {written:.0f} s; the audit took "
        f"{time.perf_counter() - started:.0f} s and chose: {found.recommended}.",
        "",
        "| | `exact`, p50 | `postgres`, p50 | recall@10 | size |",
        "|---|---|---|---|---|",
        *rows(exact, own, asked, "as built"),
    ]
    for index in (exact, own):
        change(index, given.items)
    vacuum()
    lines += rows(exact, own, asked, "half deleted, prices changed")
    measured_on = machine()
    lines += ["", f"{measured_on['cores']} cores for both, load {measured_on['load']} at the end."]
    write_text(given.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
