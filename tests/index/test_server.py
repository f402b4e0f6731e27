"""The engine ``server``: the contract, and what it shares with the exact engine: filters, scores, moves.

Qdrant's client plays server in these tests; the contract also runs on a real one where there is one.
"""

import json
import os
import random
from threading import RLock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.errors import EngineError, FilterError
from dqecir.index import engines, qdrant_collection, server
from dqecir.index.contract import ItemBatch, SearchSettings
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import And, Compare, Equal, Filter, Not, Or, parse_filter
from dqecir.index.qdrant_collection import IN_MEMORY, KEY, URL, Collection
from dqecir.index.qdrant_leftovers import siblings
from dqecir.index.qdrant_points import FOLLOWED, among, safe_name
from dqecir.index.server import ServerIndex
from tests.index.contract import HEADER, EngineContract, batches, item

REAL = os.environ.get(URL)

NAMES = ("a", "b.c", "not b", 'x"[]', "größe", "x-2e-")
VALUES = (
    "red",
    "RED",
    "straße",
    "STRASSE",
    "1",
    "1.0",
    "1e0",
    "-2.50",
    "0.1",
    "nan",
    "inf",
    "",
    "x=y",
    "İ",
    "i̇",
    "5' 10\"",
    "true",
)
SCALARS = (*VALUES, 1, 2, 1.0, 0.1, -2.5, 10**17, True, None, ["red", "straße"], ["-2.50", "2"], [0.5, 1.5])


@pytest.fixture
def in_memory(monkeypatch):
    monkeypatch.setenv(URL, IN_MEMORY)


@pytest.mark.usefixtures("in_memory")
class TestServerInTheClient(EngineContract):
    engine, rules = ServerIndex, FOLLOWED

    @pytest.fixture(autouse=True)
    def one_thread_at_a_time(self, monkeypatch):
        """Let one thread at a time use the client's memory, which is not thread-safe, unlike a server."""
        one, call = RLock(), Collection.call

        def alone(collection, work):
            with one:
                return call(collection, work)

        monkeypatch.setattr(Collection, "call", alone)


