"""Read bodies of requests: authorise before reading, and enforce limits while the body arrives."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from dqecir.data.column_roles import column_name
from dqecir.service.configuration import Limits
from dqecir.service.problems import Problem, invalid
from dqecir.service.schemas import MOST_REFERENCES, Attributes

Schema = TypeVar("Schema", bound=BaseModel)

NOT_ONE_REFERENCE = "a reference is either an item of the index or an uploaded image: send one of them"

_MOST_DIGITS = 17
"""Significant digits up to which JSON keeps a fraction."""


@dataclass(frozen=True)
class Body:
    """The contents of a request's body: text in JSON and pictures, each if present."""

    text: str | None = None
    images: tuple[bytes, ...] = ()


async def read_request(
    request: Request, schema: type[Schema], limits: Limits
) -> tuple[Schema, tuple[bytes, ...]]:
    """Read a request's JSON as ``schema``, and the uploaded pictures in order.

    Raises a :class:`Problem` as :func:`read_body` and :func:`parsed` do.
    """
    body = await read_body(request, "request", limits, 1 + MOST_REFERENCES)
    # A form may have pictures only.
    return parsed("{}" if body.text is None else body.text, schema), body.images


def parsed(text: str, schema: type[Schema], name: str = "") -> Schema:
    """Parse JSON as ``schema``; raises a :class:`Problem` with status 422 that begins with ``name``.

    A name that comes twice in an object is an error, too.
    """
    try:
        found = schema.model_validate_json(text)
    except ValidationError as error:
        raise invalid(error, name) from None
    json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_without_repetition)
    return found


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if repeated := [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]:
        raise Problem(422, f"{repeated[0]}: the name comes several times: keep one")
    return dict(pairs)


def attributes_of(text: str) -> dict[str, Any]:
    """Parse a JSON object with the attributes of an item: name -> value.

    Names are changed as those of a table's columns: to lower case, with single blanks. Raises a
    :class:`Problem` with status 422, also for a name that comes twice, and for a number that JSON cannot
    keep.
    """
    found = parsed(text, Attributes).root
    for name, value in json.loads(text, parse_float=Decimal).items():
        if isinstance(value, Decimal) and not _is_kept(value):
            raise Problem(422, f"{name}: JSON cannot hold this number exactly: send it as a text, in quotes")
    return _without_repetition(
        [(column_name(unicodedata.normalize("NFC", name)), value) for name, value in found.items()]
    )


def _is_kept(number: Decimal) -> bool:
    """Return whether JSON keeps a number; integers have to stay exact, fractions keep 17 digits."""
    if number == number.to_integral_value():
        return Decimal(float(number)) == number
    return len(number.normalize().as_tuple().digits) <= _MOST_DIGITS and float(number) != 0


async def read_body(request: Request, field: str, limits: Limits, images: int = 1) -> Body:
    """Read a body: JSON, or a form with a ``field`` of JSON and at most ``images`` files named ``image``.

    ``limits.bytes`` is the limit of all pictures together. Raises a :class:`Problem`: status 413 if the body
    is too large, 408 if it does not arrive in time, 415 for another content type, 400 if it cannot be read,
    422 for other fields.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind not in ("application/json", "multipart/form-data"):
        raise Problem(415, "the body must be application/json, or multipart/form-data with an image")
    if request.headers.get("content-encoding", "identity").strip().casefold() not in ("", "identity"):
        raise Problem(415, "the body must not be compressed: send it without Content-Encoding")
    is_form = kind == "multipart/form-data"
    most = limits.body + (limits.bytes if is_form else 0)
    chunks = _chunks(request, most)
    try:
        async with asyncio.timeout(limits.body_seconds):
            if is_form:
                return await _form(request, chunks, field, limits, images)
            return Body(b"".join([chunk async for chunk in chunks]).decode("utf-8-sig"))
    except TimeoutError:
        raise Problem(
            408,
            f"the body did not arrive within {limits.body_seconds:g} seconds: send it again, or send less",
            {"Connection": "close"},
        ) from None
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8 text: encode it as UTF-8") from None


async def _chunks(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives; raise a :class:`Problem` as soon as it has more than ``most`` bytes.

    A ``Content-Length`` above ``most`` is rejected at once; a smaller one is not trusted.
    """
    told = request.headers.get("content-length", "")
    # Python reads numbers of at most 4300 digits.
    seen = int(told[:20]) if told.isdecimal() else 0
    taken = 0
    try:
        if seen <= most:
            async for chunk in request.stream():
                taken += len(chunk)
                if taken > most:
                    break
                yield chunk
            else:
                return
    except ClientDisconnect:
        raise Problem(400, "the body is incomplete: send it again") from None
    raise Problem(413, f"the body is larger than {most:,} bytes: send less", {"Connection": "close"})


async def _form(
    request: Request, chunks: AsyncGenerator[bytes, None], field: str, limits: Limits, most: int
) -> Body:
    # The JSON field may also arrive as a file, because browsers send a Blob in this way.
    parser = _InMemory(request.headers, chunks, max_files=most + 1, max_fields=4, max_part_size=limits.body)
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        said = getattr(error, "message", None) or "it is damaged"
        raise Problem(400, f"the form cannot be read: {said}") from None
    text: bytes | None = None
    images: list[bytes] = []
    for name, part in form.multi_items():
        if (name == field and text is not None) or (name == "image" and len(images) == most):
            raise Problem(422, f"the form has too many fields {name!r}: send fewer")
        if name not in (field, "image"):
            raise Problem(422, f"the form has no field {name!r}: its fields are {field} and image")
        if name == "image" and isinstance(part, str):
            raise Problem(422, "the form field image must be a file: send the picture with a file name")
        content = part.encode("utf-8") if isinstance(part, str) else await part.read()
        if name == field:
            text = content
        # A page sends an empty file without a name if the user chose none.
        elif content or getattr(part, "filename", None):
            images.append(content)
    size = sum(map(len, images))
    if size > limits.bytes:
        raise Problem(
            413, f"the picture has {size:,} bytes; at most {limits.bytes:,} are read: make it smaller"
        )
    return Body(None if text is None else text.decode("utf-8-sig"), tuple(images))


class _InMemory(MultiPartParser):
    """A parser of forms that keeps files in memory, because they are small and are decoded immediately."""

    spool_max_size = 1 << 40
