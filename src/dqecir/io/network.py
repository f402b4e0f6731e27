"""Connect only to checked addresses: resolve a host, check its addresses, and connect to one of them."""

from __future__ import annotations

import ipaddress
import math
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from dqecir.errors import DataError

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PrivateAddressError(DataError):
    """A host that has no address on the public internet."""


class CheckedNetwork(httpcore.NetworkBackend):
    """Opens connections for httpcore: only to public addresses, and only until a deadline.

    Each connection resolves its host once, and uses an address that was checked, so that a later answer of
    the name server has no effect. Certificates are checked for the host's name. Proxies in environment
    variables are ignored.
    """

    def __init__(self, allow_private: bool, clock: Callable[[], float]) -> None:
        self.deadline = math.inf
        """Time, on ``clock``, at which every wait ends."""
        self._allow_private, self._clock = allow_private, clock
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first public address of ``host`` that answers.

        Raises :class:`PrivateAddressError` for a host without one, and httpcore's ``ConnectError``.
        """
        failed: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in self._checked(host, port):
            try:
                stream = self._sockets.connect_tcp(
                    address, port, self.left(timeout), local_address, socket_options
                )
                return _UntilDeadline(stream, self)
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failed = error
        raise failed or httpcore.ConnectError(f"{host} has no address")

    def left(self, timeout: float | None) -> float:
        """Return the smaller of ``timeout`` and the seconds until the deadline.

        Raises httpcore's ``ReadTimeout`` if the deadline has passed.
        """
        seconds = self.deadline - self._clock()
        if seconds <= 0:
            raise httpcore.ReadTimeout("the deadline has passed")
        return min(seconds, math.inf if timeout is None else timeout)

    def _checked(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} cannot be resolved ({error})") from None
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        public = [one for one in addresses if self._allow_private or is_public(one)]
        if addresses and not public:
            named = host if host == addresses[0] else f"{host} ({addresses[0]})"
            raise PrivateAddressError(
                f"{named} is not an address of the public internet: to fetch from it, give --allow-private"
            )
        return public


class _UntilDeadline(httpcore.NetworkStream):
    """A stream that waits no longer than until the network's deadline."""

    def __init__(self, stream: httpcore.NetworkStream, network: CheckedNetwork) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._network.left(timeout))
        return _UntilDeadline(secured, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def is_public(address: str) -> bool:
    """Return whether an IP address is public; an IPv6 address that contains an IPv4 one is judged by that.

    >>> is_public("8.8.8.8"), is_public("10.0.0.1"), is_public("::ffff:127.0.0.1"), is_public("0.0.0.0")
    (True, False, False, False)
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        if found.sixtofour is not None or found.teredo is not None or found.is_site_local:
            return False
    return found.is_global and not (
        found.is_multicast
        or found.is_reserved
        or found.is_private
        or found.is_loopback
        or found.is_link_local
    )
