"""Put together the parts of a running service."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from PIL import Image

from dqecir.data.images import StoredPicture, load_image
from dqecir.data.payload_fields import PRODUCT, RESERVED, SOLD_OUT
from dqecir.data.picture_root import is_address
from dqecir.errors import DataError, EngineError, UnknownItemError
from dqecir.index.contract import Index
from dqecir.index.engines import open_index
from dqecir.io.device import device_named
from dqecir.language.suggesting import Suggester
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.search.cross_encoder import reranker_named
from dqecir.search.engine import SearchEngine, reading_picture_of
from dqecir.search.opening import model_of_index
from dqecir.search.product_search import item_named
from dqecir.service.batching import Gate, Worker
from dqecir.service.configuration import ServiceSettings
from dqecir.service.edits import Edits
from dqecir.service.keys import Keys, checked_origin
from dqecir.service.listing import Listing
from dqecir.service.prometheus import Metrics
from dqecir.service.readiness import Readiness
from dqecir.service.schemas import Item, ProductItem
from dqecir.service.upload_store import UploadStore
from dqecir.service.uploads import Decoders, UploadFolder, Uploads
from dqecir.service.writing import Writer


class Service:
    """The models, indexes and threads of a service, and their limits."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Read models and open indexes; raises :class:`DataError` if one cannot be served."""
        self.settings = settings
        self.limits = settings.limits
        self.root_path = settings.root_path
        self.keys = Keys.read(settings.keys, settings.is_local)
        named = (checked_origin(origin, "--allow-origin") for origin in settings.origins)
        self.origins = self.keys.origins.union(named)
        uploads = _uploads(settings)
        self.engines = _engines(settings, uploads)
        self.first, self.main = next(iter(self.engines.items()))
        self.metrics = Metrics()
        self.worker = Worker(settings.batch, self.metrics.batches.observe)
        self.gate = Gate(settings.queue, "requests", self.limits.seconds)
        # Thumbnails are many requests, but do not need the model.
        self.thumbnails = Gate(4 * settings.queue, "pictures")
        self.decoders = Decoders(settings.decoders, settings.limits, settings.thumbnails_kept)
        indexes = [engine.index for engine in self.engines.values()]
        self.writer = Writer(indexes, uploads)
        self.readiness = Readiness(indexes)
        self.listing = Listing(self.main.index)
        self.edits = Edits(settings.checkpoint, settings.limits.edit_seconds)
        self.suggester = _suggester(self.main)
        self.metrics.watch("queue_depth", "Requests that wait or are answered", lambda: self.gate.inside)
        self.metrics.watch("items", "Items of the index", self._count)

    def _count(self) -> float:
        """Return the number of items; NaN while the index does not answer."""
        try:
            return len(self.main.index)
        except EngineError:
            return math.nan

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the threads until the block ends, and finish accepted jobs."""
        self.worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self.writer.close()
        self.worker.stop()
        self.edits.close()
        self.decoders.close()

    def entry(self, name: str) -> tuple[str, Mapping[str, Any]]:
        """Return the id and the payload of an item; raises ``UnknownItemError``.

        May wait for the index.
        ``name`` is its id, or that of the product whose first view it is.
        """
        self.main.index.refresh()
        item_id = item_named(self.main.index, name)
        found = self.main.index.payload(item_id)
        if found is None:
            raise UnknownItemError(name)
        return item_id, found

    def picture(self, item_id: str | None, image: bytes | None = None) -> Image.Image:
        """Return an uploaded picture, or else that of an item; raises ``DataError``."""
        if image is not None:
            return self.decoders.decode(image)
        with reading_picture_of(item_id):
            return load_image(self._newest_picture_of(item_id))

    async def thumbnail(self, item_id: str, size: int) -> tuple[bytes, str]:
        """Return an item's picture as a JPEG, and its tag; raises ``DataError``."""
        async with self.thumbnails.entered():
            with reading_picture_of(item_id):
                stored = await asyncio.to_thread(self._newest_picture_of, item_id)
                return await self.decoders.thumbnail(stored, size)

    def _newest_picture_of(self, item_id: str | None) -> StoredPicture:
        self.main.index.refresh()
        return self.main.picture_of(item_id)


async def service_of(request: Request) -> Service:
    """Return the service of a request.

    It is async, because other functions run in threads.
    """
    service: Service = request.app.state.service
    return service


Served = Annotated["Service", Depends(service_of)]
"""The service as a parameter of a route."""


def items_of(
    index: Index, entries: Sequence[tuple[str, Mapping[str, Any]]], root_path: str
) -> list[Item | ProductItem]:
    """Return items as responses show them under ``root_path``; may wait for the index."""
    views = index.views({payload[PRODUCT] for _, payload in entries if PRODUCT in payload})

    def shown(item_id: str, payload: Mapping[str, Any]) -> Item | ProductItem:
        plain = item_of(item_id, payload, root_path)
        if PRODUCT not in payload:
            return plain
        product = payload[PRODUCT]
        others = [view for view in views.get(product, ()) if view != item_id]
        return ProductItem(**plain.model_dump(), product=product, views=others)

    return [shown(*entry) for entry in entries]


def item_of(item_id: str, payload: Mapping[str, Any], root_path: str) -> Item:
    """Return an item as responses show it under ``root_path``."""
    attributes = {name: value for name, value in payload.items() if name not in RESERVED}
    return Item(
        id=item_id,
        attributes=attributes,
        sold_out=SOLD_OUT in payload,
        image=address_of(item_id, root_path),
    )


@lru_cache(maxsize=1 << 16)
def address_of(item_id: str, root_path: str) -> str:
    """Return the path of an item's picture in the addresses of the service, under ``root_path``."""
    return f"{root_path}/v1/images/{quote(item_id)}"


def _uploads(settings: ServiceSettings) -> Uploads:
    if isinstance(settings.uploads, str) and is_address(settings.uploads):
        return UploadStore(settings.uploads)
    return UploadFolder(settings.upload_folder)


def _engines(settings: ServiceSettings, uploads: Uploads) -> dict[str, SearchEngine]:
    device = device_named(settings.device)

    def made(model_folder: Path | None, index: Path) -> SearchEngine:
        model = model_of_index(index, model_folder).to(device)
        name = settings.reranker
        reranker = None if name is None else reranker_named(name, model)
        return SearchEngine(model, open_index(index), settings.tokens_kept, reranker, uploads.picture)

    first = made(settings.model, settings.index)
    found = {first.model.method.name: first}
    for beside in settings.also:
        engine = made(beside.model, beside.index)
        if beside.name in found:
            raise DataError(
                f"two methods have the name {beside.name!r}: give the second another name in --also"
            )
        found[beside.name] = engine
    return found


def title_of(engine: SearchEngine) -> str:
    """Return a model's name for users."""
    return f"{engine.model.method.name} ({engine.model.fingerprint})"


def _suggester(engine: SearchEngine) -> Suggester:
    """Return the suggester of texts in the model's vocabularies."""
    columns = {name: [value for value in values if value] for name, values in engine.values.items()}
    return Suggester(engine.model.vocabularies or shipped_vocabularies(columns), columns)
