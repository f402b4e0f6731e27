"""What happens around every request: headers, a log line, metrics, and the response to unexpected errors."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
import uuid
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dqecir.service.cross_origin import ALLOWED, granted
from dqecir.service.problems import Problem, answer, log
from dqecir.service.prometheus import Metrics

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON: time, level, event, and the fields of ``extra["fields"]``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = _without_words(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True)


def _without_words(error: BaseException | None) -> list[str]:
    """Return the types of an error and of its causes, and the places where they were raised.

    The messages are left out, because they may contain a user's text, which is never logged.
    """
    said: list[str] = []
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        said += [type(error).__name__, *(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)]
        error = error.__cause__ or error.__context__
    return said


def log_to_standard_error() -> None:
    """Write all logs of the service and of uvicorn to standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("dqecir.service", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)


class Middleware:
    """Adds headers, a log line and metrics to each request; answers unexpected errors with status 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics, root_path: str, origins: frozenset[str]) -> None:
        self._app, self._metrics, self._root_path, self._origins = app, metrics, root_path, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        is_head = scope["method"] == "HEAD"
        headers_granted = granted(scope, self._root_path, self._origins)
        # Answer HEAD like GET, without the body.
        answered = {**scope, "method": "GET" if is_head else scope["method"], "root_path": self._root_path}

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, **headers_granted}.items():
                    if name == "Vary":
                        headers.add_vary_header(value)
                    else:
                        headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            if scope["method"] == "OPTIONS" and ALLOWED in headers_granted:
                await Response(status_code=204)(scope, receive, framed)
            else:
                await self._app(answered, receive, framed)
        except Exception:  # An unexpected error: log it, and send the client only a number.
            number = uuid.uuid4().hex[:12]
            log.exception("failed", extra={"fields": {"number": number}})
            if status == 0:
                problem = Problem(500, f"the service failed; its log has the reason under {number}")
                await answer(problem)(scope, receive, framed)
        finally:
            self._say({**answered, "method": scope["method"]}, status, time.perf_counter() - begun)

    def _say(self, scope: Scope, status: int, seconds: float) -> None:
        # Label metrics with the route's pattern: addresses contain ids, so there would be too many labels.
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        fields = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            **scope.get("state", {}).get("said", {}),
        }
        log.info("request", extra={"fields": fields})
