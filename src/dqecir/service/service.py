"""The parts of a running service, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from PIL import Image

from dqecir.errors import DataError, ImageError
from dqecir.index.engines import open_index
from dqecir.index.filters import Filter, parse_filter
from dqecir.language.numeric_constraints import speaks_of_numbers
from dqecir.model.composed_model import ComposedModel
from dqecir.search.numeric_filters import Bounded, bounded
from dqecir.service.batching import Gate, Worker
from dqecir.service.configuration import ServiceSettings
from dqecir.service.edits import Edits
from dqecir.service.keys import Keys
from dqecir.service.listing import Listing
from dqecir.service.problems import Problem
from dqecir.service.prometheus import Metrics
from dqecir.service.schemas import Item
from dqecir.service.searcher import Picture, Searcher
from dqecir.service.uploads import Decoders, Uploads, state_of
from dqecir.service.writing import Writer
from dqecir.settings import nearest


class Service:
    """Models, indexes, threads, and what each request may use of them."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Read models and open indexes; raises :class:`DataError` for what cannot be served."""
        self.limits = settings.limits
        self.keys = Keys.read(settings.keys, settings.is_local)
        self.searchers = _searchers(settings)
        self.main = next(iter(self.searchers.values()))
        self.metrics = Metrics()
        self.worker = Worker(settings.batch, self.metrics.batch)
        self.gate = Gate(settings.queue, "requests")
        # A wall of thumbnails is many requests, and none needs the model.
        self.thumbnails = Gate(4 * settings.queue, "pictures")
        self.decoders = Decoders(settings.decoders, settings.limits, settings.thumbnails_kept)
        uploads = Uploads(settings.upload_folder)
        self.writer = Writer([searcher.index for searcher in self.searchers.values()], uploads)
        self.listing = Listing(self.main.index, self.main.newest)
        self.edits = Edits(settings.checkpoint, settings.limits.edit_seconds)
        self.suggester = self.main.suggester()
        self.metrics.watch("queue_depth", "Requests that wait or are answered", lambda: self.gate.inside)
        self.metrics.watch("items", "Items of the index", lambda: len(self.main.index))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until the block ends; what was accepted by then is finished."""
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

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """A request that needs the model: 429 where too many wait, 504 where it takes too long."""
        with self.gate.entered():
            try:
                async with asyncio.timeout(self.limits.seconds):
                    yield
            except TimeoutError:
                raise Problem(504, f"there was no answer within {self.limits.seconds:g} seconds") from None

    def searcher(self, method: str | None) -> Searcher:
        """The one of this name, the first unless named; raises a :class:`Problem`."""
        if method is None:
            return self.main
        if method not in self.searchers:
            raise Problem(422, f"there is no method {method!r}{nearest(method, self.searchers)}")
        return self.searchers[method]

    async def bounded(
        self, searcher: Searcher, text: str, item_id: str | None, where: Filter | None = None
    ) -> Bounded:
        """A text without what it says of numbers, which joins the filter."""
        if not speaks_of_numbers(text):
            return Bounded(text, where)
        index = searcher.index

        def known() -> Mapping[str, Any] | None:
            return None if item_id is None else index.payload(item_id)

        # As :meth:`payload`.
        return await asyncio.to_thread(bounded, text, index, known, where)

    async def payload(self, item_id: str) -> Mapping[str, Any]:
        """What is kept of an item; raises a :class:`Problem` where there is none."""
        # Of some engines it is asked of another process, or over a network.
        found = await asyncio.to_thread(self.main.index.payload, item_id)
        if found is None:
            raise Problem(404, f"there is no item {item_id!r}")
        return found

    async def item_path(self, item_id: str) -> Path:
        """Where the picture of an item is; raises a :class:`Problem` where the index does not say."""
        path = (await self.payload(item_id)).get("path")
        if not isinstance(path, str):
            raise Problem(404, f"of the item {item_id!r} there is no picture")
        return Path(path)

    async def picture(self, searcher: Searcher, item_id: str | None, image: bytes | None) -> Picture:
        """An item's picture or an uploaded one, as a model takes it; raises a :class:`Problem`."""
        source = await self.source(item_id, image)
        preprocessing = searcher.model.preprocessing
        with _of_item(item_id):
            state = state_of(source) if isinstance(source, Path) else None
            tokens = None if state is None else searcher.kept(state)
            if tokens is not None:
                return Picture(tokens=tokens)
            return Picture(await self.decoders.pixels(source, preprocessing), state=state)

    async def decoded(self, item_id: str | None, image: bytes | None) -> Image.Image:
        """As :meth:`picture`, for what takes pictures."""
        with _of_item(item_id):
            return await self.decoders.picture(await self.source(item_id, image))

    async def thumbnail(self, item_id: str, size: int) -> tuple[bytes, str]:
        """An item's picture as a JPEG, and its tag; raises a :class:`Problem`."""
        with self.thumbnails.entered(), _of_item(item_id):
            return await self.decoders.thumbnail(await self.item_path(item_id), size)

    async def source(self, item_id: str | None, image: bytes | None) -> Path | bytes:
        """Where a reference is read from: one of the two must be given; raises a :class:`Problem`."""
        if item_id is not None and image is None:
            return await self.item_path(item_id)
        if item_id is None and image is not None:
            return image
        raise Problem(422, "a reference is either an item of the index or an image that is uploaded")


@contextmanager
def _of_item(item_id: str | None) -> Iterator[None]:
    """A picture of the index that cannot be read is no fault of who asks."""
    try:
        yield
    except ImageError as error:
        if item_id is None:
            raise
        said = f"the picture of the item {item_id!r} cannot be read: {error.reason}"
        raise Problem(404, said) from None


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def item_of(item_id: str, payload: Mapping[str, Any]) -> Item:
    """An item as it is shown."""
    attributes = {name: value for name, value in payload.items() if name != "path"}
    return Item(id=item_id, attributes=attributes, image=address_of(item_id))


@lru_cache(maxsize=1 << 16)
def address_of(item_id: str) -> str:
    """Where the picture of an item is."""
    return f"/v1/images/{quote(item_id)}"


def filter_of(where: str | None) -> Filter | None:
    """A filter as it was written; raises ``FilterError``."""
    return parse_filter(where) if where is not None and where.strip() else None


def _searchers(settings: ServiceSettings) -> dict[str, Searcher]:
    def made(name: str | None, model_folder: Path | None, index: Path) -> Searcher:
        model = ComposedModel.from_pretrained(model_folder)
        return Searcher(
            name or model.method.name, model, open_index(index), settings.tokens_kept, settings.refresh
        )

    found: dict[str, Searcher] = {}
    for searcher in (
        made(None, settings.model, settings.index),
        *(made(beside.name, beside.model, beside.index) for beside in settings.also),
    ):
        if searcher.name in found:
            raise DataError(
                f"two methods have the name {searcher.name!r}: name the second otherwise in --also"
            )
        found[searcher.name] = searcher
    return found
