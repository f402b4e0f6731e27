"""Download files over HTTP, with limits on size and time, pauses between requests, and retries."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urljoin, urlsplit

import httpcore

from dqecir.errors import DataError, reason_of
from dqecir.io.network import CheckedNetwork, PrivateAddressError

_ATTEMPTS = 4
_REDIRECTS = 5
_REDIRECTING = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
"""HTTP statuses after which another attempt may succeed."""
TIMEOUTS = {"connect": 10.0, "read": 20.0, "write": 20.0, "pool": 10.0}
"""Longest waits of an attempt, in seconds."""
_DEADLINE = 120.0
"""Longest time of an attempt, with redirects and body, in seconds."""
_LONGEST_WAIT = 120.0
"""Longest ``Retry-After`` that is waited for, in seconds; after a longer one the download fails."""
APART = 0.1
"""Seconds between two requests to the same host."""
_HEADERS = (("Accept", "image/*,*/*;q=0.5"), ("Accept-Encoding", "identity"))
_UNCHANGED = "%/:@!$&'()*+,;=~"


class DownloadError(DataError):
    """A download that failed. The message does not contain the whole address.

    ``may_pass``: whether a later attempt may succeed.
    """

    def __init__(self, reason: str, may_pass: bool = False) -> None:
        self.may_pass = may_pass
        super().__init__(reason)


class _PassingError(Exception):
    """A failure after which another attempt may succeed.

    ``wait``: seconds that the server asks to wait, or None.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        self.reason, self.wait = reason, wait
        super().__init__(reason)


class Downloader:
    """Downloads one file after another; a context manager."""

    def __init__(
        self,
        agent: str,
        most_bytes: int,
        allow_private: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        certificates: ssl.SSLContext | None = None,
    ) -> None:
        """Set the limits, without connecting.

        ``agent`` is the ``User-Agent``, ``most_bytes`` the size limit of a file. ``allow_private``: whether
        addresses of private networks and of this machine are allowed. ``clock`` returns the time in seconds;
        ``wait`` sleeps for some seconds. ``certificates`` are those to trust. Default: those of httpcore.
        """
        self._agent, self._most_bytes, self._clock, self._wait = agent, most_bytes, clock, wait
        self._network = CheckedNetwork(allow_private, clock)
        self._pool = httpcore.ConnectionPool(certificates, network_backend=self._network)
        self._asked: dict[str, float] = {}
        """Host -> time of the last request to it."""

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()

    def get(self, address: str) -> bytes:
        """Return the body of an http or https address; raises :class:`DownloadError` if it cannot be fetched.

        After a failure that may pass (no answer, a busy server), it tries again after a pause, or after the
        time that the server asks for.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return self._once(address)
            except _PassingError as passing:
                reason = passing.reason
                wait = 2.0**attempt if passing.wait is None else passing.wait
                if wait > _LONGEST_WAIT:
                    raise DownloadError(f"{reason} and asks to wait {wait:,.0f} seconds", True) from None
                if attempt + 1 < _ATTEMPTS:
                    self._wait(wait)
        raise DownloadError(f"{reason} (tried {_ATTEMPTS} times)", may_pass=True)

    def _once(self, address: str) -> bytes:
        self._network.deadline = self._clock() + _DEADLINE
        for _ in range(_REDIRECTS + 1):
            url = _url_of(address)
            self._take_turn(url.host.decode())
            headers = [("Host", _host_header(url)), ("User-Agent", self._agent), *_HEADERS]
            try:
                with self._pool.stream(
                    "GET", url, headers=headers, extensions={"timeout": TIMEOUTS}
                ) as response:
                    told = _decoded(response.headers)
                    if response.status not in _REDIRECTING or "location" not in told:
                        return self._body(response, told)
                    address = _led_to(address, told["location"])
            except PrivateAddressError as error:
                raise DownloadError(str(error), may_pass=True) from None
            except httpcore.TimeoutException:
                raise _PassingError("the whole answer did not arrive in time") from None
            except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
                host = url.host.decode()
                raise _PassingError(f"the connection to {host} failed: {reason_of(error)}") from None
            except httpcore.LocalProtocolError as error:
                raise DownloadError(f"the request failed ({error})") from None
        raise DownloadError(f"it redirects more than {_REDIRECTS} times")

    def _take_turn(self, host: str) -> None:
        pause = self._asked.get(host, -APART) + APART - self._clock()
        if pause > 0:
            self._wait(pause)
        self._asked[host] = self._clock()

    def _body(self, response: httpcore.Response, told: dict[str, str]) -> bytes:
        if response.status in _PASSING:
            raise _PassingError(
                f"the server answers {response.status}", _seconds(told.get("retry-after", ""))
            )
        if response.status != 200:
            raise DownloadError(f"the server answers {response.status}")
        if told.get("content-encoding", "identity").lower() != "identity":
            raise DownloadError(
                f"it comes compressed ({told['content-encoding']}), although that was not requested"
            )
        too_large = f"it has more than {self._most_bytes:,} bytes"
        length = told.get("content-length", "0")
        if length.isdecimal() and int(length) > self._most_bytes:
            raise DownloadError(too_large)
        body = bytearray()
        for part in response.iter_stream():
            body += part
            if len(body) > self._most_bytes:
                raise DownloadError(too_large)
        return bytes(body)


def _decoded(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _led_to(address: str, location: str) -> str:
    try:
        return urljoin(address, location)
    except ValueError as error:
        raise DownloadError(f"it redirects to something that is not an address ({error})") from None


def _url_of(address: str) -> httpcore.URL:
    """Return an address in the form in which it is sent, with characters outside of ASCII escaped.

    Raises :class:`DownloadError` for anything but an http or https address without a user name.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
        is_number = ":" in (host or "")
        sent = host if is_number else (host or "").encode("idna").decode()
    except (ValueError, UnicodeError) as error:
        raise DownloadError(f"it is not an address ({error})") from None
    if parts.scheme not in ("http", "https"):
        raise DownloadError(f"{parts.scheme or 'no scheme'} is not fetched, only http and https are")
    if not sent:
        raise DownloadError("it is not an address: it has no host")
    if parts.username is not None or parts.password is not None:
        raise DownloadError("it holds a user name or a password, which dqecir does not send")
    target = quote(parts.path or "/", safe=_UNCHANGED)
    if parts.query:
        target += f"?{quote(parts.query, safe=_UNCHANGED + '?')}"
    return httpcore.URL(scheme=parts.scheme, host=sent, port=port, target=target)


def _host_header(url: httpcore.URL) -> str:
    host = url.host.decode()
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if url.port is None else f"{bracketed}:{url.port}"


def _seconds(retry_after: str) -> float | None:
    """Return the seconds to wait by a ``Retry-After`` header, a number or a date; None if it is neither."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
