"""Routes that edit pictures."""

from __future__ import annotations

import base64

from fastapi import APIRouter, Depends, Request

from dqecir.service.bodies import NOT_ONE_REFERENCE, read_request
from dqecir.service.documented import body_of, problems
from dqecir.service.keys import may_read_inside
from dqecir.service.problems import Problem
from dqecir.service.routes.search import answered
from dqecir.service.schemas import EditBody, EditReply, SearchBody
from dqecir.service.service import Served, Service

router = APIRouter(dependencies=[Depends(may_read_inside)])


@router.post(
    "/v1/edits",
    responses=problems(400, 401, 404, 408, 413, 415, 422, 429, 501, 503, 504),
    openapi_extra=body_of(EditBody, image=True),
)
async def edits(request: Request, service: Served) -> EditReply:
    """Edit the reference, or the best result of a search, by the text."""
    lacking = service.edits.missing
    if lacking is not None:
        raise Problem(501, lacking)
    async with service.edits.gate.entered():
        asked, images = await read_request(request, EditBody, service.limits)
        if (asked.item is not None) + len(images) != 1:
            raise Problem(422, NOT_ONE_REFERENCE)
        if not asked.text.strip():
            raise Problem(422, "there is nothing to edit: say what should change")
        item = asked.item
        if asked.source == "best":
            item, images = await _best(service, asked, images), ()
        picture = await service.decoders.run(lambda: service.picture(item, *images))
        made = await service.edits.made(picture, asked.text)
    return EditReply(image=f"data:image/jpeg;base64,{base64.b64encode(made).decode()}")


async def _best(service: Service, asked: EditBody, images: tuple[bytes, ...]) -> str:
    search = SearchBody(item=asked.item, text=asked.text, method=asked.method, k=1, spoke=False)
    async with service.gate.entered():
        found = await answered(service, search, images)
    if not found.results:
        raise Problem(
            422, "the search has no result to edit: change the text or the filters, or edit the reference"
        )
    return found.results[0].id
