"""Routes that describe the service and its state."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from dqecir.index.payload_columns import values_in
from dqecir.search.steering import HEAVIEST
from dqecir.service.documented import problems
from dqecir.service.keys import may_read, may_read_inside
from dqecir.service.problems import Problem
from dqecir.service.schemas import (
    MOST_ANSWERS,
    MOST_REFERENCES,
    MOST_TEXT,
    About,
    KeyFacts,
    LimitFacts,
    MethodFacts,
    ProductAbout,
    Suggestions,
)
from dqecir.service.service import Served, Service, title_of

router = APIRouter()


@router.get("/v1/about", dependencies=[Depends(may_read)])
async def about(service: Served) -> ProductAbout | About:
    """Describe the items, methods and attributes that can be searched."""
    return await asyncio.to_thread(_facts, service)


def _facts(service: Service) -> ProductAbout | About:
    service.main.index.refresh()
    items = len(service.main.index)
    products = service.listing.count_products()
    found = About(
        version=version("dqecir"),
        items=items if products is None else products,
        model=title_of(service.main),
        methods=[MethodFacts(name=name, title=title_of(one)) for name, one in service.engines.items()],
        attributes=service.listing.attributes(),
        weights=service.main.weighted,
        has_sold_out=service.main.has_sold_out,
        expert=service.settings.expert,
        link_target=service.settings.link_target,
        can_edit=service.edits.missing is None,
        edit_note=service.edits.missing or "",
        can_write=service.keys.can_write,
        key_needed=KeyFacts(**service.keys.needed),
        limits=LimitFacts(
            bytes=service.limits.bytes,
            pixels=service.limits.pixels,
            k=MOST_ANSWERS,
            text=MOST_TEXT,
            weight=HEAVIEST,
            references=MOST_REFERENCES,
        ),
    )
    if products is None:
        return found
    return ProductAbout(**found.model_dump(), pictures=items)


@router.get("/v1/suggestions", dependencies=[Depends(may_read)], responses=problems(401, 404, 422))
async def suggestions(
    service: Served,
    text: Annotated[str, Query(max_length=MOST_TEXT)] = "",
    item: Annotated[str | None, Query(max_length=512)] = None,
    limit: Annotated[int, Query(ge=1, le=50)] = 8,
) -> Suggestions:
    """Complete the typed text with requests for values that the item does not show."""

    def suggested() -> list[str]:
        payload = {} if item is None else service.entry(item)[1]
        shown = {name: values_in(value) for name, value in payload.items()}
        # If the item has several values, any of them may be suggested.
        single = {name: str(values[0]) for name, values in shown.items() if len(values) == 1}
        return service.suggester.suggest(text, single, limit)

    return Suggestions(suggestions=await asyncio.to_thread(suggested))


@router.get("/healthz")
async def healthz() -> JSONResponse:
    """Answer as long as the process lives."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz")
async def readyz(service: Served) -> JSONResponse:
    """Return status 200 while the model and the index answer, else 503."""
    if not service.worker.alive:
        raise Problem(
            503,
            "the model does not answer: try again in a few seconds, or restart the service",
            {"Retry-After": "5"},
        )
    await service.readiness.check()
    return JSONResponse({"status": "ready"})


@router.get("/metrics", dependencies=[Depends(may_read_inside)])
async def metrics(service: Served) -> Response:
    """Return the metrics for Prometheus."""
    text = await asyncio.to_thread(service.metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
