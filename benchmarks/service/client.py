"""A client that sends HTTP as bytes, so that it needs little of the measured machine."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

_BOUNDARY = "a3f1c4b2d5e6"


def json_of(method: str, path: str, value: Any) -> bytes:
    """Return a request with a JSON body, or without a body for ``None``."""
    body = b"" if value is None else json.dumps(value).encode()
    return _request(method, path, "application/json", body)


def form_of(method: str, path: str, name: str, value: Any, image: bytes) -> bytes:
    """Return a request with a form of JSON and a picture."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{json.dumps(value)}\r\n'
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    )
    body = head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return _request(method, path, f"multipart/form-data; boundary={_BOUNDARY}", body)


def _request(method: str, path: str, kind: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


class Client:
    """A connection that stays open."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return status and body."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        body = await self._reader.readexactly(int(length)) if length else b""
        return int(head[9:12]), body
