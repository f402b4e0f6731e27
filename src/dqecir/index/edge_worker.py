"""The process that owns an Edge shard: ``python -m dqecir.index.edge_worker SOCKET SHARD``.

Edge holds Python's lock while it works, so it stands beside the process that serves. Messages are JSON with
raw arrays behind it. It leaves when its owner does, finished or killed; two never own one shard. Nothing
heavy is imported here, so that it starts in a moment.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

_READ = ["item", "payload", "bytes"]
_SCHEMAS = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
}
_NO_GRAPH = edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=1)
"""Everything is compared: graphs gain nothing below a hundred thousand items, and lose answers."""

Reply = dict[str, Any]
Array = NDArray[np.float32]


class OwnedError(Exception):
    """Another process has the shard."""


def own(path: Path, patience: float) -> int:
    """Take the shard for this process; the system gives it back however the process ends.

    Raises :class:`OwnedError` where another has it for more than ``patience`` seconds.
    """
    name = path.with_name(path.name + ".owner")
    end = time.monotonic() + patience
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getppid()).encode(), 0)
            return handle
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode() or "unknown"
            os.close(handle)
            if time.monotonic() > end:
                raise OwnedError(holder) from None
        time.sleep(0.02)


class Shard:
    """One shard and what may be done with it; every method is a message."""

    def __init__(self, path: Path, sizes: dict[str, int] | None, indexed: dict[str, str]) -> None:
        self.path = path
        if sizes is None:
            self.shard = edge.EdgeShard.load(str(path))
            return
        path.mkdir(exist_ok=True)
        self.shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=_vectors(sizes)))
        for key, kind in indexed.items():
            self.index(key, kind)

    def write(
        self, numbers: list[int], payloads: list[Any], arrays: Mapping[str, Array] = MappingProxyType({})
    ) -> Reply:
        points = [
            edge.Point(number, {name: array[row] for name, array in arrays.items()}, payload)
            for row, (number, payload) in enumerate(zip(numbers, payloads, strict=True))
        ]
        self.shard.update(edge.UpdateOperation.upsert_points(points))
        return {}

    def read(self, number: int) -> Reply:
        found = self.shard.retrieve([number], with_payload=True, with_vector=False)
        return {"payload": found[0].payload if found else None}

    def mark(self, where: Any, payload: Any) -> Reply:
        self.shard.update(edge.UpdateOperation.set_payload_by_filter(_filter(where), payload))
        return {}

    def unmark(self, where: Any, key: str) -> Reply:
        self.shard.update(edge.UpdateOperation.delete_payload_by_filter(_filter(where), [key]))
        return {}

    def remove(self, where: Any) -> Reply:
        self.shard.update(edge.UpdateOperation.delete_points_by_filter(_filter(where)))
        return {}

    def index(self, key: str, kind: str) -> Reply:
        self.shard.update(edge.UpdateOperation.create_field_index(key, _SCHEMAS[kind]))
        return {}

    def count(self, where: Any) -> Reply:
        return {"count": self.shard.count(edge.CountRequest(filter=_filter(where), exact=True))}

    def scroll(self, where: Any, after: int, limit: int, tokens: bool) -> Reply:
        fields = edge.PayloadSelector.Include(_READ if tokens else _READ[:2])
        request = edge.ScrollRequest(
            offset=after + 1, limit=limit, filter=_filter(where), with_payload=fields, with_vector=False
        )
        return {"found": [[_plain(point, 0.0) for point in self.shard.scroll(request)[0]]]}

    def search(self, asks: list[Any], arrays: Mapping[str, Array]) -> Reply:
        requests = [
            edge.QueryRequest(
                query=_question(ask["name"], arrays[str(row)]),
                limit=ask["limit"],
                filter=_filter(ask["where"]),
                with_payload=edge.PayloadSelector.Include(_READ),
                params=edge.SearchParams(exact=True),
            )
            for row, ask in enumerate(asks)
        ]
        found = self.shard.query_batch(edge.QueryBatchRequest(requests))
        return {"found": [[_plain(point, point.score) for point in own] for own in found]}

    def flush(self) -> Reply:
        self.shard.flush()
        return {}

    def facts(self) -> Reply:
        size = sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return {"segments": self.shard.info().segments_count, "bytes on disk": size}


def _vectors(sizes: dict[str, int]) -> dict[str, edge.EdgeVectorParams]:
    many = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    return {
        name: edge.EdgeVectorParams(
            size=size,
            distance=edge.Distance.Dot,
            datatype=edge.VectorStorageDatatype.Float16,
            hnsw_config=_NO_GRAPH,
            multivector_config=many if name == "tokens" else None,
        )
        for name, size in sizes.items()
    }


def _question(name: str, vector: Any) -> edge.Query:
    return edge.Query.Nearest(vector[None] if name == "tokens" else vector, using=name)


def _plain(point: Any, score: float) -> list[Any]:
    known = point.payload
    return [point.id, score, known["item"], known["payload"], known.get("bytes", "")]


def _filter(where: Any) -> edge.Filter:
    """A condition in the form of Qdrant's REST API as Edge's own."""
    if "key" in where:
        return edge.Filter(must=[_field(where)])

    def parts(name: str) -> list[Any] | None:
        return [_filter(part) for part in where[name]] if where.get(name) else None

    return edge.Filter(must=parts("must"), should=parts("should"), must_not=parts("must_not"))


def _field(where: Any) -> edge.FieldCondition:
    if "range" in where:
        bounds = {name: float(bound) for name, bound in where["range"].items()}
        return edge.FieldCondition(where["key"], range=edge.RangeFloat(**bounds))
    return edge.FieldCondition(where["key"], match=edge.MatchAny(where["match"]["any"]))


def serve(link: Connection, path: Path) -> None:
    """Answer messages until the owner closes the link."""
    shard: Shard | None = None
    while True:
        try:
            message = json.loads(link.recv_bytes())
            arrays = {
                name: np.frombuffer(link.recv_bytes(), dtype=kind).reshape(shape).astype(np.float32)
                for name, kind, shape in message.pop("arrays")
            }
        except (EOFError, OSError):
            break
        try:
            if shard is None:
                own(path, message["arguments"].pop("patience"))
                shard = Shard(path, **message["arguments"])
                reply: Reply = {}
            else:
                asked: Callable[..., Reply] = getattr(shard, message["name"])
                reply = asked(**message["arguments"], **({"arrays": arrays} if arrays else {}))
        except OwnedError as error:
            reply = {"owned": str(error)}
        except Exception as error:
            reply = {"error": " ".join(str(error).split())}
        tokens = [base64.b64decode(point.pop()) for own_ in reply.get("found", ()) for point in own_]
        try:
            link.send_bytes(json.dumps(reply).encode())
            if "found" in reply:
                link.send_bytes(b"".join(tokens))
        except OSError:
            break
    if shard is not None:
        shard.shard.close()
        _leave(path)


def _leave(path: Path) -> None:
    """Take the shard away where a later one has its place."""
    try:
        store = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))["store"]
    except (OSError, ValueError, KeyError):
        return
    if store > path.name:
        shutil.rmtree(path, ignore_errors=True)
        path.with_name(path.name + ".owner").unlink(missing_ok=True)


def _watch(owner: int) -> None:
    # The link alone is not enough: a process forked from the owner may hold its other end.
    while os.getppid() == owner:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Serve one shard over the socket whose number is the first argument."""
    # Whoever stops the owner by the keyboard does not mean to stop this in the middle of a change.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    serve(Connection(int(sys.argv[1])), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
