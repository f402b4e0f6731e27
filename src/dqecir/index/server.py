"""A Qdrant server or cluster, through its client; shards and replicas are the server's.

The folder keeps the manifest and the lock of writers. Where the server is, ``DQECIR_QDRANT_URL`` says when
an index is first built, and the manifest from then on; a key is read from ``DQECIR_QDRANT_KEY`` and written
nowhere.
"""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from dqecir.errors import EngineError
from dqecir.index.qdrant import QdrantIndex
from dqecir.index.qdrant_layout import INDEXED, RECORD, TOKENS, Ask, Condition, Found, Point
from dqecir.index.qdrant_store import Place, Store

URL, KEY = "DQECIR_QDRANT_URL", "DQECIR_QDRANT_KEY"
IN_MEMORY = ":memory:"
"""An address at which the client itself plays server, for this process alone: for trying things."""

_READ = ["item", "payload", "bytes"]
_SCHEMAS = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
}


class ServerIndex(QdrantIndex):
    """Items in a collection of a Qdrant server."""

    name = "server"

    @classmethod
    def _store(cls, folder: Path, place: Place) -> Store:
        return ServerStore(_checked(place.url), place.store)

    @classmethod
    def _new(cls, folder: Path, old: Place | None, sizes: Mapping[str, int]) -> tuple[str, str | None, Store]:
        url = _checked(os.environ.get(URL) if old is None else old.url)
        # Numbers count up from an index's first collection; its name is nobody else's.
        base = f"dqecir-{uuid.uuid4().hex[:12]}" if old is None else old.store.rpartition("-")[0]
        taken = [int(name.rpartition("-")[2]) for name in _collections(url, base)]
        store = ServerStore(url, f"{base}-{max(taken, default=0) + 1:08}")
        store.create(sizes)
        return store.collection, url, store

    @classmethod
    def _sweep(cls, folder: Path, now: Place, old: Place | None) -> None:
        # Who has the replaced collection open may be on another machine: it stays until the next build.
        kept = {now.store} | ({old.store} if old is not None else set())
        url = _checked(now.url)
        for name in _collections(url, now.store.rpartition("-")[0]):
            if name not in kept:
                ServerStore(url, name).drop()

    @classmethod
    def _discard(cls, folder: Path, name: str, store: Store) -> None:
        assert isinstance(store, ServerStore)
        store.drop()


