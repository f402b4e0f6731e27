"""Errors as problem details (RFC 9457): one clear sentence and a status."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from dqecir.errors import DataError, EngineError, ImageError, ItemPictureError, UnknownItemError

log = logging.getLogger("dqecir.service")

_SHOWN = 300


class Problem(Exception):  # noqa: N818  (as RFC 9457 calls it)
    """An error response: HTTP ``status``, ``detail`` (one sentence for the client), and extra headers."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def overloaded(detail: str) -> Problem:
    """Return a problem with status 429 that tells the client to try again after a second."""
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": "1"})


def invalid(error: ValidationError | RequestValidationError, name: str = "") -> Problem:
    """Turn an error of a schema into a problem with status 422.

    The sentence begins with ``name`` and the place of the mistake in the input.
    """
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"] if part not in ("query", "path", "body")]
    if parts[-1:] == ["[key]"]:
        parts[-2:] = [f"the name {parts[-2]!r}"]
    place = ".".join([name, *parts] if name else parts)
    said = str(first["msg"]).removeprefix("Value error, ")
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{place}: {said}" if place else said)


def unusable(error: DataError) -> Problem:
    """Turn an error of the package into a problem with status 422.

    The sentence about a picture leaves out its file name.
    """
    said = f"the picture cannot be used: {error.reason}" if isinstance(error, ImageError) else str(error)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, said)


def of_index(error: Exception) -> Problem:
    """Log an error of an index, and return a problem with status 503 that does not blame the client."""
    # The error's message is about this machine, so do not send it.
    log.error("index failed", extra={"fields": {"reason": str(error)}})
    said = "the index cannot be read or changed now; the service's log has the reason"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, said, {"Retry-After": "5"})


def answer(problem: Problem) -> Response:
    """Return the HTTP response for a problem."""
    detail = " ".join(problem.detail.split())
    if len(detail) > _SHOWN:
        # The reason is at the end, after the input.
        detail = f"{detail[: _SHOWN // 2]} … {detail[-_SHOWN // 2 :]}"
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": detail,
    }
    return JSONResponse(body, problem.status, problem.headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Make ``app`` answer every expected error as a problem; the middleware answers unexpected ones."""

    async def answered(problem_of: Callable[[Any], Problem], request: Request, error: Exception) -> Response:
        return answer(problem_of(error))

    for kind, problem_of in _PROBLEMS.items():
        app.add_exception_handler(kind, partial(answered, problem_of))


def _missing(error: DataError) -> Problem:
    return Problem(404, str(error))


def _of_http(error: HTTPException) -> Problem:
    sentence = _SENTENCES.get(error.status_code, str(error.detail))
    return Problem(error.status_code, sentence, error.headers)


_SENTENCES = {
    404: "this address does not exist",
    405: "this address does not support this method",
}

_PROBLEMS: Mapping[type[Exception], Callable[[Any], Problem]] = {
    Problem: lambda problem: problem,
    DataError: unusable,
    EngineError: of_index,
    UnknownItemError: _missing,
    ItemPictureError: _missing,
    HTTPException: _of_http,
    RequestValidationError: invalid,
}
