"""Cross-origin requests (CORS): let pages of allowed origins read from the service."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Scope

EMBEDDED = "/page/embed.js"
"""Address of the script that pages of other origins load; every origin may load it."""

ALLOWED = "Access-Control-Allow-Origin"

_READ = re.compile(r"/v1/(?:about|suggestions|items|items/.+|images/.+|openapi\.json)|/page/[^/]+")
_ASKED = re.compile(r"/v1/(?:search|explanations|embeddings)")
"""Paths of POST requests that change nothing."""

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-API-Key",
    "Access-Control-Max-Age": "600",
}


def granted(scope: Scope, root_path: str, origins: frozenset[str]) -> Mapping[str, str]:
    """Return the response headers that let a browser give the response to a page of another origin.

    The headers include :data:`ALLOWED` only if the request's origin is in ``origins`` and the request changes
    nothing. An OPTIONS request for which they include it is answered with these headers alone (a browser's
    preflight). ``scope`` is ASGI's of the request; ``root_path`` begins its path.
    """
    headers = Headers(scope=scope)
    path = scope["path"].removeprefix(root_path)
    found = {"Vary": "Origin"} if origins else {}
    if path == EMBEDDED:
        found |= {"Cross-Origin-Resource-Policy": "cross-origin"}
    asks_first = scope["method"] == "OPTIONS"
    method = headers.get("access-control-request-method", "") if asks_first else scope["method"]
    allowed = {"GET": _READ, "HEAD": _READ, "POST": _ASKED}.get(method)
    origin = headers.get("origin", "")
    if allowed is None or not allowed.fullmatch(path) or origin not in origins:
        return found
    found |= {ALLOWED: origin, "Access-Control-Expose-Headers": "Retry-After"}
    return {**found, **_PREFLIGHT} if asks_first else found
