"""Writers that are killed at any moment: acknowledged changes remain, and none is incomplete."""

import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from itertools import count

import pytest
import torch

from dqecir.errors import EngineError
from dqecir.index import locking
from dqecir.index.contract import ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.locking import write_lock
from tests.index.contract import HEADER, batches

KILLS = 40


def pair(number: int, version: int) -> ItemBatch:
    """Return two items that are always written together, with tokens and payloads that contain their
    version.
    """
    return ItemBatch(
        [f"a{number}", f"b{number}"],
        torch.full((2, 3, 8), float(version % 512)),
        [{"path": "", "version": version}] * 2,
    )


def each_call(act: Callable[[], object]) -> None:
    """Call ``act`` from now on whenever a Python or C function is called or returns, which needs no clock."""
    sys.setprofile(lambda *_: act())


def write_until_killed(folder, version: int, calls: int, pipe: int) -> None:
    """Write to the pipe, one write each, which additions and deletions have begun and which are done."""
    left = iter(range(calls))
    index = ExactIndex.open(folder)
    draw = random.Random(version)
    while True:
        version += 1
        number = draw.randrange(5)
        delete = draw.random() < 0.3
        os.write(pipe, f"begin {number} {0 if delete else version}\n".encode())
        each_call(lambda: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))
        if delete:
            index.delete([f"a{number}", f"b{number}"])
        else:
            index.add(pair(number, version))
        os.write(pipe, b"done\n")


def reprice_until_killed(folder, version: int, calls: int, pipe: int) -> None:
    """Write as :func:`write_until_killed` does: new payloads of all items, with one version, or of some."""
    left = iter(range(calls))
    index = ExactIndex.open(folder)
    while True:
        version += 1
        some = 10 if version % 3 else 4
        os.write(pipe, f"begin {some} {version}\n".encode())
        each_call(lambda: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))
        index.change_payloads({f"item{i}": {"version": version} for i in range(some)})
        os.write(pipe, b"done\n")


def killed_writer(folder, version: int, calls: int, write=write_until_killed) -> list[str]:
    """Return the output of a writer that is killed ``calls`` calls after its first change has begun."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write(folder, version, calls, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer ended by itself"
    said = b""
    while more := os.read(ours, 1 << 16):
        said += more
    os.close(ours)
    return said.decode().splitlines()


def test_what_is_acknowledged_survives_a_kill_at_any_moment(tmp_path):
    folder = tmp_path / "index"
    index = ExactIndex.build(folder, HEADER, batches())
    calls = count()
    each_call(lambda: next(calls))
    index.add(pair(0, 0))
    index.delete(["a0", "b0"])
    sys.setprofile(None)
    two_changes = next(calls)
    there: dict[int, int] = {}
    draw = random.Random(0)
    changes = interrupted = 0
    for _ in range(KILLS):
        lines = killed_writer(folder, changes, draw.randrange(two_changes))
        open_change = None
        for line in lines:
            if line == "done":
                number, version = open_change
                there[number] = version
                changes += 1
                open_change = None
            else:
                open_change = tuple(int(word) for word in line.split()[1:])
        index = ExactIndex.open(folder)
        if open_change is not None:
            # Begun and not acknowledged: whole or not at all.
            interrupted += 1
            number, version = open_change
            if version:
                hits = index.search(torch.ones(1, 1, 8), 100)[0]
                if any(hit.payload.get("version") == version for hit in hits):
                    there[number] = version
            elif f"a{number}" not in index:
                there[number] = 0
            changes += 1
        wanted = {f"{side}{number}": version for number, version in there.items() if version for side in "ab"}
        hits = {hit.id: hit for hit in index.search(torch.ones(1, 1, 8), 100)[0]}
        assert len(hits) == len(index) == 10 + len(wanted)
        for name, version in wanted.items():
            assert hits[name].payload["version"] == version
            assert hits[name].score == pytest.approx(8 * (version % 512))
        assert all(f"item{i}" in hits for i in range(10))
    assert changes > KILLS
    assert interrupted > 3
    ExactIndex.verify(folder)
    # A dead writer's leftovers go with the next change.
    index = ExactIndex.open(folder)
    index.add(pair(0, 1))
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_changed_payloads_survive_a_kill_at_any_moment(tmp_path):
    folder = tmp_path / "index"
    index = ExactIndex.build(folder, HEADER, batches())
    tokens = (folder / "s00000001" / "tokens.npy").stat()
    calls = count()
    each_call(lambda: next(calls))
    for version in range(5):
        index.change_payloads({f"item{i}": {"version": -version} for i in range(10 if version % 3 else 4)})
    sys.setprofile(None)
    five_changes = next(calls)
    there = {f"item{i}": index.payload(f"item{i}")["version"] for i in range(10)}
    draw = random.Random(0)
    version = interrupted = 0
    for _ in range(KILLS // 2):
        lines = killed_writer(folder, version, draw.randrange(five_changes), reprice_until_killed)
        done = dict(there)
        for line in lines:
            if line == "done":
                there = done
            else:
                some, version = (int(word) for word in line.split()[1:])
                done = {**there, **{f"item{i}": version for i in range(some)}}
        found = {item: payload["version"] for item, payload in ExactIndex.open(folder).entries()}
        # Begun and not acknowledged: whole or not at all.
        assert found in (there, done)
        interrupted += done is not there
        there = found
    assert interrupted > 3
    ExactIndex.verify(folder)
    index = ExactIndex.open(folder)
    assert index.change_payloads({f"item{i}": {} for i in range(10)}) == 10
    # A dead writer's leftovers go with the next change, and the vectors were never written again.
    assert len(list((folder / "s00000001").glob("changed-*"))) == 1
    assert os.path.samestat(tokens, (folder / "s00000001" / "tokens.npy").stat())


def test_a_living_writer_is_waited_for_and_then_refused(tmp_path):
    index = ExactIndex.build(tmp_path / "i", HEADER, batches())
    with (
        write_lock(tmp_path / "i"),
        pytest.raises(EngineError, match="written to by another process"),
        write_lock(tmp_path / "i", patience=0.05),
    ):
        pass
    index.add(pair(0, 1))
    assert "a0" in index


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def lacking(handle, blocking):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locking, "lock_descriptor", lacking)
    with (
        pytest.raises(EngineError, match="keep the index on a disk that supports locks"),
        write_lock(tmp_path),
    ):
        pass
