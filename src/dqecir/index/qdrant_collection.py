"""A collection on a Qdrant server: all requests of the engine ``server``, made with Qdrant's client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from dqecir.errors import EngineError, reason_of
from dqecir.index.qdrant_points import INDEXED, NUMBER, RECORD, VECTOR, Condition, StoredPoint, within
from dqecir.io.progress import console

URL, KEY = "DQECIR_QDRANT_URL", "DQECIR_QDRANT_KEY"
IN_MEMORY = ":memory:"
"""Address for tests: the client itself acts as the server, within this process."""

PATIENCE = 30.0
"""Seconds for which a build or a change repeats a request that fails temporarily."""

SILENCE = 60
"""Seconds after which a request without an answer has failed."""

SEARCH_SILENCE = 10
"""Seconds after which a search without an answer has failed."""

CHANGES = 1024
"""Most names of changes that are read in one request; killed writers leave fewer."""

_LONGEST_PAUSE = 2.0
_LATER = frozenset({408, 425, 429})
"""HTTP statuses, besides 5xx, after which a request is repeated."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Collection:
    """The points (stored items) of one index on a Qdrant server.

    Every request can safely be repeated; after a temporary failure it is repeated.

    Each method raises :class:`EngineError` if no server answers, or if the server refuses. The constructor
    raises it for a wrong address, and for an address that contains a key.
    """

    url: str
    """Address of the server; several addresses of a cluster are separated by commas."""
    name: str
    patience: float = 0.0
    """Seconds for which a request is repeated. It is tried at least twice, and at every address."""

    def __post_init__(self) -> None:
        for address in _addresses(self.url):
            _check(address)

    @property
    def patient(self) -> Collection:
        """The same collection for a build or a change, with which requests wait for a server to come back."""
        return replace(self, patience=PATIENCE)

    def create(self, sizes: tuple[int, int]) -> None:
        """Create the collection; ``sizes`` are the number of vectors of an item and their width."""
        tokens, width = sizes
        many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        vector = models.VectorParams(
            size=width,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16,
            multivector_config=many if tokens > 1 else None,
            # No graph: below a hundred thousand items it is not faster, and it misses results.
            hnsw_config=models.HnswConfigDiff(m=0),
        )

        def create(client: QdrantClient) -> None:
            if not client.collection_exists(self.name):
                client.create_collection(self.name, vectors_config={VECTOR: vector})

        self.call(create)
        for key, kind in INDEXED.items():
            self.index(key, kind)

    def drop(self) -> None:
        """Remove the collection."""
        self.call(lambda client: client.delete_collection(self.name))

    def names(self) -> list[str]:
        """Return the names of all collections of this server."""
        return self.call(lambda client: [found.name for found in client.get_collections().collections])

    def index(self, key: str, kind: str) -> None:
        """Index a payload field, so that filters on it are fast; does nothing if it is indexed already.

        ``key`` is the field, ``kind`` Qdrant's type of index.
        """
        # The client that acts as the server cannot index fields, and would warn about each.
        if self.url != IN_MEMORY:
            schema = models.PayloadSchemaType(kind)
            self.call(lambda client: client.create_payload_index(self.name, key, schema, wait=True))

    def write(self, points: list[models.PointStruct]) -> None:
        """Write points, replacing those with the same ids."""
        self.call(lambda client: client.upsert(self.name, points, wait=True))

    def write_record(self, payload: dict[str, Any], before: Condition | None = None) -> None:
        """Write the record of the index, a point with facts about it, as a whole.

        With ``before``, it is written only if the old record fulfils that condition.
        """
        point = models.PointStruct(id=RECORD, vector={}, payload=payload)
        only = None if before is None else _filter(before)
        self.call(lambda client: client.upsert(self.name, [point], wait=True, update_filter=only))

    def read_record(self) -> dict[str, Any] | None:
        """Return the fields of the index's record, a point with facts about it; None if there is none."""

        def read(client: QdrantClient) -> dict[str, Any] | None:
            if not client.collection_exists(self.name):
                return None
            found = client.retrieve(self.name, [RECORD], with_payload=True)
            return found[0].payload if found else None

        return self.call(read)

    def mark(self, where: Condition, marks: dict[str, Any]) -> None:
        """Set the fields ``marks`` of all points that fulfil ``where``."""
        self.call(lambda client: client.set_payload(self.name, marks, points=_filter(where), wait=True))

    def set_payloads(self, payloads: Mapping[str, dict[str, Any]]) -> None:
        """Set fields of points: id of the point -> fields."""
        if payloads:
            operations: list[models.UpdateOperation] = [
                models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, points=[point]))
                for point, payload in payloads.items()
            ]
            self.call(lambda client: client.batch_update_points(self.name, operations, wait=True))

    def unmark(self, where: Condition, keys: list[str]) -> None:
        """Remove the fields ``keys`` of all points that fulfil ``where``."""
        self.call(lambda client: client.delete_payload(self.name, keys, points=_filter(where), wait=True))

    def remove(self, where: Condition) -> None:
        """Remove all points that fulfil ``where``."""
        selector = models.FilterSelector(filter=_filter(where))
        self.call(lambda client: client.delete(self.name, points_selector=selector, wait=True))

    def count(self, where: Condition) -> int:
        """Return the number of points that fulfil ``where``."""
        return self.call(lambda client: client.count(self.name, _filter(where), exact=True).count)

    def counted(self, where: Condition, key: str, most: int) -> dict[str, int]:
        """Return the ``most`` commonest texts of the field ``key``: text -> number of points that have it.

        Only points that fulfil ``where`` count.
        """
        found = self.call(lambda client: client.facet(self.name, key, _filter(where), limit=most, exact=True))
        return {str(hit.value): hit.count for hit in found.hits}

    def outermost(self, where: Condition, key: str) -> tuple[float, float]:
        """Return the smallest and the largest number that points have in the field ``key``.

        Only points that fulfil ``where`` count; at least one of them must have a number there.
        """

        def first(direction: models.Direction) -> list[float]:
            order, only = models.OrderBy(key=key, direction=direction), _filter(where)
            found, _ = self.call(
                lambda client: client.scroll(self.name, only, order_by=order, limit=1, with_payload=[key])
            )
            number: Any = found[0].payload
            for part in key.split("."):
                number = number[part]
            return number if isinstance(number, list) else [number]

        return float(min(first(models.Direction.ASC))), float(max(first(models.Direction.DESC)))

    def writers(self, where: Condition, key: str) -> list[str]:
        """Return the names of changes in the field ``key`` of points that fulfil ``where``, each once.

        At most :data:`CHANGES` names are returned.
        """
        # Qdrant may write UUIDs with hyphens.
        return [name.replace("-", "") for name in self.counted(where, key, CHANGES)]

    def scroll(self, where: Condition, after: int, limit: int, tokens: bool = True) -> list[StoredPoint]:
        """Return up to ``limit`` points that fulfil ``where``, by number, with numbers above ``after``.

        A number is a place in the order of adding. ``tokens``: whether to read their vectors.
        """
        found, _ = self.call(
            lambda client: client.scroll(
                self.name,
                scroll_filter=_filter({"must": [within(NUMBER, gt=after), where]}),
                order_by=models.OrderBy(key=NUMBER),
                limit=limit,
                with_payload=_READ,
                with_vectors=[VECTOR] if tokens else False,
            )
        )
        return [_stored(point) for point in found]

    def search(self, queries: Sequence[tuple[Any, Condition]], limit: int) -> list[list[StoredPoint]]:
        """Return up to ``limit`` points with the largest inner products for each query, the best first.

        A query is numbers [D] or [1, D] and a condition on points. If an item has several vectors, the
        largest of their products counts (MAX_SIM).
        """
        requests = [
            models.QueryRequest(
                query=numbers,
                using=VECTOR,
                limit=limit,
                filter=_filter(where),
                with_payload=_READ,
                with_vector=[VECTOR],
                params=None if self.url == IN_MEMORY else models.SearchParams(exact=True),
            )
            for numbers, where in queries
        ]
        found = self.call(lambda client: client.query_batch_points(self.name, requests=requests))
        return [[_stored(point) for point in own.points] for own in found]

    def scroll_earlier(self, where: Condition, after: int, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """Return up to ``limit`` points (id, payload) of an index of version 0.1.0, past the id ``after``."""
        found, _ = self.call(
            lambda client: client.scroll(self.name, _filter(where), offset=after + 1, limit=limit)
        )
        return [(int(point.id), point.payload or {}) for point in found]

    def call(self, work: Callable[[QdrantClient], ResultT]) -> ResultT:
        """Call ``work`` with a client, and return its result.

        If it fails temporarily, it is called again with a client of the next address. Raises
        :class:`EngineError` if it fails in another way, or longer than :attr:`patience`.
        """
        addresses, silence = _addresses(self.url), SILENCE if self.patience else SEARCH_SILENCE
        end, pause, attempt = time.monotonic() + self.patience, 0.1, 0
        while True:
            try:
                return work(client_of(addresses[attempt % len(addresses)], os.environ.get(KEY), silence))
            except (ApiException, QdrantException, OSError) as error:
                attempt += 1
                tried = attempt >= max(2, len(addresses)) and time.monotonic() + pause > end
                if tried or not _passes(error):
                    what = reason_of(error)
                    raise EngineError(f"the Qdrant server at {self.url} failed: {what}") from None
            time.sleep(pause)
            if attempt % len(addresses) == 0:
                pause = min(2 * pause, _LONGEST_PAUSE)


_READ = [NUMBER, "item", "payload"]


def _passes(error: Exception) -> bool:
    """Return whether a failed request may succeed when it is repeated."""
    if not isinstance(error, UnexpectedResponse):
        return True
    status = error.status_code or 500
    # A cluster whose node comes back says so of shards that it does not have yet.
    return status >= 500 or status in _LATER or b"shard" in error.content.lower()


@lru_cache(maxsize=32)
def client_of(address: str, key: str | None, silence: int) -> QdrantClient:
    """Return a client of the server at ``address``; its requests fail after ``silence`` seconds."""
    if address == IN_MEMORY:
        return client_in_memory()
    if key is not None and _is_open(address):
        warn_of_key(address)
    # The client would warn of a key by a line of its code, so the key goes as a header. The check of
    # versions would ask a server that may not answer, and only warn.
    headers = {} if key is None else {"api-key": key}
    return QdrantClient(url=address, headers=headers, timeout=silence, check_compatibility=False)


@lru_cache(maxsize=1)
def client_in_memory() -> QdrantClient:
    """Return the client that acts as the server within this process."""
    return QdrantClient(IN_MEMORY)


@lru_cache(maxsize=32)
def warn_of_key(address: str) -> None:
    """Warn once if the key is sent to this address unencrypted, where others can read it."""
    console.print(f"the key of {address} travels unencrypted: give the server's address as https://")


def _is_open(address: str) -> bool:
    """Return whether others can read what is sent to the address: plain HTTP to another machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not loopback


def _addresses(url: str) -> list[str]:
    return [address.strip() for address in url.split(",") if address.strip()] or [""]


def _check(address: str) -> None:
    if not address:
        raise EngineError(
            f"the address of the Qdrant server is missing: set {URL}, such as http://localhost:6333"
        )
    parts = urlsplit(address)
    if address != IN_MEMORY and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise EngineError(
            f"{URL} is not the address of a Qdrant server, such as http://localhost:6333, "
            "or several, separated by commas"
        )
    if parts.password or parts.username or parts.query:
        raise EngineError(f"the address of a Qdrant server is kept in a file: put its key into {KEY} instead")


def _filter(where: Condition) -> models.Filter:
    return models.Filter.model_validate({"must": [where]})


def _stored(point: models.Record | models.ScoredPoint) -> StoredPoint:
    known: dict[str, Any] = point.payload or {}
    vectors: Any = point.vector or {}
    tokens = np.array(vectors[VECTOR], dtype=np.float16).ravel() if VECTOR in vectors else None
    return StoredPoint(known[NUMBER], known["item"], known["payload"], tokens, str(point.id))
