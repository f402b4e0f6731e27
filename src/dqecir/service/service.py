"""Assemble the parts of a service: models, indexes, threads, keys and limits."""

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
    """A running service: its engines (a model and an index each), threads, keys and limits."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Read the models and open the indexes; raises :class:`DataError` if one of them cannot be used."""
        self.settings = settings
        self.limits = settings.limits
        self.root_path = settings.root_path
        self.keys = Keys.read(settings.keys, settings.is_local)
        named = (checked_origin(origin, "--allow-origin") for origin in settings.origins)
        self.origins = self.keys.origins.union(named)
        self.uploads = _uploads(settings)
        self.engines = _engines(settings, self.uploads)
        self.first, self.main = next(iter(self.engines.items()))
        self.metrics = Metrics()
        self.worker = Worker(settings.batch, self.metrics.batches.observe)
        self.gate = Gate(settings.queue, "requests", self.limits.seconds)
        # Thumbnails have a gate of their own: there are many, and they do not need the model.
        self.thumbnails = Gate(4 * settings.queue, "pictures")
        self.decoders = Decoders(settings.decoders, settings.limits, settings.thumbnails_kept)
        indexes = [engine.index for engine in self.engines.values()]
        self.writer = Writer(indexes, self.uploads)
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
        """Start the threads, run the ``async with`` block, then finish accepted jobs and end the threads."""
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
        """Return the id and payload of an item; for the id of a product, those of its first view.

        It may wait for the index, so call it in a thread. Raises ``UnknownItemError``.
        """
        self.main.index.refresh()
        item_id = item_named(self.main.index, name)
        found = self.main.index.payload(item_id)
        if found is None:
            raise UnknownItemError(name)
        return item_id, found

    def picture(self, item_id: str | None, image: bytes | None = None) -> Image.Image:
        """Return the uploaded picture ``image`` (its bytes), or without one the picture of the item.

        Raises ``DataError`` if the picture is missing or cannot be read.
        """
        if image is not None:
            return self.decoders.decode(image)
        with reading_picture_of(item_id):
            return load_image(self._newest_picture_of(item_id))

    async def thumbnail(self, item_id: str, size: int) -> tuple[bytes, str]:
        """Return an item's picture as JPEG with a longer side of at most ``size`` pixels, and its entity tag.

        Raises ``DataError`` if the picture is missing or cannot be read, and a :class:`Problem` if too many
        thumbnails are in progress.
        """
        async with self.thumbnails.entered():
            with reading_picture_of(item_id):
                stored = await asyncio.to_thread(self._newest_picture_of, item_id)
                return await self.decoders.thumbnail(stored, size)

    def _newest_picture_of(self, item_id: str | None) -> StoredPicture:
        self.main.index.refresh()
        return self.main.picture_of(item_id)


async def service_of(request: Request) -> Service:
    """Return the service that a request is sent to (a dependency of FastAPI routes).

    The function is async only because FastAPI would otherwise run it in a thread.
    """
    service: Service = request.app.state.service
    return service


Served = Annotated["Service", Depends(service_of)]
"""Annotates the parameter of a route that receives the service."""


def items_of(
    index: Index, entries: Sequence[tuple[str, Mapping[str, Any]]], root_path: str
) -> list[Item | ProductItem]:
    """Return items as responses show them, with their products and other views; may wait for the index.

    ``entries`` are ids with payloads; ``root_path`` begins the addresses of pictures.
    """
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
    """Return an item as responses show it; ``root_path`` begins the address of its picture."""
    attributes = {name: value for name, value in payload.items() if name not in RESERVED}
    return Item(
        id=item_id,
        attributes=attributes,
        sold_out=SOLD_OUT in payload,
        image=address_of(item_id, root_path),
    )


@lru_cache(maxsize=1 << 16)
def address_of(item_id: str, root_path: str) -> str:
    """Return the address of an item's picture on the service; it begins with ``root_path``."""
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
    """Return the name of an engine's model for users: method and fingerprint."""
    return f"{engine.model.method.name} ({engine.model.fingerprint})"


def _suggester(engine: SearchEngine) -> Suggester:
    """Return a suggester of modification texts, which knows the values of the model's columns."""
    columns = {name: [value for value in values if value] for name, values in engine.values.items()}
    return Suggester(engine.model.vocabularies or shipped_vocabularies(columns), columns)
