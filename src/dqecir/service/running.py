"""Run the service's process: a socket, a server, and a shutdown that finishes accepted requests."""

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
"""Seconds at which threads hand over the interpreter lock. The model's thread releases it at every
operation, and with Python's default would wait ten times as long each time."""


def run(settings: ServiceSettings, say: Callable[[str], None]) -> None:
    """Serve until a signal ends the process; ``say`` is called with the address once it answers.

    Raises :class:`DataError` if the address is not available, or the model or the index cannot be read.
    """
    # Check the address before reading the model, which takes longer.
    listening = _listening(settings.host, settings.port)
    with listening:
        app = create_app(settings)
        log_to_standard_error()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            # Client addresses are not used; proxies are recognised by their headers.
            proxy_headers=False,
            # Requests have their own limits; this one is for everything else.
            timeout_graceful_shutdown=int(settings.limits.seconds + settings.limits.body_seconds) + 5,
        )
        host, port = listening.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        sys.setswitchinterval(TURN)
        with _ended_by_signals():
            _Server(config, lambda: say(f"http://{name}:{port}")).run(sockets=[listening])


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End without an error after a signal, which uvicorn raises again when it has ended."""

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
