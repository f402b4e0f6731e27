"""Cross-origin requests (CORS): pages of allowed origins may read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Scope

EMBEDDED = "/page/embed.js"
"""The script that pages of other origins load, for which no origin is checked."""

ALLOWED = "Access-Control-Allow-Origin"

_READ = re.compile(r"/v1/(?:about|suggestions|items|items/.+|images/.+|openapi\.json)|/page/[^/]+")
_ASKED = re.compile(r"/v1/(?:search|explanations|embeddings)")
"""Paths of POST requests that only read."""

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-API-Key",
    "Access-Control-Max-Age": "600",
}


def granted(scope: Scope, root_path: str, origins: frozenset[str]) -> Mapping[str, str]:
    """Return the headers by which a browser lets a page of another origin read the answer.

    They have no :data:`ALLOWED` for an origin that is not among ``origins``, and for a request that writes.
    Those of an OPTIONS request with :data:`ALLOWED` are the whole answer to a browser's preflight.
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
