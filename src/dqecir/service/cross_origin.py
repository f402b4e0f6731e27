"""Cross-origin requests (CORS): pages of allowed origins may read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

EMBEDDED = "/page/embed.js"
"""The script that pages of other origins load, for which no origin is checked."""

ALLOWED = "Access-Control-Allow-Origin"

_READ = re.compile(r"/v1/(?:about|suggestions|items|items/.+|images/.+|openapi\.json)|/page/[^/]+")
_ASKED = re.compile(r"/v1/(?:search|explanations|embeddings)")
"""Paths of POST requests that only read."""


def is_preflight(scope: Scope) -> bool:
    """Return whether a request is a browser's CORS preflight."""
    return scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope)


def granted(scope: Scope, root_path: str, origins: frozenset[str]) -> Mapping[str, str]:
    """Return the headers by which a browser lets a page of another origin read the answer.

    Empty for an origin that is not among ``origins``, and for a request that writes.
    """
    headers = Headers(scope=scope)
    path = scope["path"].removeprefix(root_path)
    found = {"Vary": "Origin"} if origins else {}
    if path == EMBEDDED:
        found |= {"Cross-Origin-Resource-Policy": "cross-origin"}
    method = headers.get("access-control-request-method") if is_preflight(scope) else scope["method"]
    allowed = {"GET": _READ, "HEAD": _READ, "POST": _ASKED}.get(str(method))
    origin = headers.get("origin", "")
    if allowed is None or not allowed.fullmatch(path) or origin not in origins:
        return found
    return {**found, ALLOWED: origin, "Access-Control-Expose-Headers": "Retry-After"}


def preflight() -> Response:
    """Return the answer to a preflight whose page may read."""
    headers = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, X-API-Key",
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=headers)
