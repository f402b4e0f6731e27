"""Errors as problem details (RFC 9457): one clear sentence, and the status that says whose turn it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from dqecir.errors import DataError, EngineError, ImageError, ItemPictureError, UnknownItemError

log = logging.getLogger("dqecir.service")

_SHOWN = 300


class Problem(Exception):  # noqa: N818  (as RFC 9457 calls it)
    """A request that is not answered: ``status``, one sentence, and headers that belong to it."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def overloaded(detail: str) -> Problem:
    """Return the refusal of a request that may be sent again after a second."""
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": "1"})


def invalid(error: ValidationError | RequestValidationError, name: str = "") -> Problem:
    """What a schema refused, as a sentence that begins with the ``name`` of the whole and the place in it."""
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"] if part not in ("query", "path", "body")]
    place = ".".join([name, *parts] if name else parts)
    said = str(first["msg"]).removeprefix("Value error, ")
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{place}: {said}" if place else said)


def unusable(error: DataError) -> Problem:
    """What the package refused; of a picture, without the name of a file."""
    said = f"the picture cannot be used: {error.reason}" if isinstance(error, ImageError) else str(error)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, said)


def of_index(error: Exception) -> Problem:
    """An index that cannot be read or changed, which is no fault of who asks."""
    # Its words are about this machine.
    log.error("index failed", extra={"fields": {"reason": str(error)}})
    said = "the index cannot be read or changed now; the service's log says why"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, said, {"Retry-After": "5"})


def answer(problem: Problem) -> Response:
    """The response of a problem."""
    detail = " ".join(problem.detail.split())
    if len(detail) > _SHOWN:
        # What was wrong is said at the end, after what was given.
        detail = f"{detail[: _SHOWN // 2]} … {detail[-_SHOWN // 2 :]}"
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": detail,
    }
    return JSONResponse(body, problem.status, problem.headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` as a problem; what nobody foresaw is left to the frame around it."""

    async def from_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return answer(error)

    async def from_data(request: Request, error: Exception) -> Response:
        assert isinstance(error, DataError)
        return answer(unusable(error))

    async def from_missing(request: Request, error: Exception) -> Response:
        return answer(Problem(404, str(error)))

    async def from_index(request: Request, error: Exception) -> Response:
        return answer(of_index(error))

    async def from_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(
            Problem(error.status_code, _SENTENCES.get(error.status_code, str(error.detail)), error.headers)
        )

    async def from_schema(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(invalid(error))

    app.add_exception_handler(Problem, from_problem)
    app.add_exception_handler(DataError, from_data)
    app.add_exception_handler(EngineError, from_index)
    app.add_exception_handler(UnknownItemError, from_missing)
    app.add_exception_handler(ItemPictureError, from_missing)
    app.add_exception_handler(HTTPException, from_http)
    app.add_exception_handler(RequestValidationError, from_schema)


_SENTENCES = {
    404: "there is nothing at this address",
    405: "this address is not asked in this way",
}
