"""Routes of the page and its files, which are read at the start."""

from __future__ import annotations

import mimetypes
from hashlib import sha256
from importlib import resources

from fastapi import APIRouter, Request, Response

from dqecir.service.problems import Problem

router = APIRouter(include_in_schema=False)

_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}


def page_files() -> dict[str, tuple[bytes, str, str]]:
    """Return name -> (content, media type, tag) of every file of the page."""
    found = {}
    for file in (resources.files("dqecir.service") / "page").iterdir():
        if file.is_file():
            suffix = f".{file.name.rpartition('.')[2]}"
            kind = _KINDS.get(suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            data = file.read_bytes()
            found[file.name] = data, kind, f'"{sha256(data).hexdigest()[:16]}"'
    return found


@router.get("/")
async def page(request: Request) -> Response:
    """Return the page."""
    return await page_file("index.html", request)


@router.get("/page/{name}")
async def page_file(name: str, request: Request) -> Response:
    """Return a file of the page; browsers cache it, and check whether it has changed."""
    files = request.app.state.page
    if name not in files:
        raise Problem(404, "the page has no such file")
    data, kind, tag = files[name]
    return tagged(request, data, kind, tag, "no-cache")


def tagged(request: Request, data: bytes, kind: str, tag: str, cached: str) -> Response:
    """Return a response, or status 304 for a browser that has this tag's content."""
    headers = {"ETag": tag, "Cache-Control": cached}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)
