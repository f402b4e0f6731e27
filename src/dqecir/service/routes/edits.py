"""Pictures that are made rather than found."""

from __future__ import annotations

import base64

from fastapi import APIRouter, Depends, Request

from dqecir.service.bodies import read_body
from dqecir.service.documented import body_of, problems
from dqecir.service.keys import may_read
from dqecir.service.problems import Problem
from dqecir.service.routes.search import question_of
from dqecir.service.schemas import EditRequest, EditResponse, SearchRequest
from dqecir.service.service import Service, service_of

router = APIRouter(dependencies=[Depends(may_read)])


@router.post(
    "/v1/edits",
    responses=problems(400, 401, 404, 408, 413, 415, 422, 429, 501, 503, 504),
    openapi_extra=body_of(EditRequest, image=True),
)
async def edits(request: Request) -> EditResponse:
    """The reference, or the best answer of a search, changed as the text says."""
    service = service_of(request)
    lacking = service.edits.missing
    if lacking is not None:
        raise Problem(501, lacking)
    with service.edits.gate.entered():
        body = await read_body(request, "request", service.limits)
        asked = body.parsed("request", EditRequest)
        if not asked.text.strip():
            raise Problem(422, "there is nothing to edit: say what should change")
        item, image = asked.item, body.image
        if asked.source == "best":
            item, image = await _best(service, asked, image), None
        made = await service.edits.made(await service.decoded(item, image), asked.text)
    return EditResponse(image=f"data:image/jpeg;base64,{base64.b64encode(made).decode()}")


async def _best(service: Service, asked: EditRequest, image: bytes | None) -> str:
    search = SearchRequest(item=asked.item, text=asked.text, method=asked.method, k=1, spoke=False)
    async with service.admitted():
        question = await question_of(service, search, image)
        found = await service.worker.ask(service.searcher(asked.method).search, question)
    if not found.hits:
        raise Problem(422, "nothing was found that could be edited")
    return found.hits[0].id
