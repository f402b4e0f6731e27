"""Connections to the database of the engine ``postgres``: its address, a pool, and clear errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from queue import Empty, LifoQueue
from threading import BoundedSemaphore
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from dqecir.errors import EngineError

URL = "DQECIR_DATABASE_URL"
SCHEMA = "DQECIR_DATABASE_SCHEMA"

TOGETHER = 16
"""Most connections of one process's pool in use at a time; further calls wait for a free one."""

_WAIT = 30.0
"""Seconds that a call waits for a free connection before it fails."""

_CHECK = "check the address, and that the server runs"
_REASONS = {
    "password authentication failed": "check the role and its password",
    "no password supplied": "check the role and its password",
    "no pg_hba.conf entry": "let pg_hba.conf of the server admit this role, or set sslmode",
    "root certificate": "check sslmode and sslrootcert",
    "certificate verify failed": "check sslmode and sslrootcert",
    "SSL": "check sslmode and sslrootcert",
    "too many clients": "try again, or raise max_connections of the server",
    "starting up": "try again in a moment",
    "shutting down": "try again in a moment",
    "does not exist": "create the database or the role, or correct its name",
    "Connection refused": _CHECK,
    "No such file or directory": _CHECK,
    "timeout expired": _CHECK,
    "could not translate host name": "check the address",
}
"""Part of an error message -> what to do. The rest of the message is not shown, because it may contain parts
of a password."""

_SENTENCES = {
    "25006": "the database takes no changes (it is a standby, or read-only): name the primary server",
    "42501": "the role may not do this in the database ({}): grant it the right, as docs/engines.md says",
    "53100": "the disk of the database is full: free some space, and make the change again",
    "55P03": "another writer has held the index for too long: try again when it has ended",
    "3F000": f"the database lacks the schema ({{}}): create it, or name another in {SCHEMA}",
    "42P01": f"the database lacks the tables of the index ({{}}): name its database in {URL}, or build again",
    "57014": "the database took too long ({}): try again when it has less to do",
}
"""SQLSTATE (error code of PostgreSQL) -> a sentence that says what to do."""

Connection = psycopg.Connection[tuple[Any, ...]]
Row = tuple[Any, ...]


class VectorExtension(NamedTuple):
    """The schema and the version of pgvector in a database."""

    schema: str
    version: tuple[int, ...]

    def named(self, name: str) -> str:
        """Return the name of a type or a function of pgvector, with its schema."""
        return f"{_quoted(self.schema)}.{name}"

    def operator(self, sign: str) -> str:
        return f"OPERATOR({_quoted(self.schema)}.{sign})"


