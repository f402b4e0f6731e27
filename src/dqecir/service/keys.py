"""Authorise reading and writing, by keys in a file or, without keys, by the request's origin."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers

from dqecir.errors import DataError
from dqecir.service.configuration import is_loopback
from dqecir.service.problems import Problem

SHORTEST = 16
"""Least number of characters of a key."""

EMBEDDED_RATE = 600
"""Default of :attr:`Key.rate` for an embed key: requests a minute."""

_KINDS = ("read", "write", "embed")
_FORWARDED = re.compile(
    r"via|(?:.+-)?forwarded(?:-.+)?|(?:x-)?(?:coming-from|proxy(?:-.+)?)|max-forwards|front-end-https"
    r"|x-(?:original|rewrite|forward)-.+|x-(?:host|https?|proto|protocol|scheme|url-scheme|ssl|request-start)"
    r"|(?:x-)?(?:akamai|amz|amzn|appengine|arr|azure|cdn|cf|envoy|fastly|fly|nginx|ngrok|tailscale|varnish"
    r"|vercel)(?:-.+)?"
    r"|(?:.+-)?(?:client|connecting|originating|peer|proxyuser|real|remote|source|user)-(?:addr|ip)",
    re.IGNORECASE,
)
"""Names of the request headers that proxies add."""


@dataclass(frozen=True)
class Key:
    """One key from a file of keys: its kind (read, write or embed), and the SHA-256 of its characters.

    An embed key is for reading from pages of other origins.
    """

    kind: str
    digest: bytes
    origins: frozenset[str] = frozenset()
    """For an embed key, the origins whose pages may use it."""
    rate: int | None = None
    """Most requests a minute, not counting those for pictures. None: no limit."""


class Keys:
    """The keys of a service, which decide what a request may do. A write key may also read."""

    def __init__(self, keys: Sequence[Key], local: bool) -> None:
        self._keys, self._local = tuple(keys), local
        self._allowances = {key.digest: Allowance(key.rate) for key in keys if key.rate is not None}

    @classmethod
    def read(cls, path: Path | None, local: bool) -> Keys:
        """Read a file of keys, one a line as docs/service.md describes.

        If ``path`` is None, reading needs no key, and writing is allowed from this machine if no other
        machine can reach the service (``local``). Raises :class:`DataError` if the file cannot be read, has a
        mistake, or has no key.
        """
        if path is None:
            return cls((), local)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the keys in {path} cannot be read ({error}): check the file") from None
        found = [
            _key_of(line, f"{path}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip() and not line.startswith("#")
        ]
        if not found:
            raise DataError(f"{path} has no key: add one, or leave out --keys to need none")
        # If there are keys, requests from this machine need one too.
        return cls(found, local=False)

    @property
    def origins(self) -> frozenset[str]:
        """The origins of all embed keys."""
        return frozenset().union(*(key.origins for key in self._keys))

    @property
    def needed(self) -> dict[str, bool]:
        """Whether a request needs a key: ``read`` and ``write`` -> bool."""
        return {"read": any(key.kind != "write" for key in self._keys), "write": not self._local}

    @property
    def can_write(self) -> bool:
        """Whether anyone can write: with a write key, or without keys if only this machine has access."""
        return self._local or any(key.kind == "write" for key in self._keys)

    def check_read(self, headers: Headers, embedded: bool = True, counted: bool = True) -> None:
        """Raise a :class:`Problem` (status 401, 403 or 429) if a request with these headers may not read.

        ``embedded``: whether an embed key is enough. ``counted``: whether the request counts against its
        key's rate.
        """
        if not self.needed["read"]:
            return
        key = self._known(headers, ("read", "write", "embed") if embedded else ("read", "write"))
        if key is None:
            raise Problem(401, "reading needs a key: send it as Authorization: Bearer KEY", _CHALLENGE)
        if key.kind == "embed" and headers.get("origin") not in key.origins:
            raise Problem(
                403,
                "this key is for pages of other origins: add this origin to its line in the file of --keys",
            )
        if counted:
            self._count(key)

    def check_write(self, headers: Headers) -> None:
        """Raise a :class:`Problem` (status 401, 403 or 429) if a request with these headers may not write.

        If the service has no keys, only this machine may write, and only if no other machine can reach the
        service: requests with a foreign ``Host``, with headers that proxies add, or from a page of another
        site are rejected.
        """
        if self._local:
            origin = headers.get("origin")
            is_foreign = origin is not None and origin.partition("://")[2] != headers.get("host")
            # Browsers send sec-fetch-site even with requests that have no Origin header.
            if is_foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                raise Problem(403, "a page of another site cannot write: start the service with --keys")
            if any(map(_FORWARDED.fullmatch, headers)) or not is_loopback(_host(headers)):
                raise Problem(403, "without keys, only this machine can write: start the service with --keys")
            return
        if not self.can_write:
            raise Problem(403, "nobody can write here: start the service with --keys and a write key")
        key = self._known(headers, ("write",))
        if key is None:
            raise Problem(401, "writing needs a write key: send it as Authorization: Bearer KEY", _CHALLENGE)
        self._count(key)

    def _count(self, key: Key) -> None:
        if key.digest in self._allowances:
            self._allowances[key.digest].take(time.monotonic())

    def _known(self, headers: Headers, kinds: Sequence[str]) -> Key | None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.casefold() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(given)
        # Compare with all keys, so that the time does not depend on the key.
        found = [key for key in self._keys if key.kind in kinds and hmac.compare_digest(digest, key.digest)]
        return found[0] if found else None


class Allowance:
    """The requests that a key may still send; its number grows by ``rate`` a minute, up to ``rate``."""

    def __init__(self, rate: int) -> None:
        self._rate, self._left, self._since = rate, float(rate), -math.inf

    def take(self, now: float) -> None:
        """Use one request; raise a :class:`Problem` with status 429 if none is left.

        ``now`` is the time in seconds of a monotonic clock.
        """
        self._left = min(self._rate, self._left + self._rate * (now - self._since) / 60)
        self._since = now
        if self._left < 1:
            wait = math.ceil(60 * (1 - self._left) / self._rate)
            raise Problem(
                429,
                f"this key allows {self._rate} requests a minute: try again in {wait} seconds",
                {"Retry-After": str(wait)},
            )
        self._left -= 1


def _key_of(line: str, place: str) -> Key:
    head, *settings = line.split()
    kind, _, key = head.partition(":")
    options = dict(setting.partition("=")[::2] for setting in settings)
    origins = frozenset(filter(None, options.pop("origin", "").split(",")))
    rate = options.pop("rate", str(EMBEDDED_RATE) if kind == "embed" else None)
    if kind not in _KINDS or options:
        raise DataError(
            f"{place}: write read:KEY, write:KEY or embed:KEY origin=https://SHOP, optionally with rate=60"
        )
    if len(key) < SHORTEST:
        raise DataError(f"{place}: the key has {len(key)} characters: write at least {SHORTEST} characters")
    if (kind == "embed") is not bool(origins):
        raise DataError(f"{place}: an embed key needs origin=https://SHOP, and no other key may have it")
    if rate is not None and not (rate.isascii() and rate.isdigit() and int(rate)):
        raise DataError(f"{place}: rate={rate} is not a number of requests a minute: write it like rate=60")
    checked = frozenset(checked_origin(origin, place) for origin in origins)
    return Key(kind, _digest(key), checked, None if rate is None else int(rate))


def checked_origin(origin: str, place: str) -> str:
    """Return an origin in the form that browsers send, such as ``https://shop.example``.

    ``place`` begins the error's sentence. Raises :class:`DataError` for anything but an origin.
    """
    parts = urlsplit(origin)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or origin != f"{parts.scheme}://{parts.netloc}"
    ):
        raise DataError(
            f"{place}: {origin} is not an origin: write it like https://shop.example, without a path"
        )
    return origin.casefold()


_CHALLENGE = {"WWW-Authenticate": "Bearer"}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(headers: Headers) -> str:
    host = headers.get("host", "")
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


async def may_read(request: Request) -> None:
    """Raise a :class:`Problem` unless the request may read (a dependency of FastAPI routes).

    The function is async only because FastAPI would otherwise run it in a thread.
    """
    request.app.state.service.keys.check_read(request.headers)


async def may_read_pictures(request: Request) -> None:
    """Raise a :class:`Problem` unless the request may read (a dependency of FastAPI routes).

    It does not count against the key's rate, because a page shows many pictures at once.
    """
    request.app.state.service.keys.check_read(request.headers, counted=False)


async def may_read_inside(request: Request) -> None:
    """Raise a :class:`Problem` unless the request may read without an embed key (a dependency of routes)."""
    request.app.state.service.keys.check_read(request.headers, embedded=False)


async def may_write(request: Request) -> None:
    """Raise a :class:`Problem` unless the request may write (a dependency of FastAPI routes)."""
    request.app.state.service.keys.check_write(request.headers)
