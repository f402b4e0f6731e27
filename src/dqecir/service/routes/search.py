"""Searches, and what they are made of."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic_core import to_json

from dqecir.search.explanation import HeatMap
from dqecir.service.bodies import read_body
from dqecir.service.documented import body_of, problems
from dqecir.service.keys import may_read
from dqecir.service.problems import Problem
from dqecir.service.schemas import (
    EmbeddingRequest,
    EmbeddingResponse,
    ExplanationRequest,
    ExplanationResponse,
    SearchRequest,
    SearchResponse,
)
from dqecir.service.searcher import Found, Looked, Question, Searcher
from dqecir.service.service import Service, address_of, filter_of, service_of

router = APIRouter(dependencies=[Depends(may_read)])

Asked = TypeVar("Asked", bound=EmbeddingRequest)

_PROBLEMS = problems(400, 401, 404, 408, 413, 415, 422, 429, 503, 504)


@asynccontextmanager
async def _admitted(
    request: Request, schema: type[Asked]
) -> AsyncIterator[tuple[Asked, bytes | None, Searcher]]:
    """What a request asks, with which picture and of which model, within the limits of one that needs it."""
    service = service_of(request)
    async with service.admitted():
        body = await read_body(request, "request", service.limits)
        asked = body.parsed("request", schema)
        yield asked, body.image, service.searcher(asked.method)


@router.post(
    "/v1/search",
    response_model=SearchResponse,
    responses=_PROBLEMS,
    openapi_extra=body_of(SearchRequest, image=True),
)
async def search(request: Request) -> Response:
    """Find what shows the reference changed as the text says."""
    begun = time.perf_counter()
    service = service_of(request)
    async with _admitted(request, SearchRequest) as (asked, image, searcher):
        question = await question_of(service, asked, image)
        found = await service.worker.ask(searcher.search, question)
    request.state.said = {"k": asked.k, "text": len(asked.text), "image": len(image or b"")}
    told = as_json(found, searcher.name, 1000 * (time.perf_counter() - begun))
    return Response(to_json(told), media_type="application/json")


@router.post(
    "/v1/explanations",
    response_model=ExplanationResponse,
    responses=_PROBLEMS,
    openapi_extra=body_of(ExplanationRequest, image=True),
)
async def explanations(request: Request) -> Response:
    """Where a search looked in its reference, and in one of its answers."""
    service = service_of(request)
    async with _admitted(request, ExplanationRequest) as (asked, image, searcher):
        _check_judged(searcher, asked)
        said = await service.bounded(searcher, asked.text, asked.item)
        looked = Looked(
            reference=await service.decoded(asked.item, image),
            text=said.text,
            target=await service.decoded(asked.target, None),
            weights=asked.weights or {},
            more=tuple(asked.more),
            less=tuple(asked.less),
        )
        reference, target = await service.worker.ask(searcher.explain, looked)
    return JSONResponse({"reference": _map_as_json(reference), "target": _map_as_json(target)})


def _map_as_json(heat: HeatMap) -> dict[str, object]:
    values = [round(value, 3) for row in heat.values for value in row]
    return {"rows": heat.rows, "columns": heat.columns, "values": values}


def _check_judged(searcher: Searcher, asked: SearchRequest) -> None:
    for item_id in (*asked.more, *asked.less):
        if item_id not in searcher.index:
            raise Problem(404, f"there is no item {item_id!r} in the index of {searcher.name}")


async def question_of(service: Service, asked: SearchRequest, image: bytes | None) -> Question:
    """A request as the searcher takes it; raises a :class:`Problem` or ``DataError``."""
    searcher = service.searcher(asked.method)
    _check_judged(searcher, asked)
    said = await service.bounded(searcher, asked.text, asked.item, filter_of(asked.where))
    own = [asked.item] if asked.item is not None else []
    return Question(
        picture=await service.picture(searcher, asked.item, image),
        text=said.text,
        k=asked.k,
        where=said.where,
        bounds=said.bounds,
        weights=asked.weights or {},
        more=tuple(asked.more),
        less=tuple(asked.less),
        exclude=(*own, *asked.less, *asked.exclude),
        spoke=asked.spoke,
    )


def as_json(found: Found, method: str, took: float) -> dict[str, object]:
    """A ``SearchResponse``, made by hand, because hundreds are made a second."""
    answers = [
        {
            "id": hit.id,
            "score": round(hit.score, 5),
            "attributes": {name: value for name, value in hit.payload.items() if name != "path"},
            "image": address_of(hit.id),
            "spoke": [{"attribute": part.attribute, "share": round(part.share, 4)} for part in spoke],
        }
        for hit, spoke in zip(found.hits, found.spoke or [()] * len(found.hits), strict=True)
    ]
    return {
        "answers": answers,
        "attribute_weights": {name: round(weight, 4) for name, weight in found.used.items()},
        "own_weights": {name: round(weight, 4) for name, weight in found.own.items()},
        "asked": [{"attribute": part.attribute, "value": part.value} for part in found.asked],
        "bounds": [
            {"attribute": bound.column, "order": bound.order, "number": bound.number}
            for bound in found.bounds
        ],
        "took_ms": round(took, 1),
        "method": method,
        "generation": found.generation,
    }


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingResponse,
    responses=_PROBLEMS,
    openapi_extra=body_of(EmbeddingRequest, image=True),
)
async def embeddings(request: Request) -> Response:
    """A query as the model composes it, before anything steers it: its vectors."""
    service = service_of(request)
    async with _admitted(request, EmbeddingRequest) as (asked, image, searcher):
        picture = await service.picture(searcher, asked.item, image)
        found = await service.worker.ask(searcher.embed_queries, (picture, asked.text))
    return JSONResponse({"embeddings": found, "score_rule": searcher.model.method.score_rule})