@pytest.mark.skipif(REAL is None, reason=f"no Qdrant server: set {URL} to have it tested")
class TestServer(EngineContract):
    engine, rules = ServerIndex, FOLLOWED

    @pytest.fixture(autouse=True)
    def clean(self):
        """Yield, and remove everything from the server afterwards."""
        before = self.collections()
        yield
        for name in self.collections() - before:
            Collection(REAL, name).drop()

    @staticmethod
    def collections() -> set[str]:
        return set(Collection(REAL, "any").names())


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Return the same 150 items of all kinds of payload in both engines."""
    draw = random.Random(0)
    payloads = [
        {name: draw.choice(SCALARS) for name in draw.sample(NAMES, draw.randrange(len(NAMES)))}
        for _ in range(150)
    ]
    batch = ItemBatch([f"item{row}" for row in range(150)], torch.rand(150, 3, 8), payloads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(URL, IN_MEMORY)
        folder = tmp_path_factory.mktemp("shops")
        return [
            engine.build(folder / engine.__name__, HEADER, iter([batch]))
            for engine in (ExactIndex, ServerIndex)
        ]


leaves = st.one_of(
    st.builds(
        Equal, st.sampled_from(NAMES), st.lists(st.sampled_from(VALUES), min_size=1, max_size=3).map(tuple)
    ),
    st.builds(
        Compare,
        st.sampled_from((*NAMES, "nobody's")),
        st.sampled_from(["<", "<=", ">", ">="]),
        st.sampled_from([-2.5, 0.1, 1.0, 1.5, 1e17]),
    ),
)


def several(part: st.SearchStrategy[Filter]) -> st.SearchStrategy[tuple[Filter, ...]]:
    return st.lists(part, min_size=2, max_size=3).map(tuple)


filters = st.recursive(
    leaves, lambda part: st.builds(Not, part) | st.builds(And, several(part)) | st.builds(Or, several(part))
)


@settings(max_examples=150)
@given(where=filters)
def test_filters_mean_what_they_mean_in_the_exact_engine(shops, where):
    def found(index):
        try:
            hits = index.search(torch.ones(1, 1, 8), 200, [["item3"]], parse_filter(str(where)))[0]
        except FilterError as error:
            return str(error)
        return [(hit.id, hit.payload) for hit in hits]

    right, other = [found(index) for index in shops]
    assert other == right


@pytest.mark.parametrize("some", [5, 1000])
def test_the_server_counts_values_and_no_payload_is_read(shops, tmp_path, monkeypatch, some):
    exact, counted = shops
    right = exact.values()
    more = [{"price": f"{n % 40} €", "title": f"Dress {n}", "mixed": n % 30 or "none"} for n in range(120)]
    monkeypatch.setenv(URL, IN_MEMORY)
    batch = ItemBatch([f"i{n}" for n in range(120)], torch.rand(120, 3, 8), more)
    many = [
        engine.build(tmp_path / engine.__name__, HEADER, iter([batch]))
        for engine in (ExactIndex, ServerIndex)
    ]
    facts = many[0].column_facts(8, 4)
    monkeypatch.setattr(server, "SOME", some)
    monkeypatch.setattr(Collection, "scroll", lambda *_: pytest.fail("reads payloads"))
    assert counted.values() == right
    found = many[1].column_facts(8, 4)
    assert found.keys() == facts.keys() == {"price", "title", "mixed"}
    for name, one in facts.items():
        assert (found[name].values, found[name].numbers) == (one.values, one.numbers)
        assert set(found[name].some) <= set(one.some)


def test_names_of_attributes_stay_different():
    assert len({safe_name(name) for name in NAMES}) == len(NAMES)


@pytest.mark.usefixtures("in_memory")
def test_what_a_writer_left_undone_never_shows(tmp_path, monkeypatch):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())

    def cut(collection, payload, before):
        raise EngineError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "write_record", cut)
        with pytest.raises(EngineError, match="cut off"):
            index.add(ItemBatch(["item0", "new", "newer"], torch.ones(3, 3, 8), [{"path": "new"}] * 3))
    for changed in (0, 1, 2):
        hits = {hit.id: hit for hit in index.search(torch.ones(1, 1, 8), 20)[0]}
        assert len(hits) == len(index) == 10 - changed
        assert hits["item0"].payload == {"path": "/0"}
        # The next generation has the number of the one that was cut off.
        index.delete([f"item{changed + 1}"])


@pytest.mark.usefixtures("in_memory")
def test_a_search_with_other_settings_is_there_where_every_item_is_compared(tmp_path):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())
    some = SearchSettings(candidates=7, exact_up_to=0)
    assert index.with_settings(None) is index
    assert index.with_settings(some) is None
    index.configure(None)
    with pytest.raises(EngineError, match="compares every item: the number of candidates cannot be set"):
        index.configure(some)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("rule", ["mean_mean", "likelihood"])
def test_a_rule_that_qdrant_does_not_follow_is_refused(tmp_path, rule):
    header = HEADER.model_copy(update={"score_rule": rule})
    with pytest.raises(
        EngineError, match=f"supports the score rules dot, max_t, max_max, but not {rule}: use"
    ):
        ServerIndex.build(tmp_path / "i", header, batches())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("in_memory")
def test_an_index_moves_there_and_back(tmp_path):
    first = ExactIndex.build(tmp_path / "exact", HEADER, batches(300))
    first.add(item("item7", 3, price="30", odd=[1, None]))
    stations = [("server", "server"), ("server2", "server"), ("exact2", "exact")]
    folder = tmp_path / "exact"
    for name, engine in stations:
        index = engines.move_index(folder, tmp_path / name, engine)
        assert index.info()["engine"] == engine
        folder = tmp_path / name
    last = ExactIndex.open(folder)
    assert list(last.entries()) == list(first.entries())
    assert torch.equal(*(torch.cat([part.tokens for part in index.items()]) for index in (first, last)))
    with pytest.raises(EngineError, match="into itself"):
        engines.move_index(folder, folder, "exact")


def test_a_server_is_named_and_its_key_is_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv(URL, raising=False)
    monkeypatch.setattr(qdrant_collection, "PATIENCE", 0.0)
    with pytest.raises(EngineError, match=f"the address of the Qdrant server is missing: set {URL}"):
        ServerIndex.build(tmp_path / "i", HEADER, batches())
    for address, message in [
        ("http://me:secret@localhost:6333", f"put its key into {KEY}"),
        ("localhost:6333", "is not the address"),
        ("http://localhost:9", "failed: "),
    ]:
        monkeypatch.setenv(URL, address)
        with pytest.raises(EngineError, match=message) as error:
            ServerIndex.build(tmp_path / "i", HEADER, batches())
        assert "secret" not in str(error.value)
        assert not (tmp_path / "i").exists()
    monkeypatch.setenv(URL, IN_MEMORY)
    monkeypatch.setenv(KEY, "secret")
    ServerIndex.build(tmp_path / "i", HEADER, batches())
    monkeypatch.delenv(URL)
    assert len(ServerIndex.open(tmp_path / "i")) == 10
    assert "secret" not in (tmp_path / "i" / "manifest.json").read_text()


def test_an_engine_that_is_not_there_is_said(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    assert isinstance(engines.open_index(tmp_path / "i"), ExactIndex)
    path = tmp_path / "i" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine": "sever"}))
    with pytest.raises(EngineError, match="no engine 'sever'; did you mean 'server'"):
        engines.open_index(tmp_path / "i")


@pytest.mark.usefixtures("in_memory")
def test_a_replaced_collection_stays_until_the_next_build(tmp_path):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())
    ServerIndex.build(tmp_path / "i", HEADER, batches(4))
    first, second = index.info()["collection"], ServerIndex.open(tmp_path / "i").info()["collection"]
    assert len(index.search(torch.ones(1, 1, 8), 20)[0]) == 10
    index.refresh()
    assert len(index) == 4
    ServerIndex.build(tmp_path / "i", HEADER, batches(4))
    third = ServerIndex.open(tmp_path / "i").info()["collection"]
    assert len({first, second, third}) == 3
    assert set(siblings(Collection(IN_MEMORY, third))) == {second, third}


@pytest.mark.usefixtures("in_memory")
def test_an_index_of_another_version_is_refused_and_built_again(tmp_path):
    ServerIndex.build(tmp_path / "i", HEADER, batches())
    manifest = tmp_path / "i" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    with pytest.raises(EngineError, match="another version: build it again"):
        ServerIndex.open(tmp_path / "i")
    assert len(ServerIndex.build(tmp_path / "i", HEADER, batches(4))) == 4


@pytest.mark.usefixtures("in_memory")
def test_an_index_whose_collection_is_gone_is_refused(tmp_path):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())
    Collection(IN_MEMORY, index.info()["collection"]).drop()
    with pytest.raises(EngineError, match=r"no longer has the points of .*: build the index again"):
        ServerIndex.open(tmp_path / "i")


@pytest.mark.usefixtures("in_memory")
def test_old_generations_are_cleared_away_and_who_is_behind_goes_on(tmp_path):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())
    behind, reader = ServerIndex.open(tmp_path / "i"), ServerIndex.open(tmp_path / "i")
    for _ in range(20):
        index.add(item("item0", 5))
    held = Collection(IN_MEMORY, index.info()["collection"]).count(among("item", ["item0"]))
    assert held <= 18
    hits = behind.search(torch.ones(1, 1, 8), 20)[0]
    assert sorted(hit.id for hit in hits) == sorted(f"item{number}" for number in range(10))
    assert behind.generation == 21
    assert torch.equal(reader.tokens(["item0"]), index.tokens(["item0"]))
