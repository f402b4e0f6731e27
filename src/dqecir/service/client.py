"""Send searches to a running service, as ``dqecir search --server`` does."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from dqecir.errors import DataError

SECONDS = 60.0
"""Most seconds to wait for the service's answer."""


def search_on(
    server: str, request: Mapping[str, Any], images: Sequence[bytes], key: str | None
) -> dict[str, Any]:
    """Send a search to a service; return the JSON of its response.

    ``server`` is the address of the service. ``request`` is the JSON of ``POST /v1/search``, ``images`` are
    the bytes of the pictures that it refers to. ``key`` is a key of the service, if it needs one. Raises
    :class:`DataError` if the service cannot be reached, or with its message if it rejects the search.
    """
    if urlsplit(server).scheme not in ("http", "https"):
        raise DataError(f"{server} is not the address of a service: write it like http://127.0.0.1:8000")
    boundary = uuid.uuid4().hex
    parts = [("request", "application/json", json.dumps(request).encode())]
    parts += [("image", "image/*", image) for image in images]
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, kind, data in parts
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    address = f"{server.rstrip('/')}/v1/search"
    asked = Request(address, body + f"--{boundary}--\r\n".encode(), headers)
    try:
        with urlopen(asked, timeout=SECONDS) as answered:
            reply: dict[str, Any] = json.load(answered)
    except HTTPError as error:
        raise DataError(f"{server} rejected the search: {_detail(error)}") from None
    except (URLError, OSError) as error:
        raise DataError(
            f"{server} does not answer ({getattr(error, 'reason', error)}): check the address, and that the "
            "service runs"
        ) from None
    except ValueError:
        raise DataError(f"the answer of {server} is not a search response: check the address") from None
    return reply


def _detail(error: HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}"
