"""Serve the page: its HTML and the other files of one folder, which are read once at the start."""

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
    """A file of the page: its bytes, the same bytes in gzip, and its MIME type."""

    data: bytes
    packed: bytes
    """``data`` compressed with gzip."""
    kind: str
    """MIME type, such as ``text/css``."""


def page_files() -> dict[str, PageFile]:
    """Read every file of the page: file name -> contents."""
    found = {}
    for file in (resources.files("dqecir.service") / "page").iterdir():
        if file.is_file():
            suffix = f".{file.name.rpartition('.')[2]}"
            kind = _KINDS.get(suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            data = file.read_bytes()
            # Leave the time out of the gzip header, so that all processes send the same bytes.
            found[file.name] = PageFile(data, gzip.compress(data, mtime=0), kind)
    return found


@router.get("/")
async def page(request: Request) -> Response:
    """Return the HTML of the page."""
    return await page_file("index.html", request)


@router.get("/page/{name}")
async def page_file(name: str, request: Request) -> Response:
    """Return a file of the page; browsers may cache it, but must ask whether it has changed."""
    files: Mapping[str, PageFile] = request.app.state.page
    if name not in files:
        raise Problem(404, "the page has no such file: check the address")
    data, packed, kind = files[name]
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        data = packed
        headers["Content-Encoding"] = "gzip"
    return tagged(request, data, kind, f'"{sha256(data).hexdigest()[:16]}"', "no-cache", headers)


def tagged(
    request: Request, data: bytes, kind: str, tag: str, cached: str, further: Mapping[str, str] | None = None
) -> Response:
    """Return ``data`` with the entity tag ``tag``, or status 304 if the browser already has that version.

    ``kind`` is the MIME type, ``cached`` the ``Cache-Control`` header, ``further`` are other headers.
    """
    headers = {"ETag": tag, "Cache-Control": cached, **(further or {})}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)
