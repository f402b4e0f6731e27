"""Measure what so many candidates of the engine ``server`` hold of the exact first ten.

    export DQECIR_QDRANT_URL=http://localhost:6333
    python -m benchmarks.index.prefetch --index INDEX --work WORK --out WORK/prefetch.json

INDEX is an index of any engine. Its items are moved to the Qdrant server, and ``dqecir index audit`` measures
more numbers of candidates there than it does for a user. The default in ``dqecir.index.prefetch`` was chosen
from this.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.speed.timing import machine

from dqecir.index.engines import move_index
from dqecir.io.files import write_json
from dqecir.model.composed_model import ComposedModel
from dqecir.search.audit import audit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--candidates", type=int, nargs="+", default=[50, 100, 200, 500, 1000, 2000])
    arguments = parser.parse_args()
    model = ComposedModel.from_pretrained(arguments.model)
    moved = move_index(arguments.index, arguments.work / "server", "server")
    found = audit(moved, model, arguments.queries, numbers=sorted(arguments.candidates))
    print(found.table())
    rows = [
        {
            "limit": row.limit.said,
            "share": row.limit.share,
            "candidates": row.settings and row.settings.candidates,
            "recall": row.recall,
            "median": row.median,
            "p99": row.slowest,
        }
        for row in found.rows
    ]
    write_json(
        arguments.out,
        {
            "items": found.items,
            "queries": found.queries,
            "composed of pictures": found.of_pictures,
            "cosine between tokens of an item": found.alike,
            "rule": moved.header.score_rule,
            "tokens": [moved.header.tokens, moved.header.size],
            "rows": rows,
            "machine": machine(),
        },
    )


if __name__ == "__main__":
    main()
