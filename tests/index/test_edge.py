"""Qdrant Edge: the contract, its one owner, and the process that it lives in."""

import json
import os
import shutil
import signal
import time

import pytest
import torch

from dqecir.errors import EngineError
from dqecir.index import edge
from dqecir.index.edge import EdgeIndex
from tests.index.contract import HEADER, EngineContract, batches, item


class TestEdge(EngineContract):
    engine = EdgeIndex


@pytest.fixture
def index(tmp_path):
    return EdgeIndex.build(tmp_path / "index", HEADER, batches())


def in_a_fork(job) -> str:
    """What ``job`` returns, or the sentence with which it fails, in a process forked from this one."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, str(job()).encode())
        except EngineError as error:
            os.write(theirs, str(error).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours) as said:
        return said.read()


def processes(index) -> list[int]:
    return [index._state.store._worker._process.pid]


def test_a_folder_has_one_owner_at_a_time(index, tmp_path, monkeypatch):
    monkeypatch.setattr(edge, "PATIENCE", 0.1)
    query = torch.ones(1, 1, 8)
    said = in_a_fork(lambda: len(EdgeIndex.open(tmp_path / "index")))
    assert f"is open in another process (number {os.getpid()})" in said
    assert "forked" in in_a_fork(lambda: index.search(query, 1))
    # What is open here goes on, and a second one here shares it.
    assert len(index.search(query, 20)[0]) == 10
    again = EdgeIndex.open(tmp_path / "index")
    index.close()
    assert len(again) == 10
    again.close()
    assert in_a_fork(lambda: len(EdgeIndex.open(tmp_path / "index"))) == "10"
    with pytest.raises(EngineError, match="the index is closed"):
        index.search(query, 1)


def test_a_process_that_dies_is_started_again_and_loses_nothing(index, capsys):
    query = torch.ones(1, 1, 8)
    before = index.search(query, 5)
    for change in (lambda: index.search(query, 5), lambda: index.add(item("new", 1))):
        [number] = processes(index)
        os.kill(number, signal.SIGKILL)
        change()
        assert processes(index) != [number]
        assert "ended (signal 9) and is started again" in " ".join(capsys.readouterr().err.split())
    index.delete(["new"])
    assert index.search(query, 5) == before


def test_a_process_leaves_with_a_killed_user_whose_fork_lives_on(index, tmp_path):
    """The fork has the other end of the link, so the link alone does not tell of the death."""
    index.close()
    ours, theirs = os.pipe()
    user = os.fork()
    if user == 0:
        held = EdgeIndex.open(tmp_path / "index")
        fork = os.fork()
        if fork:
            os.write(theirs, f"{fork} {processes(held)[0]}".encode())
        time.sleep(60)
        os._exit(0)
    fork, number = (int(word) for word in os.read(ours, 100).split())
    os.kill(user, signal.SIGKILL)
    os.waitpid(user, 0)
    try:
        again = EdgeIndex.open(tmp_path / "index")
        assert len(again) == 10
        assert processes(again) != [number]
    finally:
        os.kill(fork, signal.SIGKILL)
        os.close(ours)
        os.close(theirs)


def test_a_process_leaves_with_its_last_user(tmp_path):
    index = EdgeIndex.build(tmp_path / "index", HEADER, batches())
    [number] = processes(index)
    other = EdgeIndex.open(tmp_path / "index")
    assert processes(other) == [number]
    del index
    os.kill(number, 0)
    other.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_replaced_shard_goes_when_nobody_has_it_open(index, tmp_path):
    EdgeIndex.build(tmp_path / "index", HEADER, batches(4)).close()
    shards = [path.name for path in sorted((tmp_path / "index").glob("e*"))]
    assert "e00000001" in shards
    assert len(index.search(torch.ones(1, 1, 8), 20)[0]) == 10
    index.refresh()
    assert len(index) == 4
    assert {path.name[:9] for path in (tmp_path / "index").glob("e*")} == {"e00000002"}


def test_an_index_of_another_version_is_refused_and_built_again(index, tmp_path):
    index.close()
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    with pytest.raises(EngineError, match="another version: build it again"):
        EdgeIndex.open(tmp_path / "index")
    assert len(EdgeIndex.build(tmp_path / "index", HEADER, batches(4))) == 4
    assert len(list((tmp_path / "index").glob("e????????"))) == 1


def test_old_generations_are_cleared_away_and_who_is_behind_goes_on(index, tmp_path):
    behind, reader = EdgeIndex.open(tmp_path / "index"), EdgeIndex.open(tmp_path / "index")
    for _ in range(20):
        index.add(item("item0", 5))
    held = index._state.store.count({"must": [{"key": "item", "match": {"any": ["item0"]}}]})
    assert held <= 18
    hits = behind.search(torch.ones(1, 1, 8), 20)[0]
    assert sorted(hit.id for hit in hits) == sorted(f"item{number}" for number in range(10))
    assert behind.info()["generation"] == 21
    assert torch.equal(reader.tokens(["item0"]), index.tokens(["item0"]))


def test_half_an_index_is_refused(index, tmp_path):
    index.close()
    (tmp_path / "index" / "e00000001" / "edge_config.json").write_text("x")
    with pytest.raises(EngineError, match="damaged, build the index again"):
        EdgeIndex.open(tmp_path / "index")
    shutil.rmtree(tmp_path / "index" / "e00000001")
    with pytest.raises(EngineError, match="half an index"):
        EdgeIndex.open(tmp_path / "index")
