"""A collection on a Qdrant server: all requests of the engine, through Qdrant's client."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from dqecir.errors import EngineError
from dqecir.index.qdrant_points import INDEXED, RECORD, TOKENS, Condition, Point, PointQuery, StoredPoint

URL, KEY = "DQECIR_QDRANT_URL", "DQECIR_QDRANT_KEY"
IN_MEMORY = ":memory:"
"""The address at which the client itself acts as the server, within this process, for tests."""

_READ = ["item", "payload", "bytes"]


@dataclass(frozen=True)
class Collection:
    """The points of one index. Every call may safely be repeated.

    Each call raises :class:`EngineError` if the server does not answer or refuses. The constructor raises it
    for a wrong address, and for an address that contains a key.
    """

    url: str
    name: str

    def __post_init__(self) -> None:
        _check(self.url)

    def create(self, sizes: Mapping[str, int]) -> None:
        """Create the collection with named vectors of these widths."""
        many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        vectors = {
            name: models.VectorParams(
                size=size,
                distance=models.Distance.DOT,
                datatype=models.Datatype.FLOAT16,
                multivector_config=many if name == TOKENS else None,
                # No graph: below a hundred thousand items it is not faster, and it misses results.
                hnsw_config=models.HnswConfigDiff(m=0),
            )
            for name, size in sizes.items()
        }
        with self._client() as client:
            client.create_collection(self.name, vectors_config=vectors)
        for key, kind in INDEXED.items():
            self.index(key, kind)

    def drop(self) -> None:
        """Remove the collection."""
        with self._client() as client:
            client.delete_collection(self.name)

    def siblings(self, base: str) -> list[str]:
        """Return the collections of this server whose name is ``base``, a hyphen and a number."""
        with self._client() as client:
            names = [found.name for found in client.get_collections().collections]
        return [name for name in names if name.rpartition("-")[0] == base]

    def index(self, key: str, kind: str) -> None:
        """Create an index on a payload field, so that filters are fast; does nothing if it exists."""
        # The client that acts as the server has no indexes and warns for each.
        if self.url != IN_MEMORY:
            with self._client() as client:
                client.create_payload_index(self.name, key, models.PayloadSchemaType(kind), wait=True)

    def write(self, points: Sequence[Point]) -> None:
        """Write points, replacing those with the same numbers."""
        structs = [
            models.PointStruct(
                id=point.number,
                vector={name: vector.astype("float32").tolist() for name, vector in point.vectors.items()},
                payload=dict(point.payload),
            )
            for point in points
        ]
        with self._client() as client:
            client.upsert(self.name, structs, wait=True)

    def write_record(self, text: str) -> None:
        """Write the record, whole or not at all."""
        self.write([Point(RECORD, {"record": text}, {})])

    def read_record(self) -> str | None:
        """Return the record, or None."""
        with self._client() as client:
            if not client.collection_exists(self.name):
                return None
            found = client.retrieve(self.name, [RECORD], with_payload=True)
        return str(found[0].payload["record"]) if found and found[0].payload else None

    def mark_dead(self, where: Condition, generation: int) -> None:
        """Mark points as deleted from a generation on."""
        with self._client() as client:
            client.set_payload(self.name, {"died": generation}, points=_filter(where), wait=True)

    def unmark(self, where: Condition) -> None:
        """Remove such marks."""
        with self._client() as client:
            client.delete_payload(self.name, ["died"], points=_filter(where), wait=True)

    def remove(self, where: Condition) -> None:
        """Remove points."""
        with self._client() as client:
            selector = models.FilterSelector(filter=_filter(where))
            client.delete(self.name, points_selector=selector, wait=True)

    def count(self, where: Condition) -> int:
        """Count the points that fulfil a condition."""
        with self._client() as client:
            return client.count(self.name, count_filter=_filter(where), exact=True).count

    def scroll(self, where: Condition, after: int, limit: int, tokens: bool = True) -> list[StoredPoint]:
        """Return points in the order of their numbers, from ``after`` + 1, with or without tokens."""
        with self._client() as client:
            found, _ = client.scroll(
                self.name,
                scroll_filter=_filter(where),
                offset=after + 1,
                limit=limit,
                with_payload=_READ if tokens else _READ[:2],
            )
        return [_stored(point.id, 0.0, point.payload) for point in found]

    def search(self, queries: Sequence[PointQuery]) -> list[list[StoredPoint]]:
        """Return the nearest points of each query, best first."""
        requests = [
            models.QueryRequest(
                query=[query.vector.tolist()] if query.name == TOKENS else query.vector.tolist(),
                using=query.name,
                limit=query.limit,
                filter=_filter(query.where),
                with_payload=_READ,
                params=None if self.url == IN_MEMORY else models.SearchParams(exact=True),
            )
            for query in queries
        ]
        with self._client() as client:
            found = client.query_batch_points(self.name, requests=requests)
        return [[_stored(point.id, point.score, point.payload) for point in own.points] for own in found]

    @contextmanager
    def _client(self) -> Iterator[QdrantClient]:
        try:
            yield _connect(self.url, os.environ.get(KEY))
        except (ApiException, OSError) as error:
            what = " ".join(str(error).split())[:200]
            raise EngineError(f"the Qdrant server at {self.url} failed: {what}") from None


@lru_cache(maxsize=8)
def _connect(url: str, key: str | None) -> QdrantClient:
    if url == IN_MEMORY:
        return QdrantClient(IN_MEMORY)
    # The check of versions would contact a server that may not answer, and only warn.
    return QdrantClient(url=url, api_key=key, timeout=60, check_compatibility=False)


def _check(url: str) -> None:
    if not url:
        raise EngineError(
            f"the address of the Qdrant server is missing: set {URL}, such as http://localhost:6333"
        )
    parts = urlsplit(url)
    if url != IN_MEMORY and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise EngineError(f"{URL} is not the address of a Qdrant server, such as http://localhost:6333")
    if parts.password or parts.username or parts.query:
        raise EngineError(f"the address of a Qdrant server is kept in a file: put its key into {KEY} instead")


def _filter(where: Condition) -> models.Filter:
    return models.Filter.model_validate({"must": [where]})


def _stored(number: Any, score: float, payload: Mapping[str, Any] | None) -> StoredPoint:
    known = payload or {}
    tokens = base64.b64decode(known.get("bytes", ""))
    return StoredPoint(int(number), score, known["item"], known["payload"], tokens)
