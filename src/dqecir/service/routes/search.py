"""Routes of searches, explanations and query vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from PIL.Image import Image
from pydantic_core import to_json

from dqecir.index.filters import conjuncts, filter_from
from dqecir.search.engine import SearchEngine
from dqecir.search.explanation import HeatMap
from dqecir.search.response import SearchResponse
from dqecir.search.search_request import PreparedRequest, SearchRequest, WeightedReference
from dqecir.service.bodies import NOT_ONE_REFERENCE, read_request
from dqecir.service.documented import body_of, problems
from dqecir.service.keys import may_read
from dqecir.service.problems import Problem
from dqecir.service.schemas import EmbeddingReply, ExplanationBody, ExplanationReply, SearchBody, SearchReply
from dqecir.service.service import Served, Service, address_of
from dqecir.settings import nearest

router = APIRouter(dependencies=[Depends(may_read)])

_PROBLEMS = problems(400, 401, 404, 408, 413, 415, 422, 429, 503, 504)


@router.post(
    "/v1/search",
    response_model=SearchReply,
    responses=_PROBLEMS,
    openapi_extra=body_of(SearchBody, image=True),
)
async def search(request: Request, service: Served) -> Response:
    """Find items like the reference changed by the text."""
    begun = time.perf_counter()
    async with service.gate.entered():
        asked, images = await read_request(request, SearchBody, service.limits)
        found = await answered(service, asked, images)
    request.state.said = {"k": asked.k, "text": len(asked.text), "image": sum(map(len, images))}
    reply = as_reply(
        found, asked.method or service.first, 1000 * (time.perf_counter() - begun), service.root_path
    )
    return Response(to_json(reply), media_type="application/json")


async def answered(service: Service, asked: SearchBody, images: Sequence[bytes]) -> SearchResponse:
    """Search with the request ``asked`` and its uploaded pictures.

    Raises a :class:`Problem` or ``DataError``.
    """
    engine = _engine(service, asked)
    prepared = await service.decoders.run(lambda: _prepared(service, engine, asked, images))
    return await service.worker.ask(engine.answer, prepared)


def _engine(service: Service, asked: SearchBody) -> SearchEngine:
    """Return the engine that a request's ``method`` names; raises a :class:`Problem` for an unknown one."""
    name = service.first if asked.method is None else asked.method
    if name not in service.engines:
        raise Problem(422, f"there is no method {name!r}{nearest(name, service.engines)}")
    return service.engines[name]


def _prepared(
    service: Service, engine: SearchEngine, asked: SearchBody, images: Sequence[bytes]
) -> PreparedRequest:
    """Read a request for its engine; call this in a thread that may wait.

    Raises a :class:`Problem` with status 422 if ``images`` are more or fewer pictures than the request names.
    """
    further = sum(one.item is None for one in asked.references)
    own = len(images) - further
    if own < 0:
        raise Problem(
            422, f"{further} references are images, but {len(images)} were uploaded: send one for each"
        )
    given = (asked.item is not None) + own
    if given > 1 or (given == 0 and not asked.stands_alone):
        raise Problem(422, NOT_ONE_REFERENCE)
    pictures = map(service.decoders.decode, images)
    return engine.prepare(
        SearchRequest(
            next(pictures) if own else None,
            asked.text,
            asked.k,
            item=asked.item,
            where=filter_from(asked.where, asked.filters.model_dump()),
            weights=asked.weights or {},
            more=tuple(asked.more),
            less=tuple(asked.less),
            exclude=tuple(asked.exclude),
            explain=asked.spoke,
            sold_out=asked.sold_out,
            strictness=asked.strictness,
            earlier=tuple(asked.earlier),
            rerank=asked.rerank,
            references=tuple(
                WeightedReference(next(pictures) if one.item is None else None, one.item, one.weight)
                for one in asked.references
            ),
        )
    )


def as_reply(found: SearchResponse, method: str, took: float, root_path: str) -> dict[str, object]:
    """Return the JSON of a search response without validating it, because that would be slow.

    ``took`` is in milliseconds; ``root_path`` begins the addresses of pictures. ``method`` is the name of the
    method that searched.
    """
    reply = found.as_json(paths=False)
    for answer in reply["answers"]:
        answer["image"] = address_of(answer["id"], root_path)
    return {**reply, "took_ms": round(took, 1), "method": method}


@router.post(
    "/v1/explanations",
    response_model=ExplanationReply,
    responses=_PROBLEMS,
    openapi_extra=body_of(ExplanationBody, image=True),
)
async def explanations(request: Request, service: Served) -> Response:
    """Return heat maps of a search for its first reference and one of its results."""
    async with service.gate.entered():
        asked, images = await read_request(request, ExplanationBody, service.limits)
        engine = _engine(service, asked)

        def read() -> tuple[PreparedRequest, Image, Image]:
            prepared = _prepared(service, engine, asked, images)
            first = prepared.request.all_references[0]
            reference = first.image if isinstance(first.image, Image) else service.picture(first.item)
            return prepared, reference, service.picture(asked.target)

        reference, target = await service.worker.ask(engine.explain, await service.decoders.run(read))
    return JSONResponse({"reference": _map_as_json(reference), "target": _map_as_json(target)})


def _map_as_json(heat: HeatMap) -> dict[str, object]:
    values = [round(value, 3) for row in heat.values for value in row]
    return {"rows": heat.rows, "columns": heat.columns, "values": values}


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingReply,
    responses=_PROBLEMS,
    openapi_extra=body_of(SearchBody, image=True),
)
async def embeddings(request: Request, service: Served) -> Response:
    """Return the query vectors of a search: composed, boosted and steered."""
    async with service.gate.entered():
        asked, images = await read_request(request, SearchBody, service.limits)
        engine = _engine(service, asked)
        prepared = await service.decoders.run(lambda: _prepared(service, engine, asked, images))
        found = await service.worker.ask(engine.query_vectors, prepared)
    return JSONResponse(
        {
            "embeddings": found.vectors.tolist(),
            "score_rule": engine.index.header.score_rule,
            "model": engine.model.fingerprint,
            "target": engine.index.header.model,
            "filters": [str(one) for one in conjuncts(prepared.allowed)],
            "exclude": prepared.exclude,
            "prefers": found.prefers,
        }
    )
