"""The process: a socket, a server, and an end in which nothing that was accepted is lost."""

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
"""Interval in seconds at which threads hand over the interpreter lock. The model's thread gives way at every
operation, and would wait the usual ten times as long each time before it goes on."""


def run(settings: ServiceSettings, say: Callable[[str], None]) -> None:
    """Serve until a signal says to end; ``say`` is told the address once it answers.

    Raises :class:`DataError` where the address cannot be had, or the model or the index be read.
    """
    # Before the model is read, which takes longer.
    listening = _listening(settings.host, settings.port)
    with listening:
        app = create_app(settings)
        log_to_standard_error()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            # Who asks is not looked at; that a proxy was between is seen from its headers.
            proxy_headers=False,
            # A request is bounded by its own limits; this is for what they do not see.
            timeout_graceful_shutdown=int(settings.limits.seconds + settings.limits.body_seconds) + 5,
        )
        host, port = listening.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        sys.setswitchinterval(TURN)
        with _ended_by_signals():
            _Server(config, lambda: say(f"http://{name}:{port}")).run(sockets=[listening])


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """To be told to end is no failure: what uvicorn raises again when it has ended leads out of here."""

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
            f"{host}:{port} cannot be listened at ({said}): name another --port or --host"
        ) from None
    return found
