"""The page and its files: those of one folder, known by name from the start."""

from __future__ import annotations

import gzip
import mimetypes
from collections.abc import Mapping
from hashlib import sha256
from importlib import resources
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from dqecir.service.problems import Problem

router = APIRouter(include_in_schema=False)

_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}


class PageFile(NamedTuple):
    """A file of the page, as it is sent."""

    data: bytes
    packed: bytes
    """The same in gzip."""
    kind: str
    """Its MIME type."""


def page_files() -> dict[str, PageFile]:
    """Return every file of the page by its name."""
    found = {}
    for file in (resources.files("dqecir.service") / "page").iterdir():
        if file.is_file():
            suffix = f".{file.name.rpartition('.')[2]}"
            kind = _KINDS.get(suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            data = file.read_bytes()
            # Without the time, so that all processes send the same.
            found[file.name] = PageFile(data, gzip.compress(data, mtime=0), kind)
    return found


@router.get("/")
async def page(request: Request) -> Response:
    """Return the page."""
    return await page_file("index.html", request)


@router.get("/page/{name}")
async def page_file(name: str, request: Request) -> Response:
    """Return a file of the page; browsers cache it, and check whether it has changed."""
    files: Mapping[str, PageFile] = request.app.state.page
    if name not in files:
        raise Problem(404, "the page has no such file")
    data, packed, kind = files[name]
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        data = packed
        headers["Content-Encoding"] = "gzip"
    return tagged(request, data, kind, f'"{sha256(data).hexdigest()[:16]}"', "no-cache", headers)


def tagged(
    request: Request, data: bytes, kind: str, tag: str, cached: str, further: Mapping[str, str] | None = None
) -> Response:
    """Return a response, or status 304 for a browser that has this tag's content."""
    headers = {"ETag": tag, "Cache-Control": cached, **(further or {})}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)
