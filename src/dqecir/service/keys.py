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
"""Default of ``rate`` of a key to embed: requests a minute."""

_KINDS = ("read", "write", "embed")
_FORWARDED = re.compile(
    r"via|(?:.+-)?forwarded(?:-.+)?|(?:x-)?(?:coming-from|proxy-.+)|max-forwards|front-end-https"
    r"|x-(?:original|rewrite|forward)-.+|x-(?:host|https?|proto|protocol|scheme|url-scheme|ssl|request-start)"
    r"|(?:x-)?(?:akamai|amz|amzn|appengine|arr|azure|cdn|cf|envoy|fastly|fly|nginx|varnish)(?:-.+)?"
    r"|(?:.+-)?(?:client|connecting|peer|real|user|proxyuser)-ip",
    re.IGNORECASE,
)
"""Headers that proxies add."""


@dataclass(frozen=True)
class Key:
    """A line of a file of keys."""

    kind: str
    digest: bytes
    origins: frozenset[str] = frozenset()
    """For a key to embed: the origins whose pages may use it."""
    rate: int | None = None
    """Most requests a minute, not counting pictures. None: no limit."""


class Keys:
    """All keys by permission. A key that may write may also read."""

    def __init__(self, keys: Sequence[Key], local: bool) -> None:
        self._keys, self._local = tuple(keys), local
        self._allowances = {key.digest: Allowance(key.rate) for key in keys if key.rate is not None}

    @classmethod
    def read(cls, path: Path | None, local: bool) -> Keys:
        """Read a file with a line for each key (``docs/service.md``); raises :class:`DataError`.

        Without a file (``path`` is None) everybody may read, and a service that only this machine can reach
        (``local``) accepts writes too.
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
        # With keys, a request's origin grants nothing.
        return cls(found, local=False)

    @property
    def origins(self) -> frozenset[str]:
        """The origins whose pages may use a key to embed."""
        return frozenset().union(*(key.origins for key in self._keys))

    @property
    def needed(self) -> dict[str, bool]:
        """Whether reading, and whether writing, needs a key."""
        return {"read": any(key.kind != "write" for key in self._keys), "write": not self._local}

    @property
    def can_write(self) -> bool:
        """Whether any request may be allowed to write."""
        return self._local or any(key.kind == "write" for key in self._keys)

    def check_read(self, headers: Headers, embedded: bool = True, counted: bool = True) -> None:
        """Raise a :class:`Problem` if a request may not read.

        ``embedded``: whether a key to embed is enough. ``counted``: whether the request counts for a key's
        rate.
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
        """Raise a :class:`Problem` if a request may not write.

        Without keys a request from this machine may write. Foreign ``Host`` headers, forwarded headers and
        cross-site ``Origin`` headers are rejected.
        """
        if self._local:
            origin = headers.get("origin")
            is_foreign = origin is not None and origin.partition("://")[2] != headers.get("host")
            # Browsers send it also for requests without an origin.
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
    """The remaining requests of a key, which are refilled at its rate."""

    def __init__(self, rate: int) -> None:
        self._rate, self._left, self._since = rate, float(rate), -math.inf

    def take(self, now: float) -> None:
        """Take one request; raise a :class:`Problem` with status 429 if none is left.

        ``now`` is in seconds.
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
    """Return an origin as browsers send it; raises :class:`DataError` for anything else."""
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
    """Require, as a dependency, that the request may read.

    It is async, because other functions run in threads.
    """
    request.app.state.service.keys.check_read(request.headers)


async def may_read_pictures(request: Request) -> None:
    """Require as :func:`may_read`, without counting: a page shows many pictures at once."""
    request.app.state.service.keys.check_read(request.headers, counted=False)


async def may_read_inside(request: Request) -> None:
    """Require as :func:`may_read`, but refuse keys for embedding."""
    request.app.state.service.keys.check_read(request.headers, embedded=False)


async def may_write(request: Request) -> None:
    """Require, as :func:`may_read`, that the request may write."""
    request.app.state.service.keys.check_write(request.headers)
