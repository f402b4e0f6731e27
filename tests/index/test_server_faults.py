"""The engine ``server`` with failing servers, colliding writers and killed builds.

A transport that fails plays the network, Qdrant's client plays server, and a clock of the tests plays time.
"""

import base64
import json
import random
import warnings
from contextlib import contextmanager
from functools import partial

import httpx
import pytest
import torch
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from dqecir.errors import EngineError
from dqecir.index import engines, qdrant_collection, qdrant_leftovers, server
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.qdrant_collection import IN_MEMORY, KEY, URL, Collection
from dqecir.index.qdrant_earlier import FORMAT as EARLIER
from dqecir.index.qdrant_leftovers import being_built, leftovers
from dqecir.index.server import ServerIndex, build_in
from dqecir.io.files import write_json

DOT = IndexHeader(model="m1", tokens=1, size=8, score_rule="dot")


def vectors(names, seed: int = 0, **payload) -> ItemBatch:
    tokens = torch.randn(len(names), 1, 8, generator=torch.Generator().manual_seed(seed))
    return ItemBatch(list(names), tokens, [payload] * len(names))


class Clock:
    """A clock that advances while a caller sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(qdrant_collection, "time", clock)
    monkeypatch.setattr(qdrant_leftovers, "time", clock)
    return clock


@pytest.fixture
def in_memory(monkeypatch):
    """Yield a server in memory that holds nothing yet."""
    monkeypatch.setenv(URL, IN_MEMORY)
    client = QdrantClient(IN_MEMORY)
    monkeypatch.setattr(qdrant_collection, "client_in_memory", lambda: client)
    qdrant_collection.client_of.cache_clear()
    yield client
    qdrant_collection.client_of.cache_clear()


COUNTED = {"result": {"count": 3}, "status": "ok", "time": 0.0}


@pytest.fixture
def answering(monkeypatch):
    """Replace the server by a function of requests."""

    def start(answer):
        transport = httpx.MockTransport(answer)
        qdrant_collection.client_of.cache_clear()
        monkeypatch.setattr(qdrant_collection, "QdrantClient", partial(QdrantClient, transport=transport))

    yield start
    qdrant_collection.client_of.cache_clear()


def reset(request):
    raise httpx.ReadError("Connection reset by peer", request=request)


def silence(request):
    raise httpx.ReadTimeout("timed out", request=request)


FAULTS = {
    "500": lambda request: httpx.Response(500, json={"status": {"error": "Service internal error"}}),
    "503": lambda request: httpx.Response(503, text="no available server"),
    "a shard that is not there yet": lambda request: httpx.Response(
        404, json={"status": {"error": "Not found: Local shard 2 not found"}}
    ),
    "too many": lambda request: httpx.Response(429, headers={"Retry-After": "1"}),
    "reset": reset,
    "silence": silence,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_change_waits_for_a_server_that_comes_back(fault, answering, clock):
    answering(lambda request: FAULTS[fault](request) if clock.now < 25 else httpx.Response(200, json=COUNTED))
    assert Collection("http://127.0.0.1:1", "c").patient.count({"must": []}) == 3
    assert 25 <= clock.now < 28


@pytest.mark.parametrize("fault", FAULTS)
def test_after_half_a_minute_a_change_is_refused_in_one_sentence(fault, answering, clock):
    answering(FAULTS[fault])
    with pytest.raises(EngineError, match=r"^the Qdrant server at http://127.0.0.1:1 failed: [^\n]*$"):
        Collection("http://127.0.0.1:1", "c").patient.count({"must": []})
    assert 25 < clock.now <= 30


@pytest.mark.parametrize("fault", FAULTS)
def test_a_search_is_repeated_once(fault, answering, clock):
    requests = []

    def answer(request):
        requests.append(request)
        return FAULTS[fault](request) if len(requests) <= failing else httpx.Response(200, json=COUNTED)

    answering(answer)
    failing = 1
    assert Collection("http://127.0.0.1:1", "c").count({"must": []}) == 3
    failing, requests[:] = 2, []
    with pytest.raises(EngineError, match="failed"):
        Collection("http://127.0.0.1:1", "c").count({"must": []})
    assert len(requests) == 2
    assert clock.now < 1


def test_what_a_server_refuses_is_not_repeated(answering, clock):
    requests = []

    def answer(request):
        requests.append(request)
        return httpx.Response(403, json={"status": {"error": "forbidden"}})

    answering(answer)
    with pytest.raises(EngineError, match="403"):
        Collection("http://127.0.0.1:1", "c").patient.count({"must": []})
    assert len(requests) == 1


def test_the_other_addresses_of_a_cluster_are_asked_where_one_is_down(answering, clock, monkeypatch):
    hosts = []

    def answer(request):
        hosts.append(request.url.host)
        return reset(request) if request.url.host in down else httpx.Response(200, json=COUNTED)

    answering(answer)
    cluster = Collection("http://a.example:6333, http://b.example:6333,http://c.example:6333", "c")
    down = {"a.example", "b.example"}
    assert cluster.count({"must": []}) == 3
    assert hosts == ["a.example", "b.example", "c.example"]
    down = {"a.example", "b.example", "c.example"}
    with pytest.raises(EngineError, match=r"at http://a.example:6333, http://b.example:6333,.* failed"):
        cluster.count({"must": []})
    for url in ("http://a.example:6333,b.example", "http://a.example,http://me:secret@b.example"):
        with pytest.raises(EngineError, match=r"is not the address|put its key"):
            Collection(url, "c")


@pytest.mark.parametrize(
    ("address", "is_said"),
    [
        ("http://qdrant.example:6333", True),
        ("http://10.0.0.7:6333", True),
        ("https://qdrant.example:6333", False),
        ("http://localhost:6333", False),
        ("http://127.0.0.2:6333", False),
        ("http://[::1]:6333", False),
    ],
)
def test_a_key_that_others_can_read_is_one_line(address, is_said, answering, monkeypatch, capsys):
    keys = []

    def answer(request):
        keys.append(request.headers.get("api-key"))
        return httpx.Response(200, json=COUNTED)

    answering(answer)
    monkeypatch.setenv(KEY, "secret")
    qdrant_collection.warn_of_key.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for collection in (Collection(address, "c"), Collection(address, "c").patient):
            assert collection.count({"must": []}) == 3
    said = capsys.readouterr().err
    line = f"the key of {address} travels unencrypted: give the server's address as https://\n"
    assert said == (line if is_said else "")
    assert keys == ["secret", "secret"]


class Flaky:
    """A client whose calls fail at random, before or after they took effect."""

    def __init__(self, client, seed: int):
        self.client, self.draw, self.failed = client, random.Random(seed), 0

    def __getattr__(self, name):
        def call(*arguments, **options):
            fault = self.draw.random()
            self.failed += not 0.2 <= fault <= 0.8
            if fault < 0.2:
                raise ResponseHandlingException(httpx.ConnectError("refused"))
            found = getattr(self.client, name)(*arguments, **options)
            if fault > 0.8:
                raise UnexpectedResponse(500, "Internal Server Error", b"", httpx.Headers())
            return found

        return call


@pytest.mark.parametrize("seed", range(3))
def test_changes_through_a_failing_network_are_those_of_a_sound_one(
    in_memory, clock, tmp_path, monkeypatch, seed
):
    right = ExactIndex.build(tmp_path / "right", DOT, iter([vectors("abcdef")]))
    flaky, draw = Flaky(in_memory, seed), random.Random(seed)

    @contextmanager
    def failing():
        with monkeypatch.context() as patch:
            patch.setattr(qdrant_collection, "client_in_memory", lambda: flaky)
            qdrant_collection.client_of.cache_clear()
            yield
        qdrant_collection.client_of.cache_clear()

    with failing():
        build_in(tmp_path / "index", DOT, right.items())
    index = ServerIndex.open(tmp_path / "index")
    for step in range(8):
        names = draw.sample("abcdefghij", 3)
        with failing():
            for one in (right, index):
                if step % 3 == 1:
                    one.change_payloads({name: {"price": step} for name in names})
                elif step % 3:
                    one.add(vectors(names, step, step=step))
                else:
                    one.delete(names)
    assert flaky.failed > 20
    again = ServerIndex.open(tmp_path / "index")
    assert list(again.entries()) == list(right.entries())
    assert torch.equal(again.tokens(right.ids()), right.tokens(right.ids()))


@contextmanager
def between(monkeypatch, done):
    """Do something after a change has written its points and before it counts."""
    write, todo = Collection.write_record, [lambda: None, done]

    def then(collection, payload, before=None):
        # The first record that is written is the claim to make the change.
        if todo:
            todo.pop(0)()
        write(collection, payload, before)

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "write_record", then)
        yield
    assert not todo


@pytest.mark.parametrize("payload", [{}, {"color": "red"}])
def test_of_two_writers_with_copies_of_a_manifest_the_slower_is_refused(
    in_memory, tmp_path, monkeypatch, payload
):
    first = ServerIndex.build(tmp_path / "one", DOT, iter([vectors("abcdef")]))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "manifest.json").write_bytes((tmp_path / "one" / "manifest.json").read_bytes())
    second = ServerIndex.open(tmp_path / "two")
    quicker = vectors(["a", "x", "y"], 1, **payload)
    refused = pytest.raises(EngineError, match=r"another writer changed .*: make it again, and write on one")
    with between(monkeypatch, lambda: second.add(quicker)), refused:
        first.add(vectors(["a", "b", "z"], 2))
    for index in (first, second, ServerIndex.open(tmp_path / "one")):
        index.refresh()
        assert index.ids() == ["b", "c", "d", "e", "f", "a", "x", "y"]
        assert len(index) == 8
        assert torch.equal(index.tokens(["a", "x", "y"]), quicker.tokens.half())
        assert index.payload("a") == payload
    # The next change of either goes through.
    first.add(vectors(["z"], 2))
    with between(monkeypatch, lambda: first.delete(["z", "c"])), pytest.raises(EngineError, match="another"):
        second.delete(["c", "d"])
    assert second.delete(["d"]) == 1
    first.refresh()
    assert first.ids() == second.ids() == ["b", "e", "f", "a", "x", "y"]


def test_of_two_writers_of_payloads_the_slower_is_refused(in_memory, tmp_path, monkeypatch):
    first = ServerIndex.build(tmp_path / "one", DOT, iter([vectors("abcdef")]))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "manifest.json").write_bytes((tmp_path / "one" / "manifest.json").read_bytes())
    second, set_payloads = ServerIndex.open(tmp_path / "two"), Collection.set_payloads
    turns = [lambda: None, lambda: second.change_payloads({item: {"price": 2} for item in "ac"})]

    def then(collection, payloads):
        set_payloads(collection, payloads)
        if turns:
            turns.pop()()

    monkeypatch.setattr(server, "WRITTEN", 1)
    monkeypatch.setattr(Collection, "set_payloads", then)
    with pytest.raises(EngineError, match=r"another writer changed .*: make it again"):
        first.change_payloads({item: {"price": 1} for item in "abc"})
    found = ServerIndex.open(tmp_path / "one").payloads(["a", "b", "c"])
    assert found == {"a": {"price": 2}, "b": {}, "c": {"price": 2}}
    assert first.change_payloads({"b": {"price": 3}}) == 1


def test_no_acknowledged_change_of_two_writers_is_lost(in_memory, tmp_path, monkeypatch):
    """Every step of a change may be followed by a whole change of another writer."""
    ServerIndex.build(tmp_path / "one", DOT, iter([vectors("abc")]))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "manifest.json").write_bytes((tmp_path / "one" / "manifest.json").read_bytes())
    one, two = ServerIndex.open(tmp_path / "one"), ServerIndex.open(tmp_path / "two")
    call, acknowledged, refused = Collection.call, [], []
    for step in range(14):
        calls = iter(range(99))

        def interrupted(collection, work, step=step, calls=calls):
            if next(calls) == step:
                with monkeypatch.context() as patch:
                    patch.setattr(Collection, "call", call)
                    two.add(vectors([f"two{step}"], step))
                    acknowledged.append(f"two{step}")
            return call(collection, work)

        with monkeypatch.context() as patch:
            patch.setattr(Collection, "call", interrupted)
            try:
                one.add(vectors([f"one{step}"], step))
                acknowledged.append(f"one{step}")
            except EngineError:
                refused.append(f"one{step}")
    assert refused and "one0" in acknowledged
    found = ServerIndex.open(tmp_path / "one").ids()
    assert sorted(found) == sorted(["a", "b", "c", *acknowledged])


def test_what_killed_builds_left_is_named_and_removed(in_memory, clock, tmp_path, monkeypatch, dqecir):
    done = ServerIndex.build(tmp_path / "index", DOT, iter([vectors("abc")])).info()["collection"]
    ServerIndex.build(tmp_path / "index", DOT, iter([vectors("ab")]))
    left, alive = (Collection(IN_MEMORY, f"dqecir-{name}-1") for name in ("left", "alive"))
    for collection in (left, alive, Collection(IN_MEMORY, "somebody's")):
        collection.create((1, 8))
    with being_built(left):
        pass
    (tmp_path / ".index.draft-abcd1234").mkdir()
    sleep = clock.sleep

    def lives(seconds):
        alive.write_record({"building": clock.now})
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", lives)
    assert [found.name for found in leftovers(IN_MEMORY)] == [left.name]
    assert clock.now == qdrant_leftovers.WATCHED
    code, out, _ = dqecir("index", "leftovers", "--index", tmp_path / "index")
    assert code == 0
    draft = tmp_path / ".index.draft-abcd1234"
    assert out.splitlines() == [
        f"left by an interrupted build: {draft}",
        f"left by an interrupted build: {left.name} at {IN_MEMORY}",
    ]
    code, out, _ = dqecir("index", "leftovers", "--index", tmp_path / "index", "--remove")
    assert out.startswith("removed ")
    assert not draft.exists()
    names = left.names()
    assert left.name not in names and {alive.name, "somebody's", done} <= set(names)
    alive.drop()
    assert dqecir("index", "leftovers")[1] == "no interrupted build left anything behind\n"
    monkeypatch.delenv(URL)
    assert "name an index folder with --index" in dqecir("index", "leftovers")[2]


def test_a_build_gives_signs_of_life_until_it_has_finished(in_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(qdrant_leftovers, "BEAT", 0.0)
    collection = Collection(IN_MEMORY, "dqecir-a-1")
    collection.create((1, 8))
    with being_built(collection):
        first = collection.read_record()["building"]
        while collection.read_record()["building"] == first:
            pass
    last = collection.read_record()
    assert collection.read_record() == last


@pytest.mark.parametrize("rule", ["likelihood", "dot"])
def test_an_index_of_the_earlier_version_opens_for_a_move_alone(in_memory, tmp_path, rule):
    header = IndexHeader(model="m1", tokens=1 if rule == "dot" else 3, size=8, score_rule=rule)
    tokens = torch.randn(300, header.tokens, 8).half()
    record = {"format": EARLIER, "generation": 2, "header": header.model_dump()}
    in_memory.create_collection(
        "dqecir-a-1", {"line": models.VectorParams(size=8, distance=models.Distance.DOT)}
    )
    points = [models.PointStruct(id=0, vector={}, payload={"record": json.dumps(record)})]
    for number, own in enumerate(tokens, start=1):
        born = {"born": 3} if number == 300 else {"born": 1, "died": 2} if number == 7 else {"born": 1}
        payload = {
            "item": f"item{number}",
            "payload": json.dumps({"n": number}),
            "bytes": base64.b64encode(own.numpy().tobytes()).decode(),
            **born,
        }
        points.append(models.PointStruct(id=number, vector={"line": [0.0] * 8}, payload=payload))
    in_memory.upsert("dqecir-a-1", points)
    folder = tmp_path / "index"
    folder.mkdir()
    manifest = {"format": EARLIER, "engine": "server", "header": header.model_dump(), "store": "dqecir-a-1"}
    write_json(folder / "manifest.json", {**manifest, "url": IN_MEMORY, "candidates": 7, "exact_up_to": 0})
    with pytest.raises(EngineError, match=r"another version: build it again, or move it \(dqecir index move"):
        engines.open_index(folder)
    moved = engines.move_index(folder, tmp_path / "exact", "exact")
    rows = [row for row in range(299) if row != 6]
    assert moved.header == header
    assert list(moved.entries()) == [(f"item{row + 1}", {"n": row + 1}) for row in rows]
    assert torch.equal(moved.tokens(moved.ids()), tokens[rows])
