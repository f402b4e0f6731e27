"""Routes that list, show, add and delete items."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.convertors import PathConvertor, register_url_convertor
from torch import Tensor

from dqecir.data.availability import marked
from dqecir.index.filters import filter_from
from dqecir.model.compose import Reference
from dqecir.search.engine import SearchEngine
from dqecir.service.bodies import Body, attributes_of, parsed, read_body
from dqecir.service.documented import FORM_OF_ITEM, body_of, problems
from dqecir.service.keys import may_read, may_read_pictures, may_write
from dqecir.service.problems import Problem
from dqecir.service.routes.page import tagged
from dqecir.service.schemas import (
    LARGEST_THUMBNAIL,
    MOST_LISTED,
    MOST_TEXT,
    DeleteBody,
    Deleted,
    FilterConditions,
    Id,
    Item,
    Items,
    ProductItem,
)
from dqecir.service.service import Served, Service, item_of, items_of
from dqecir.service.writing import Put


class IdConvertor(PathConvertor):
    """Matches the rest of an address as an id, including line breaks, so that a bad id gets a clear error."""

    regex = "(?s:.*)"


register_url_convertor("id", IdConvertor())
router = APIRouter()

ItemId = Annotated[Id, Path(description="An item's id, which may have slashes.")]


@router.get("/v1/items", dependencies=[Depends(may_read)], responses=problems(401, 422))
async def items(
    service: Served,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 60,
    after: Annotated[str | None, Query(max_length=512)] = None,
    where: Annotated[str | None, Query(max_length=MOST_TEXT)] = None,
    filters: Annotated[str, Query(max_length=8_000, description="JSON: conditions as of a search.")] = "[]",
    seed: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> Items:
    """List items by pages, in the order of adding or shuffled by `seed`."""
    conditions = parsed(filters, FilterConditions, "filters")
    found, last = await asyncio.to_thread(
        service.listing.page, limit, after, filter_from(where, conditions.model_dump()), seed
    )
    shown = await asyncio.to_thread(items_of, service.main.index, found, service.root_path)
    return Items(items=shown, next=last)


@router.get(
    "/v1/images/{item_id:id}",
    dependencies=[Depends(may_read_pictures)],
    responses=problems(401, 404, 422, 429),
)
async def image(
    request: Request,
    service: Served,
    item_id: ItemId,
    size: Annotated[int, Query(ge=16, le=LARGEST_THUMBNAIL)] = 320,
) -> Response:
    """Return the picture of an item as a JPEG whose longer side is `size` pixels at most."""
    data, tag = await service.thumbnail(item_id, size)
    return tagged(request, data, "image/jpeg", tag, "private, max-age=300")


@router.get("/v1/items/{item_id:id}", dependencies=[Depends(may_read)], responses=problems(401, 404, 422))
async def item(service: Served, item_id: ItemId) -> ProductItem | Item:
    """Return an item, or the first view of a product, with its attributes."""

    def shown() -> ProductItem | Item:
        return items_of(service.main.index, [service.entry(item_id)], service.root_path)[0]

    return await asyncio.to_thread(shown)


@router.put(
    "/v1/items/{item_id:id}",
    dependencies=[Depends(may_write)],
    responses={201: {"model": Item}, **problems(400, 401, 403, 408, 413, 415, 422, 429, 503, 504)},
    openapi_extra=FORM_OF_ITEM,
)
async def put_item(request: Request, service: Served, item_id: ItemId) -> Response:
    """Add or replace an item; it can be found after the response.

    Under the id of a product, it replaces all pictures of the product.
    """
    if any(not character.isprintable() for character in item_id):
        raise Problem(422, "an id may only contain visible characters: remove all others")
    if "\ufffd" in item_id:
        raise Problem(422, "the id in the address is not UTF-8: encode it as UTF-8, then percent-encode it")
    if not {"", ".", ".."}.isdisjoint(item_id.split("/")):
        raise Problem(
            422,
            "an id may not contain //, . or .. as parts, because browsers and proxies remove them: use "
            "another id",
        )
    async with service.gate.entered():
        body = await read_body(request, "attributes", service.limits)
        put = await _encoded(service, item_id, body)
        was_there = await service.writer.change(put)
    return JSONResponse(
        item_of(item_id, put.attributes, service.root_path).model_dump(), 200 if was_there else 201
    )


def _reference(service: Service, engine: SearchEngine, image: bytes) -> Reference:
    return engine.composer.reference(service.decoders.decode(image))


async def _encoded(service: Service, item_id: str, body: Body) -> Put:
    if not body.images:
        raise Problem(422, "the form has no image: send one as the field image")
    [image] = body.images
    attributes = {} if body.text is None else attributes_of(body.text)
    tokens: list[Tensor] = []
    for engine in service.engines.values():
        reference = await service.decoders.run(partial(_reference, service, engine, image))
        tokens.append(await service.worker.ask(engine.composer.target_embeddings, reference))
    return Put(item_id, tokens, marked(attributes), image)


@router.delete(
    "/v1/items/{item_id:id}",
    dependencies=[Depends(may_write)],
    status_code=204,
    responses=problems(401, 403, 404, 422, 503),
)
async def delete_item(service: Served, item_id: ItemId) -> Response:
    """Delete an item, or a product with all its pictures; it is not found after the response."""
    if not await service.writer.change([item_id]):
        raise Problem(404, f"there is no item {item_id!r}: check its id")
    return Response(status_code=204)


@router.post(
    "/v1/items:delete",
    dependencies=[Depends(may_write)],
    responses=problems(400, 401, 403, 408, 413, 415, 422, 503),
    openapi_extra=body_of(DeleteBody),
)
async def delete_items(request: Request, service: Served) -> Deleted:
    """Delete items, or all items of products, by ids, and return their number."""
    body = await read_body(request, "request", service.limits)
    asked = parsed(body.text or "", DeleteBody)
    return Deleted(deleted=await service.writer.change(asked.ids))
