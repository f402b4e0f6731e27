"""Read indexes of the engine ``server`` that version 0.1.0 wrote: they can be moved, but not searched."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dqecir.errors import EngineError
from dqecir.index.contract import IndexHeader, ItemBatch, manifest_of
from dqecir.index.qdrant_collection import Collection
from dqecir.index.qdrant_points import visible
from dqecir.settings import parse_settings

FORMAT = 2
READ = 128
"""Number of points that one request reads."""


def earlier_items(folder: Path) -> tuple[IndexHeader, Iterator[ItemBatch]] | None:
    """Return the header and the items of an index of version 0.1.0; None for an index of another version.

    Raises :class:`EngineError` if the server no longer has the items.
    """
    data = manifest_of(folder)
    if data["engine"] != "server" or data.get("format") != FORMAT:
        return None
    collection = Collection(data["url"], data["store"]).patient
    record = collection.read_record()
    if record is None:
        raise EngineError(f"the Qdrant server no longer has the points of {folder}: build the index again")
    header = parse_settings(data["header"], IndexHeader, str(folder / "manifest.json"))
    return header, _batches(collection, json.loads(record["record"])["generation"], header)


def _batches(collection: Collection, generation: int, header: IndexHeader) -> Iterator[ItemBatch]:
    last = 0
    while found := collection.scroll_earlier(visible(generation), last, READ):
        last = found[-1][0]
        payloads = [payload for _, payload in found]
        tokens = [np.frombuffer(base64.b64decode(one["bytes"]), dtype=np.float16) for one in payloads]
        shape = (len(found), header.tokens, header.size)
        yield ItemBatch(
            [one["item"] for one in payloads],
            torch.from_numpy(np.stack(tokens).reshape(shape)),
            [json.loads(one["payload"]) for one in payloads],
        )
