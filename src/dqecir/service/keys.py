"""Who may read and who may write: keys in a file, and what holds without one."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request
from starlette.datastructures import Headers

from dqecir.errors import DataError
from dqecir.service.configuration import is_loopback
from dqecir.service.problems import Problem

SHORTEST = 16
"""Characters that a key must have."""

_KINDS = ("read", "write")
_FORWARDED = re.compile(
    r"via|forwarded|x-forwarded-.+|x-original-(?:for|host|proto)|x-real-ip|x-envoy-.+|cf-.+|cdn-loop"
    r"|(?:.+-)?(?:client|connecting|peer)-ip|x-proxyuser-ip|x-azure-.+|x-arr-.+",
    re.IGNORECASE,
)
"""Headers that proxies add."""


class Keys:
    """The digests of all keys, by what they allow. A key that may write may read as well."""

    def __init__(self, keys: Mapping[str, list[str]], local: bool) -> None:
        self._digests = {kind: [_digest(key) for key in keys.get(kind, [])] for kind in _KINDS}
        self._local = local

    @classmethod
    def read(cls, path: Path | None, local: bool) -> Keys:
        """Keys of a file of lines ``read:KEY`` and ``write:KEY``; raises :class:`DataError`.

        ``local`` says whether the service can be reached from this machine alone.
        """
        if path is None:
            return cls({}, local)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the keys in {path} cannot be read ({error})") from None
        found: dict[str, list[str]] = {kind: [] for kind in _KINDS}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            kind, _, key = line.strip().partition(":")
            if kind not in found or len(key) < SHORTEST:
                raise DataError(
                    f"{path}, line {number}: a line is read:KEY or write:KEY, and the key has {SHORTEST} "
                    "characters or more"
                )
            found[kind].append(key)
        if not any(found.values()):
            raise DataError(f"{path} has no key: leave --keys away to need none")
        # With keys nothing is granted by where a request comes from.
        return cls(found, local=False)

    @property
    def needed(self) -> dict[str, bool]:
        """Whether reading and writing need a key."""
        return {"read": bool(self._digests["read"]), "write": not self._local}

    @property
    def can_write(self) -> bool:
        """Whether anyone at all can write."""
        return self._local or bool(self._digests["write"])

    def check_read(self, headers: Headers) -> None:
        """Raise a :class:`Problem` where a request may not read."""
        if self.needed["read"] and not self._knows(headers, *_KINDS):
            raise Problem(401, "reading needs a key: send it as Authorization: Bearer KEY", _CHALLENGE)

    def check_write(self, headers: Headers) -> None:
        """Raise a :class:`Problem` where a request may not write.

        Without keys a request from this machine may write. Foreign ``Host`` headers, forwarded headers and
        cross-site ``Origin`` headers are rejected.
        """
        if self._local:
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2] != headers.get("host"):
                raise Problem(403, "a page from elsewhere cannot write here: start the service with --keys")
            if any(map(_FORWARDED.fullmatch, headers)) or not is_loopback(_host(headers)):
                raise Problem(403, "without keys only this machine writes: start the service with --keys")
            return
        if not self._digests["write"]:
            raise Problem(403, "nobody can write here: start the service with --keys and a write key")
        if not self._knows(headers, "write"):
            raise Problem(
                401, "writing needs a key for writing: send it as Authorization: Bearer KEY", _CHALLENGE
            )

    def _knows(self, headers: Headers, *kinds: str) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.casefold() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(given)
        # All are compared, so that the time says nothing of which one was near.
        found = [hmac.compare_digest(digest, known) for kind in kinds for known in self._digests[kind]]
        return any(found)


_CHALLENGE = {"WWW-Authenticate": "Bearer"}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(headers: Headers) -> str:
    host = headers.get("host", "")
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


async def may_read(request: Request) -> None:
    """A dependency: the request may read. It is no plain function, because those are run in threads."""
    request.app.state.service.keys.check_read(request.headers)


async def may_write(request: Request) -> None:
    """A dependency: the request may write; as :func:`may_read`."""
    request.app.state.service.keys.check_write(request.headers)
