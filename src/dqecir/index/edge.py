"""Qdrant Edge, embedded: a shard in the index's folder, owned by a process of its own.

All indexes that this process has open in one folder share that process. No two processes can have the
folder open at once; the second is told who has it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import qdrant_edge  # noqa: F401  (so that its absence is said before a process is started)
from numpy.typing import NDArray

from dqecir.errors import EngineError
from dqecir.index.locking import TurnLock
from dqecir.index.qdrant import QdrantIndex
from dqecir.index.qdrant_layout import INDEXED, RECORD, Ask, Condition, Found, Point
from dqecir.index.qdrant_store import Place, Store
from dqecir.io.progress import console

PATIENCE = 5.0
"""Seconds to wait for an owner that is about to leave, as one whose parent was killed is."""

_PYTHONPATH = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]


class EdgeIndex(QdrantIndex):
    """Items in a Qdrant Edge shard."""

    name = "edge"

    @classmethod
    def _store(cls, folder: Path, place: Place) -> Store:
        return EdgeStore(_shared(folder / place.store))

    @classmethod
    def _new(cls, folder: Path, old: Place | None, sizes: Mapping[str, int]) -> tuple[str, str | None, Store]:
        # Counted up from what lies there, so that nobody who has an older one open meets the new one.
        taken = [int(path.name[1:9]) for path in folder.glob("e????????*") if path.name[1:9].isdigit()]
        name = f"e{max(taken, default=0) + 1:08}"
        return name, None, EdgeStore(_Worker(folder / name, sizes))

    @classmethod
    def _sweep(cls, folder: Path, now: Place, old: Place | None) -> None:
        for path in folder.glob("e????????"):
            if path.is_dir() and path.name != now.store and not _is_owned(path):
                _remove(path)

    @classmethod
    def _discard(cls, folder: Path, name: str, store: Store) -> None:
        store.close()
        _remove(folder / name)


class EdgeStore(Store):
    """Points of a shard, by messages to the process that owns it."""

    def __init__(self, worker: _Worker) -> None:
        self._worker: _Worker | None = worker

    def write(self, points: Sequence[Point]) -> None:
        names = points[0].vectors
        self._ask(
            "write",
            {name: np.stack([point.vectors[name] for point in points]) for name in names},
            numbers=[point.number for point in points],
            payloads=[dict(point.payload) for point in points],
        )

    def write_record(self, text: str) -> None:
        self._ask("write", numbers=[RECORD], payloads=[{"record": text}])

    def read_record(self) -> str | None:
        payload = self._ask("read", number=RECORD)["payload"]
        return None if payload is None else str(payload["record"])

    def mark_dead(self, where: Condition, generation: int) -> None:
        self._ask("mark", where=where, payload={"died": generation})

    def unmark(self, where: Condition) -> None:
        self._ask("unmark", where=where, key="died")

    def remove(self, where: Condition) -> None:
        self._ask("remove", where=where)

    def index_numbers(self, key: str) -> None:
        self._ask("index", key=key, kind="float")

    def count(self, where: Condition) -> int:
        return int(self._ask("count", where=where)["count"])

    def scroll(self, where: Condition, after: int, limit: int, tokens: bool = True) -> list[Found]:
        reply = self._ask("scroll", where=where, after=after, limit=limit, tokens=tokens)
        found: list[list[Found]] = reply["found"]
        return found[0]

    def search(self, asks: Sequence[Ask]) -> list[list[Found]]:
        plain = [{"name": ask.name, "limit": ask.limit, "where": ask.where} for ask in asks]
        vectors = {str(row): ask.vector for row, ask in enumerate(asks)}
        found: list[list[Found]] = self._ask("search", vectors, asks=plain)["found"]
        return found

    def flush(self) -> None:
        self._ask("flush")

    def facts(self) -> dict[str, Any]:
        return self._ask("facts")

    def close(self) -> None:
        self._worker = None

    def _ask(
        self, name: str, arrays: Mapping[str, NDArray[Any]] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        worker = self._worker
        if worker is None:
            raise EngineError("the index is closed: open it again")
        return worker.ask(name, arrays or {}, arguments)


class _Worker:
    """The process that owns a shard, and the link to it."""

    def __init__(self, path: Path, sizes: Mapping[str, int] | None = None) -> None:
        self._path = path
        self._home = os.getpid()
        self._lock = TurnLock()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start(None if sizes is None else dict(sizes))
        except (EOFError, OSError):
            raise EngineError(
                f"the process for {path.parent} did not start ({_how(self._end())}): see what it says above"
            ) from None

    def ask(
        self, name: str, arrays: Mapping[str, NDArray[Any]], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the process answers; one that has died is started again once, and asked again.

        Every message may be repeated, and what was acknowledged is in the shard's log.
        """
        if os.getpid() != self._home:
            raise EngineError(
                f"{self._path.parent} was opened before this process was forked: open it again here, once "
                "the other has closed it"
            )
        with self._lock:
            try:
                if self._process is None:
                    self._start(None)
                return self._exchange(name, arrays, arguments)
            except (EOFError, OSError):
                code = self._end()
                console.print(
                    f"[yellow]the process of {self._path.parent} ended ({_how(code)}) and is started again[/]"
                )
            try:
                self._start(None)
                return self._exchange(name, arrays, arguments)
            except (EOFError, OSError):
                raise EngineError(
                    f"the process that holds {self._path.parent} ended twice ({_how(self._end())}): "
                    "what was confirmed is kept; see whether memory or disk are full, and try again"
                ) from None

    def _start(self, sizes: dict[str, int] | None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                # -P, because a stranger's file in the working folder is no module of ours.
                [sys.executable, "-P", "-m", "dqecir.index.edge_worker", str(theirs.fileno()), self._path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, _PYTHONPATH))},
            )
        self._process, self._link = process, Connection(ours.detach())
        self._finish = weakref.finalize(self, _stop, process, self._link, self._home)
        try:
            reply = self._exchange("open", {}, {"sizes": sizes, "indexed": INDEXED, "patience": PATIENCE})
        except EngineError as error:
            self._end()
            raise EngineError(f"{error}; where files are damaged, build the index again") from None
        if "owned" in reply:
            self._end()
            raise EngineError(
                f"{self._path.parent} is open in another process (number {reply['owned']}), and Edge has one "
                "owner at a time: close it there, or ask the service that has it open"
            )

    def _exchange(
        self, name: str, arrays: Mapping[str, NDArray[Any]], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        kinds = [[place, str(array.dtype), list(array.shape)] for place, array in arrays.items()]
        self._link.send_bytes(json.dumps({"name": name, "arguments": arguments, "arrays": kinds}).encode())
        for array in arrays.values():
            self._link.send_bytes(np.ascontiguousarray(array).tobytes())
        reply: dict[str, Any] = json.loads(self._link.recv_bytes())
        if "error" in reply:
            raise EngineError(f"Qdrant Edge could not do this in {self._path.parent}: {reply['error']}")
        if "found" in reply:
            reply["found"] = _found(reply["found"], self._link.recv_bytes())
        return reply

    def _end(self) -> int | None:
        process, self._process = self._process, None
        self._finish()
        return None if process is None else process.returncode


_workers: weakref.WeakValueDictionary[Path, _Worker] = weakref.WeakValueDictionary()
_workers_lock = Lock()


def _shared(path: Path) -> _Worker:
    """The one worker that this process has for a shard."""
    path = path.resolve()
    if not path.is_dir():
        raise EngineError(f"{path.parent} is half an index: {path.name} is missing; build it again")
    with _workers_lock:
        worker = _workers.get(path)
        if worker is None:
            worker = _workers[path] = _Worker(path)
        return worker


def _forget() -> None:
    # A forked child has its parent's table and not its parent's right to the shards.
    global _workers_lock
    _workers_lock = Lock()
    for path in list(_workers):
        _workers.pop(path, None)


os.register_at_fork(after_in_child=_forget)


def _stop(process: subprocess.Popen[bytes], link: Connection, home: int) -> None:
    link.close()
    if os.getpid() != home:
        return
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _found(plain: Sequence[Sequence[list[Any]]], tokens: bytes) -> list[list[Found]]:
    """The points of a reply; the raw tokens, equally many of each or none, lie one after the other."""
    count = sum(len(own) for own in plain)
    size = len(tokens) // max(1, count)
    pieces = iter([tokens[size * place : size * (place + 1)] for place in range(count)])
    return [
        [Found(number, near, item, payload, next(pieces)) for number, near, item, payload in own]
        for own in plain
    ]


def _how(code: int | None) -> str:
    return "in a way unknown" if code is None else f"signal {-code}" if code < 0 else f"exit {code}"


def _is_owned(path: Path) -> bool:
    try:
        handle = os.open(path.with_name(path.name + ".owner"), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.with_name(path.name + ".owner").unlink(missing_ok=True)