class ServerStore(Store):
    """Points of a collection."""

    def __init__(self, url: str, collection: str) -> None:
        self.url, self.collection = url, collection

    def create(self, sizes: Mapping[str, int]) -> None:
        """Make the collection, with vectors of these names and widths."""
        many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        vectors = {
            name: models.VectorParams(
                size=size,
                distance=models.Distance.DOT,
                datatype=models.Datatype.FLOAT16,
                multivector_config=many if name == TOKENS else None,
                # Everything is compared: see edge_worker.py.
                hnsw_config=models.HnswConfigDiff(m=0),
            )
            for name, size in sizes.items()
        }
        with self._client() as client:
            client.create_collection(self.collection, vectors_config=vectors)
        for key, kind in INDEXED.items():
            self._index(key, kind)

    def drop(self) -> None:
        """Remove the collection."""
        with self._client() as client:
            client.delete_collection(self.collection)

    def write(self, points: Sequence[Point]) -> None:
        structs = [
            models.PointStruct(
                id=point.number,
                vector={name: vector.astype("float32").tolist() for name, vector in point.vectors.items()},
                payload=dict(point.payload),
            )
            for point in points
        ]
        with self._client() as client:
            client.upsert(self.collection, structs, wait=True)

    def write_record(self, text: str) -> None:
        with self._client() as client:
            record = models.PointStruct(id=RECORD, vector={}, payload={"record": text})
            client.upsert(self.collection, [record], wait=True)

    def read_record(self) -> str | None:
        with self._client() as client:
            if not client.collection_exists(self.collection):
                return None
            found = client.retrieve(self.collection, [RECORD], with_payload=True)
        return str(found[0].payload["record"]) if found and found[0].payload else None

    def mark_dead(self, where: Condition, generation: int) -> None:
        with self._client() as client:
            client.set_payload(self.collection, {"died": generation}, points=_filter(where), wait=True)

    def unmark(self, where: Condition) -> None:
        with self._client() as client:
            client.delete_payload(self.collection, ["died"], points=_filter(where), wait=True)

    def remove(self, where: Condition) -> None:
        with self._client() as client:
            selector = models.FilterSelector(filter=_filter(where))
            client.delete(self.collection, points_selector=selector, wait=True)

    def index_numbers(self, key: str) -> None:
        self._index(key, "float")

    def count(self, where: Condition) -> int:
        with self._client() as client:
            return client.count(self.collection, count_filter=_filter(where), exact=True).count

    def scroll(self, where: Condition, after: int, limit: int, tokens: bool = True) -> list[Found]:
        with self._client() as client:
            found, _ = client.scroll(
                self.collection,
                scroll_filter=_filter(where),
                offset=after + 1,
                limit=limit,
                with_payload=_READ if tokens else _READ[:2],
            )
        return [_found(point.id, 0.0, point.payload) for point in found]

    def search(self, asks: Sequence[Ask]) -> list[list[Found]]:
        requests = [
            models.QueryRequest(
                query=[ask.vector.tolist()] if ask.name == TOKENS else ask.vector.tolist(),
                using=ask.name,
                limit=ask.limit,
                filter=_filter(ask.where),
                with_payload=_READ,
                params=None if self.url == IN_MEMORY else models.SearchParams(exact=True),
            )
            for ask in asks
        ]
        with self._client() as client:
            found = client.query_batch_points(self.collection, requests=requests)
        return [[_found(point.id, point.score, point.payload) for point in own.points] for own in found]

    def flush(self) -> None:
        """Nothing: what a server has acknowledged is in its log."""

    def facts(self) -> dict[str, Any]:
        return {"server": self.url, "collection": self.collection}

    def _index(self, key: str, kind: str) -> None:
        # The client that plays server has no indexes and warns of each.
        if self.url != IN_MEMORY:
            with self._client() as client:
                client.create_payload_index(self.collection, key, _SCHEMAS[kind], wait=True)

    @contextmanager
    def _client(self) -> Iterator[QdrantClient]:
        try:
            yield _connect(self.url, os.environ.get(KEY))
        except (ApiException, OSError) as error:
            what = " ".join(str(error).split())[:200]
            raise EngineError(f"the Qdrant server at {self.url} could not do this: {what}") from None


@lru_cache(maxsize=8)
def _connect(url: str, key: str | None) -> QdrantClient:
    if url == IN_MEMORY:
        return QdrantClient(IN_MEMORY)
    # The check of versions would ask a server that may not answer, and only warn.
    return QdrantClient(url=url, api_key=key, timeout=60, check_compatibility=False)


def _checked(url: str | None) -> str:
    if not url:
        raise EngineError(f"no Qdrant server is known: set {URL}, such as http://localhost:6333")
    parts = urlsplit(url)
    if url != IN_MEMORY and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise EngineError(f"{URL} is no address of a Qdrant server, such as http://localhost:6333")
    if parts.password or parts.username or parts.query:
        raise EngineError(f"the address of a Qdrant server is kept in a file: put its key into {KEY} instead")
    return url


def _collections(url: str, base: str) -> list[str]:
    with ServerStore(url, base)._client() as client:
        names = [collection.name for collection in client.get_collections().collections]
    return [name for name in names if name.rpartition("-")[0] == base]


def _filter(where: Condition) -> models.Filter:
    return models.Filter.model_validate({"must": [where]})


def _found(number: Any, near: float, payload: Mapping[str, Any] | None) -> Found:
    known = payload or {}
    tokens = base64.b64decode(known.get("bytes", ""))
    return Found(int(number), near, known["item"], known["payload"], tokens)
