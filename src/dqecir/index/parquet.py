"""Export an index as a Parquet file, for other databases and vector libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dqecir.errors import EngineError
from dqecir.index.contract import Index, ItemBatch
from dqecir.io.files import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 1 << 24
"""A row group, which is in memory as a whole, ends as soon as its vectors have this many numbers."""


def export_parquet(index: Index, out: Path) -> int:
    """Write all items of an index to the Parquet file ``out``; return their number.

    A row is an item, in the order of adding: its ``id``, its ``vector`` [D] in float32 and its ``payload`` as
    JSON. If an item has several vectors, the column is ``vectors`` [n_t, D]. The file's metadata hold the
    ``score_rule`` and ``target``, the fingerprint of the weights that made the vectors. The file is written
    completely or not at all. Raises :class:`EngineError` if pyarrow is not installed, and for an id that is
    not valid Unicode.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ModuleNotFoundError:
        raise EngineError(
            "an export needs pyarrow, which is not installed: pip install 'dqecir[export]'"
        ) from None
    header, count = index.header, 0
    kind = pa.list_(pa.float32(), header.size)
    vectors = ("vector", kind) if header.tokens == 1 else ("vectors", pa.list_(kind, header.tokens))
    schema = pa.schema(
        [("id", pa.string()), vectors, ("payload", pa.string())],
        {"target": header.model, "score_rule": header.score_rule},
    )
    most = max(1, GROUP // (header.tokens * header.size))
    with whole_file(out) as file, ParquetWriter(file, schema) as writer:
        group: list[pa.RecordBatch] = []
        for batch in index.items():
            group.append(_rows(batch, schema))
            count += len(batch.ids)
            if sum(map(len, group)) >= most:
                writer.write_table(pa.Table.from_batches(group), row_group_size=count)
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group), row_group_size=count)
    return count


def _rows(batch: ItemBatch, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    numbers = pa.array(batch.tokens.float().flatten().numpy())
    vectors = pa.FixedSizeListArray.from_arrays(numbers, batch.tokens.shape[2])
    if batch.tokens.shape[1] > 1:
        vectors = pa.FixedSizeListArray.from_arrays(vectors, batch.tokens.shape[1])
    try:
        ids = pa.array(batch.ids, pa.string())
    except UnicodeEncodeError as error:
        raise EngineError(
            f"Parquet cannot hold the id {error.object!r}, which is not valid Unicode: rename the picture "
            "and build the index again"
        ) from None
    payloads = pa.array([json.dumps(dict(payload)) for payload in batch.payloads], pa.string())
    return pa.record_batch([ids, vectors, payloads], schema=schema)
