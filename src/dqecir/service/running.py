"""Run the process of a service: open a port, serve, and finish accepted requests before ending."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from dqecir.errors import DataError
from dqecir.service.app import create_app
from dqecir.service.configuration import ServiceSettings
from dqecir.service.middleware import log_to_standard_error

TURN = 0.0005
"""Seconds after which a thread hands the interpreter lock to another. With Python's default, which is ten
times as long, the model's thread would wait for the lock after each of its operations."""


def run(settings: ServiceSettings, say: Callable[[str], None]) -> None:
    """Serve until a signal ends the process; call ``say`` with the address as soon as the service answers.

    Raises :class:`DataError` if the port cannot be opened, or if the model or the index cannot be read.
    """
    # Open the port first: reading the model takes long, and would be in vain if the port is taken.
    listening = _listening(settings.host, settings.port)
    with listening:
        app = create_app(settings)
        log_to_standard_error()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            # Ignore the client addresses that proxies report; keys.py recognises proxies by their headers.
            proxy_headers=False,
            # Seconds for everything but requests, which have their own limits.
            timeout_graceful_shutdown=int(settings.limits.seconds + settings.limits.body_seconds) + 5,
        )
        host, port = listening.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        sys.setswitchinterval(TURN)
        with _ended_by_signals():
            _Server(config, lambda: say(f"http://{name}:{port}")).run(sockets=[listening])


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the process with exit status 0 after SIGINT or SIGTERM, which uvicorn raises again at the end."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._say_started()


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError:
            found.close()
            raise
    except OSError as error:
        said = error.strerror or str(error)
        raise DataError(
            f"the service cannot listen on {host}:{port} ({said}): name another --port or --host"
        ) from None
    return found