class ConnectionPool:
    """Idle connections of this process to one database; a new one is opened if all are in use."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._idle: LifoQueue[Connection] = LifoQueue()
        self._room = BoundedSemaphore(TOGETHER)
        self._extension: VectorExtension | None = None

    def dedicated(self) -> Connection:
        """Open a connection that does not belong to the pool; the caller must close it.

        Raises :class:`EngineError` if the database does not answer, is too old, or is not in UTF-8.
        """
        try:
            found = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            known = ((reason, advice) for reason, advice in _REASONS.items() if reason in str(error))
            reason, advice = next(known, ("it does not answer", _CHECK))
            raise EngineError(f"the database of {URL} cannot be reached ({reason}): {advice}") from None
        encoding = found.info.parameter_status("server_encoding")
        if found.info.server_version < 150_000 or encoding != "UTF8":
            found.close()
            raise EngineError(
                "the engine postgres needs PostgreSQL 15 or newer and a database in UTF-8: name another in "
                f"{URL}"
            )
        return found

    @contextmanager
    def transaction(self, begin: str) -> Iterator[tuple[Connection, list[Row]]]:
        """Begin a transaction; yield its connection and the rows of the last statement in ``begin``.

        The transaction is committed at the end of the ``with`` block, or rolled back after an error. If
        ``begin`` is empty, the caller begins and commits. Raises ``psycopg.Error`` for an error of the
        database (:func:`plain_errors` translates it), and :class:`EngineError` if no connection becomes free
        in time, and as :meth:`dedicated`.
        """
        if not self._room.acquire(timeout=_WAIT):
            raise EngineError(f"all {TOGETHER} connections to the database are in use: try again in a moment")
        try:
            connection, rows = self._begun(begin)
            try:
                yield connection, rows
                if begin:
                    connection.execute("COMMIT")
            finally:
                with suppress(psycopg.Error):
                    connection.rollback()
                if connection.info.transaction_status == TransactionStatus.IDLE:
                    self._idle.put(connection)
                else:
                    connection.close()
        finally:
            self._room.release()

    def _begun(self, begin: str) -> tuple[Connection, list[Row]]:
        """Run ``begin`` on an idle or a new connection; return it and the rows of the last statement.

        Connections that a restart of the server has broken are skipped.
        """
        while True:
            try:
                connection, fresh = self._idle.get_nowait(), False
            except Empty:
                connection, fresh = self.dedicated(), True
            if not begin:
                return connection, []
            try:
                cursor = connection.execute(begin.encode())
                while cursor.nextset():
                    pass
                return connection, cursor.fetchall()
            except psycopg.Error:
                broken = connection.broken
                connection.close()
                if fresh or not broken:
                    raise

    def extension(self) -> VectorExtension:
        """Return where pgvector is, and its version.

        Raises :class:`EngineError` if it is missing or too old.
        """
        if self._extension is None:
            begin = (
                "BEGIN; SELECT nspname, extversion FROM pg_extension "
                "JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'"
            )
            with self.transaction(begin) as (_, rows):
                for schema, version in rows:
                    self._extension = VectorExtension(schema, tuple(map(int, version.split("."))))
        if self._extension is None:
            raise EngineError("the database lacks pgvector: let its owner run CREATE EXTENSION vector there")
        if self._extension.version < (0, 7):
            raise EngineError(
                "the engine postgres needs pgvector 0.7 or newer: let the database's owner run "
                "ALTER EXTENSION vector UPDATE"
            )
        return self._extension


def run(connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run one SQL statement, and return its rows (empty if it has none).

    The caller must double percent signs in ``statement``, except for those of parameters.
    """
    cursor = connection.execute(statement.encode(), parameters)
    return cursor.fetchall() if cursor.description else []


def pool() -> ConnectionPool:
    """Return this process's pool for the database of ``DQECIR_DATABASE_URL``, or of libpq's own settings.

    Raises :class:`EngineError` if that is not the address of a database.
    """
    # Connections must not be shared with a process that was forked.
    return _pool(os.environ.get(URL, ""), os.getpid())


@cache
def _pool(url: str, process: int) -> ConnectionPool:
    try:
        given = conninfo_to_dict(url)
        own = {"connect_timeout": "3", "application_name": "dqecir"}
        conninfo = make_conninfo(url, **{name: value for name, value in own.items() if name not in given})
        return ConnectionPool(make_conninfo(conninfo, client_encoding="UTF8"))
    except psycopg.Error:
        # Do not show the library's own message: it contains the password.
        raise EngineError(
            f"{URL} is not the address of a database: write postgresql://USER@HOST:5432/DATABASE, and signs "
            "such as @ and / in a password as %40 and %2F"
        ) from None


def may_repeat(error: psycopg.Error) -> bool:
    """Return whether repeating a read may succeed: the connection broke, or a table was replaced."""
    state = error.sqlstate or ""
    return state in ("", "42P01") or (state[:2] in ("08", "40", "57") and state != "57014")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn errors of the database into :class:`EngineError` with one sentence that contains no secrets."""
    try:
        yield
    except psycopg.Error as error:
        said = error.diag.message_primary or ""
        sentence = _SENTENCES.get(error.sqlstate or "", "the database failed ({}): look into its log")
        if not said:
            sentence = (
                "the connection to the database broke: try again; a change may be repeated without harm"
            )
        raise EngineError(sentence.format(said)) from None


def _quoted(name: str) -> str:
    # Every statement of ours has parameters, so a percent sign is doubled.
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'
